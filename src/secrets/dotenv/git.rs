//! Whether git would commit a file that holds keys. A warning only: asks the git program where there is one.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// What git would do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitExposure {
    /// In no work tree, or ignored and not tracked.
    None,
    /// Tracked, or not ignored: the next `git add` takes it along.
    Exposed,
    /// In a work tree, and git could not be asked.
    Unknown,
}

/// Looks at one path; it need not exist.
pub fn git_exposure(path: &Path) -> GitExposure {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let Some(folder) = absolute.parent() else { return GitExposure::None };
    if !folder.ancestors().any(|f| f.join(".git").exists()) {
        return GitExposure::None;
    }
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        // This environment holds keys and a database password; git gets PATH and HOME, where its settings are.
        command
            .env_clear()
            .envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        // Nor does it run what the folder's own settings name.
        command.args(["-c", "core.fsmonitor=false"]);
        command.arg("-C").arg(folder).args(arguments).arg("--").arg(&absolute);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().ok().and_then(|status| status.code())
    };
    match (git(&["ls-files", "--error-unmatch"]), git(&["check-ignore", "-q"])) {
        (Some(0), _) | (Some(1), Some(1)) => GitExposure::Exposed,
        (Some(1), Some(0)) => GitExposure::None,
        _ => GitExposure::Unknown,
    }
}
