//! The password of a connection, read afresh each time one is made: tokens live for minutes, and passwords rotate under a
//! run. Says too whether the server ever let this process in: what it refuses afterwards is another matter than a wrong
//! password.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zeroize::Zeroizing;

use super::dsn::{PasswordError, read_password_file};
use crate::error::{Error, Exit, Result};
use crate::program::Program;

/// Where a password is read each time, beside what DATABASE_URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// A file that holds it, one line end apart.
    File(PathBuf),
    /// What a program prints.
    Command(Program),
}

impl PasswordSource {
    /// Reads `file:PATH` or `command:PROGRAM ARG…`. Anything else may be the password itself, and is not repeated.
    pub fn parse(text: &str) -> Result<PasswordSource> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(PasswordSource::File(PathBuf::from(path))),
            Some(("command", command)) => PasswordSource::command(command),
            _ => Err(Error::new(
                Exit::Usage,
                "--database-password names no place of a password (it is not shown: it may be one)",
            )
            .hint("Write `file:PATH` or `command:PROGRAM ARG…`. Put the password itself into DATABASE_URL or PGPASSWORD")),
        }
    }

    /// A program with its arguments.
    pub fn command(text: &str) -> Result<PasswordSource> {
        Program::parse(text).map(PasswordSource::Command).ok_or_else(|| {
            Error::new(Exit::Usage, "`--database-password-command` is empty or has unmatched quotes")
                .hint("Quote it as in a shell: `--database-password-command 'aws rds generate-db-auth-token --hostname HOST --port 5432 --username rekey'`")
        })
    }
}

/// What a process knows about getting in. All its connectors share one.
#[derive(Debug, Default)]
pub struct Login {
    source: Option<PasswordSource>,
    admitted: AtomicBool,
}

impl Login {
    /// With the password from this place rather than from DATABASE_URL.
    pub fn with(source: Option<PasswordSource>) -> Arc<Login> {
        Arc::new(Login { source, admitted: AtomicBool::new(false) })
    }

    /// The server has let this process in.
    pub(super) fn admit(&self) {
        self.admitted.store(true, Ordering::Relaxed);
    }

    /// Whether it ever did.
    pub(super) fn was_admitted(&self) -> bool {
        self.admitted.load(Ordering::Relaxed)
    }

    /// The password as it is now, if a place was named for it.
    pub(super) async fn password(&self) -> Result<Option<Zeroizing<String>>, PasswordError> {
        match &self.source {
            None => Ok(None),
            Some(PasswordSource::File(path)) => file(path).map(Some),
            Some(PasswordSource::Command(program)) => {
                let printed = program.run(None).await?;
                text(&printed, || program.name().to_owned()).map(Some)
            }
        }
    }

    /// Whether the password is read anew each time.
    pub(super) fn is_renewed(&self) -> bool {
        self.source.is_some()
    }
}

fn file(path: &Path) -> Result<Zeroizing<String>, PasswordError> {
    let whole = read_password_file(path)?;
    let line = whole.strip_suffix('\n').unwrap_or(&whole);
    let line = line.strip_suffix('\r').unwrap_or(line);
    text(line.as_bytes(), || path.display().to_string())
}

fn text(bytes: &[u8], place: impl Fn() -> String) -> Result<Zeroizing<String>, PasswordError> {
    let unusable = |what| PasswordError::Unusable { place: place(), what };
    let text = std::str::from_utf8(bytes).map_err(|_| unusable("it is not UTF-8"))?;
    match text {
        "" => Err(unusable("it is empty")),
        text if text.contains(['\0', '\n']) => Err(unusable("it has several lines")),
        text => Ok(Zeroizing::new(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_password_is_not_repeated() {
        for text in ["hunter2", "hunter2:x", "file:", ""] {
            let error = PasswordSource::parse(text).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
