//! `file:PATH`: a file that holds one key and nothing else.
//!
//! Editors and `echo` end files with a line end; exactly one (LF or CRLF) is dropped. Pipes work
//! (`file:/dev/fd/3`), because nothing but reading is asked of the path; only what is a regular file is written.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{
    Fetched, KeyFile, KeyProvider, SourceError,
    aws::Seen,
    dotenv::{
        Changed,
        atomic::{LockedFolder, effect, failed},
        backup_path,
    },
};

/// Secrets Manager's own limit for a secret value; nothing that is one key is longer.
const MAX_BYTES: usize = 65_536;

impl KeyProvider for KeyFile {
    async fn fetch(&self) -> Result<Fetched, SourceError> {
        let mut value = read_whole("file", &self.path)?;
        drop_line_end(&mut value);
        if value.is_empty() {
            return Err(SourceError::Missing {
                source_name: self.to_string(),
                what: "the file is empty".into(),
                hint: "Write the key to the file, or name another source".into(),
            });
        }
        Ok(Fetched::plain(value))
    }
}

/// How long a named pipe is waited for: what writes to it may ask a person first.
const PIPE_LIMIT: Duration = Duration::from_secs(10);
const PIPE_PAUSE: Duration = Duration::from_millis(20);

/// Refuses what a file cannot be put in the place of: a named pipe, a folder, a device.
pub(super) fn refuse_irregular(path: &Path) -> Result<(), SourceError> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let what = match found.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_dir() => "a directory",
        _ => "a device or a socket",
    };
    Err(SourceError::Irregular { path: path.display().to_string(), what })
}

/// One key file to write: the key and one LF, mode 0600 where it is new, atomically.
pub struct FileChange<'a> {
    /// The file. A symbolic link is followed.
    pub path: &'a Path,
    /// The key. Never printed.
    pub value: &'a [u8],
    /// Keep the file as it was at `PATH.SUFFIX`, mode 0600. One that is already there is left as it is, if it holds
    /// the same, and an error if not.
    pub backup: Option<&'a str>,
}

impl FileChange<'_> {
    /// Writes the key, if `judge` allows it for the one that is there (empty where there is none).
    pub fn apply(&self, judge: impl Fn(&[u8]) -> Seen) -> Result<Changed, SourceError> {
        let real = fs::canonicalize(self.path).unwrap_or_else(|_| self.path.to_path_buf());
        refuse_irregular(&real)?;
        let folder = LockedFolder::of(&real)?;
        let like = fs::metadata(&real).ok();
        let before = match &like {
            Some(_) => read_whole("file", &real)?,
            None => Zeroizing::default(),
        };
        let mut current = Zeroizing::new(before.to_vec());
        drop_line_end(&mut current);
        match judge(&current) {
            Seen::Wanted => return Ok(Changed { changed: false, backup: None }),
            Seen::Replaceable => {}
            Seen::Foreign => {
                return Err(SourceError::Malformed {
                    source_name: format!("file:{}", self.path.display()),
                    what: "the value is neither of the keys that rekey may replace, and was not changed"
                        .into(),
                    hint: "Find out what changed it, and restore the right value".into(),
                });
            }
        }
        let backup = match (self.backup, &like) {
            (Some(suffix), Some(_)) => {
                let backup = backup_path(self.path, suffix);
                let created = match folder.holds(&backup) {
                    true => folder.create(&backup, &before, &|| ())?,
                    false => LockedFolder::of(&backup)?.create(&backup, &before, &|| ())?,
                };
                if !created && *read_whole("file", &backup)? != *before {
                    return Err(failed(&backup, "create")(io::ErrorKind::AlreadyExists.into()));
                }
                Some(backup)
            }
            _ => None,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.value.len() + 1));
        bytes.extend_from_slice(self.value);
        bytes.push(b'\n');
        folder.write(&real, &bytes, like.as_ref(), &|| ())?;
        Ok(Changed { changed: true, backup })
    }
}

/// Creates a file, mode 0600, whole or not at all; `false` where one of that name exists.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<bool, SourceError> {
    LockedFolder::of(path)?.create(path, bytes, &|| ())
}

