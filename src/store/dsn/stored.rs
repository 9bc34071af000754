//! What is found, where libpq looks too, for a database URL that has no password itself: a service's, or a line of the
//! password file. Read each time a connection is made. Unlike libpq, which wants 0600, the password file may be readable by
//! its group: a Secret that is mounted into a pod is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::service;
use crate::error::Exit;
use crate::program::Failure;

/// Longer than any password, RDS tokens of a kilobyte and more included.
const MAX_BYTES: u64 = 65_536;

/// The places to look in where DATABASE_URL itself has no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The service file, and the service.
    pub service: Option<(PathBuf, String)>,
    /// The password file.
    pub passfile: Option<PathBuf>,
    /// Host, port, database and user, which choose its line.
    pub key: [String; 4],
}

impl Stored {
    /// The password as it is now; `None` where there is none for this database.
    pub(in crate::store) fn password(&self) -> Result<Option<Zeroizing<String>>, PasswordError> {
        if let Some((path, name)) = &self.service {
            let pairs = service::read(path, name)
                .map_err(|e| PasswordError::File { path: path.clone(), cause: e.to_string() })?;
            if let Some((_, password)) = pairs.into_iter().find(|(name, _)| name == "password") {
                return Ok(Some(password));
            }
        }
        let Some(path) = &self.passfile else { return Ok(None) };
        let Ok(found) = fs::metadata(path) else { return Ok(None) };
        if found.permissions().mode() & 0o007 != 0 {
            tracing::warn!(path = %path.display(), "the password file is not read: other users may read it; chmod o= it");
            return Ok(None);
        }
        let lines = read_password_file(path)?;
        Ok(lines.lines().find_map(|line| self.matches(line)))
    }

    /// The password of a line `HOST:PORT:DATABASE:USER:PASSWORD`, where `*` stands for anything and a backslash takes the
    /// next character as it is.
    fn matches(&self, line: &str) -> Option<Zeroizing<String>> {
        if line.starts_with('#') {
            return None;
        }
        let mut rest = line;
        for wanted in &self.key {
            let (field, after) = field(rest)?;
            if field.as_str() != "*" && field.as_str() != wanted {
                return None;
            }
            rest = after;
        }
        // The password goes on to the end of the line.
        let mut password = Zeroizing::new(String::with_capacity(rest.len()));
        let mut characters = rest.chars();
        while let Some(c) = characters.next() {
            password.push(if c == '\\' { characters.next().unwrap_or(c) } else { c });
        }
        Some(password)
    }
}

/// The field that text begins with, unescaped, and what follows its colon.
fn field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => field.extend(characters.next().map(|(_, c)| c)),
            ':' => return Some((field, &text[at + 1..])),
            c => field.push(c),
        }
    }
    None
}

/// Why a password could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("cannot read {}: {cause}", .path.display())]
    File { path: PathBuf, cause: String },
    #[error(transparent)]
    Program(#[from] Failure),
    #[error("{place} yields no password: {what}")]
    Unusable { place: String, what: &'static str },
}

impl PasswordError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            PasswordError::File { path, .. } => format!("let this user read {}", path.display()),
            PasswordError::Program(failure) => failure.hint(),
            PasswordError::Unusable { .. } => {
                "it must yield the password and nothing else, in UTF-8".to_owned()
            }
        }
    }

    /// Whether asking again later may help.
    pub fn may_pass(&self) -> bool {
        matches!(self, PasswordError::Program(failure) if failure.exit() == Exit::Unavailable)
    }
}

/// A file with a password in it.
pub(in crate::store) fn read_password_file(path: &Path) -> Result<Zeroizing<String>, PasswordError> {
    let failed = |cause: String| PasswordError::File { path: path.to_owned(), cause };
    let file = fs::metadata(path).map_err(|e| failed(e.to_string()))?;
    // It is read afresh for every connection; a pipe has a password once, and may wait for ever.
    if !file.is_file() {
        return Err(failed("it isn't a regular file".to_owned()));
    }
    if file.len() > MAX_BYTES {
        return Err(failed("it is larger than 64 KiB".to_owned()));
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(passfile: &Path) -> Stored {
        let key = ["db.example.com", "5432", "dashtam", "rekey"].map(str::to_owned);
        Stored { service: None, passfile: Some(passfile.to_owned()), key }
    }

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        let lines = "# comment\nother:5432:dashtam:rekey:no\ndb.example.com:*:dash\\tam:rekey:a\\:b\\\\c:d\n*:*:*:*:later\n";
        fs::write(&path, lines).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let password = |stored: Stored| stored.password().unwrap().map(|password| password.to_string());
        assert_eq!(password(stored(&path)).as_deref(), Some("a:b\\c:d"));
        let elsewhere = Stored { key: ["::1", "5433", "x", "y"].map(str::to_owned), ..stored(&path) };
        assert_eq!(password(elsewhere).as_deref(), Some("later"));
        assert_eq!(password(stored(&dir.path().join("none"))), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(password(stored(&path)), None);
    }
}
