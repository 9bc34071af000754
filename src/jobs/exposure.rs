//! Whether the next git commit would include a file with keys. Nothing is refused for it.

use std::path::Path;

use crate::secrets::dotenv::{GitExposure, git_exposure};

/// Warns if the next git commit would include a file with keys.
pub fn warn_of_git(path: &Path) {
    match git_exposure(path) {
        GitExposure::None => {}
        GitExposure::Exposed => tracing::warn!(
            "{} is in a git work tree and is not ignored. Add it to .gitignore before the next commit",
            path.display()
        ),
        GitExposure::Unknown => tracing::warn!(
            "{} is in a git work tree, and rekey couldn't ask git whether it is ignored",
            path.display()
        ),
    }
}