/// Renames a backup that is already there to the first free `PATH.SUFFIX.N`, so that the next one loses no key.
pub fn set_aside(path: &Path, suffix: &str) -> Result<Option<PathBuf>, SourceError> {
    let from = backup_path(path, suffix);
    if fs::symlink_metadata(&from).is_err() {
        return Ok(None);
    }
    let here = rustix::fs::CWD;
    for n in 1..=9999 {
        let to = backup_path(&from, &n.to_string());
        if fs::symlink_metadata(&to).is_ok() {
            continue;
        }
        let no_replace = rustix::fs::RenameFlags::NOREPLACE;
        let renamed =
            effect("rename", || match rustix::fs::renameat_with(here, &from, here, &to, no_replace) {
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(&from, &to),
                done => done.map_err(io::Error::from),
            });
        match renamed {
            Ok(()) => return Ok(Some(to)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(&from, "rename")(e)),
        }
    }
    Err(failed(&from, "rename")(io::ErrorKind::AlreadyExists.into()))
}

/// Gives the backup `PATH.FROM` the name `PATH.TO`, for good. Returns its path.
pub fn rename_backup(path: &Path, from: &str, to: &str) -> Result<PathBuf, SourceError> {
    let (from, to) = (backup_path(path, from), backup_path(path, to));
    let folder = LockedFolder::of(&to)?;
    effect("rename", || fs::rename(&from, &to)).map_err(failed(&from, "rename"))?;
    folder.sync().map(|()| to)
}

/// Drops one LF or CRLF from the end.
pub fn drop_line_end(value: &mut Zeroizing<Vec<u8>>) {
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
}

/// Reads a whole file of at most 64 KiB into one buffer that is wiped and never moved while it grows.
pub(super) fn read_whole(scheme: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let shown = path.display();
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => SourceError::Missing {
            source_name: format!("{scheme}:{shown}"),
            what: "the file does not exist".into(),
            hint: format!("Create {shown}, or name another source"),
        },
        _ => SourceError::Io { path: shown.to_string(), operation: "read", cause },
    };
    let is_pipe = fs::metadata(path).is_ok_and(|m| m.file_type().is_fifo());
    let mut options = OpenOptions::new();
    options.read(true);
    if is_pipe {
        // To open one waits for a writer without end.
        options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    }
    let mut file = effect("read", || options.open(path)).map_err(failed)?;
    let mut value = Zeroizing::new(vec![0; MAX_BYTES + 1]);
    let (mut filled, started) = (0, Instant::now());
    while filled < value.len() {
        let is_over = started.elapsed() > PIPE_LIMIT;
        match file.read(&mut value[filled..]) {
            // No writer has opened it yet.
            Ok(0) if is_pipe && filled == 0 && !is_over => std::thread::sleep(PIPE_PAUSE),
            Ok(0) if is_pipe && filled == 0 => return Err(failed(io::ErrorKind::TimedOut.into())),
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && !is_over => std::thread::sleep(PIPE_PAUSE),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            Err(e) => return Err(failed(e)),
        }
    }
    if filled > MAX_BYTES {
        return Err(SourceError::Malformed {
            source_name: format!("{scheme}:{shown}"),
            what: format!("the file is larger than {MAX_BYTES} bytes"),
            hint: "Name the file that holds the key".into(),
        });
    }
    value.truncate(filled);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_line_end_is_dropped_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for (written, want) in
            [("k", "k"), ("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), ("k\r", "k\r"), (" k ", " k ")]
        {
            std::fs::write(&path, written).unwrap();
            let got = KeyFile { path: path.clone() }.fetch().await.map(|f| f.value.to_vec()).unwrap();
            assert_eq!(got, want.as_bytes(), "{written:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named_and_is_a_key_error() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let large = dir.path().join("large");
        std::fs::write(&large, vec![b'x'; MAX_BYTES + 1]).unwrap();
        for path in [dir.path().join("absent"), dir.path().to_path_buf(), empty, large] {
            let e = KeyFile { path: path.clone() }.fetch().await.map(|_| ()).unwrap_err();
            let e = crate::error::Error::from(e);
            assert_eq!(e.exit, crate::error::Exit::Key);
            assert!(e.message.contains(path.to_str().unwrap()), "{e}");
        }
    }
}
