//! `dotenv:PATH#VAR`: one variable of a dotenv file.
//!
//! Read as the application's own reader (python-dotenv) reads it: the last assignment of a name wins. `${…}`,
//! which that reader expands, is refused: a key that depends on other variables has no one value to promote.

pub(super) mod atomic;
mod git;
mod lines;
mod replace;

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::crypto::Fingerprint;

use super::{DotenvVariable, Fetched, KeyProvider, SourceError, aws::id8, file::read_whole};
pub use git::{GitExposure, git_exposure};
pub use lines::{DotenvFile, LineError};
pub use replace::{Change, Changed, remove_backup};

/// The path of a backup beside a file: its whole name, a dot and this suffix.
pub fn backup_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The copies that `keys generate --force`, `restore` and others keep of a file: `PATH.bak`, `PATH.bak.1` and so on, and
/// `PATH.secret-key.bak`.
pub fn copies(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = beside(path, |rest| {
        let number = rest.strip_prefix(b".bak").or_else(|| rest.strip_prefix(b".secret-key.bak"))?;
        match number {
            [] => Some(()),
            [b'.', digits @ ..] => {
                (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(())
            }
            _ => None,
        }
    })
    .into_iter()
    .map(|(copy, ())| copy)
    .collect();
    found.sort();
    found
}

/// The suffix of the backup that promote keeps, with a rotation's old key in it.
pub fn old_key_suffix(rotation: Uuid) -> String {
    format!("rekey-{}.bak", id8(rotation))
}

/// The suffix of the copy that rollback keeps while it needs one, with a rotation's new key in it.
pub fn new_key_suffix(rotation: Uuid) -> String {
    format!("rekey-{}.new.bak", id8(rotation))
}

/// The suffix of the copy that finalize keeps for good, with a rotation's old key in it: database backups need that key.
pub fn retired_suffix(key: Fingerprint) -> String {
    format!("{RETIRED}{key}")
}

const RETIRED: &str = "rekey-retired-";

/// The copies beside a file that finalize kept, each with the key that its name names.
pub fn retired(path: &Path) -> Vec<(PathBuf, Fingerprint)> {
    let mut found: Vec<_> = beside(path, |rest| {
        let rest = std::str::from_utf8(rest).ok()?.strip_prefix('.')?;
        rest.strip_prefix(RETIRED)?.parse().ok()
    });
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

/// Files beside this one whose names begin with its whole name, where the rest of the name says something.
fn beside<T>(path: &Path, says: impl Fn(&[u8]) -> Option<T>) -> Vec<(PathBuf, T)> {
    let Some(name) = path.file_name() else { return Vec::new() };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let named = entries.flatten().map(|entry| entry.file_name());
    named
        .filter_map(|there| {
            let said = says(there.as_encoded_bytes().strip_prefix(name.as_encoded_bytes())?)?;
            Some((path.with_file_name(there), said))
        })
        .collect()
}

impl KeyProvider for DotenvVariable {
    async fn fetch(&self) -> Result<Fetched, SourceError> {
        let missing = |what: &str| SourceError::Missing {
            source_name: self.to_string(),
            what: what.to_owned(),
            hint: format!("Set {} in {}, or name another source", self.var, self.path.display()),
        };
        let file = DotenvFile::parse(read_whole("dotenv", &self.path)?);
        match file.get(&self.var) {
            Ok(Some(value)) if value.is_empty() => Err(missing("the variable is empty")),
            Ok(Some(value)) => Ok(Fetched::plain(value)),
            Ok(None) => Err(missing("the file does not set this variable")),
            Err(e) => Err(SourceError::Malformed {
                source_name: self.to_string(),
                what: e.to_string(),
                hint: format!("Fix that line of {}", self.path.display()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Exit};

    #[tokio::test]
    async fn a_variable_is_found_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        std::fs::write(&path, "# keys\r\nexport ENCRYPTION_KEY='abc' # the key\r\nEMPTY=\r\nBAD=\"x\r\n")
            .unwrap();
        let fetch = async |var: &str| {
            let variable = DotenvVariable { path: path.clone(), var: var.to_owned() };
            variable.fetch().await.map(|f| f.value.to_vec())
        };
        assert_eq!(fetch("ENCRYPTION_KEY").await.unwrap(), b"abc");
        for name in ["ABSENT", "EMPTY", "BAD"] {
            let e = Error::from(fetch(name).await.unwrap_err());
            assert_eq!(e.exit, Exit::Key);
            assert!(e.message.contains(name), "{e}");
        }
    }
}
