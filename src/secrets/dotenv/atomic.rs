//! Writing a file so that a reader, or a power cut, finds the old one or the new one and never a part.
//!
//! Temporary file beside it → owner and mode → fsync → rename → fsync of the folder. One of our processes at a
//! time works in a folder (flock), so a temporary file that is found was left by a killed one and is removed, by the
//! next write or by [`LockedFolder::sweep`]: it holds keys. Access control lists and extended attributes are not carried over.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, RenameFlags};

use super::super::{SourceError, error::SYNC_REPLACED};
use crate::fault_point::{self, Side};

/// Called between any two effects; only tests do anything in it.
pub(in crate::secrets) type Between<'a> = &'a dyn Fn();

/// A directory in which no other rekey process may write, until dropped.
pub(in crate::secrets) struct LockedFolder {
    folder: File,
    path: PathBuf,
}

impl Drop for LockedFolder {
    /// A child that was forked meanwhile has the folder open as well, until it is another program: to close it here would
    /// keep it locked.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.folder, FlockOperation::Unlock);
    }
}

impl LockedFolder {
    pub fn of(file: &Path) -> Result<LockedFolder, SourceError> {
        let path = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let folder = File::open(&path).map_err(failed(&path, "open"))?;
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(LockedFolder { folder, path }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(SourceError::Locked { folder: path.display().to_string() })
            }
            Err(e) => Err(failed(&path, "lock")(e.into())),
        }
    }

    /// Is `file` in this folder?
    pub fn holds(&self, file: &Path) -> bool {
        let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::canonicalize(parent).is_ok_and(|p| fs::canonicalize(&self.path).is_ok_and(|mine| mine == p))
    }

    /// Replaces or creates `file`, with the owner and mode of `like` where there is one, else 0600.
    pub fn write(
        &self,
        file: &Path,
        bytes: &[u8],
        like: Option<&fs::Metadata>,
        between: Between,
    ) -> Result<(), SourceError> {
        let prepared = self.prepare(file, bytes, like, between)?;
        between();
        prepared.replace(between)
    }

    /// The first half of [`LockedFolder::write`]: all but the renaming.
    pub fn prepare<'a>(
        &'a self,
        file: &'a Path,
        bytes: &[u8],
        like: Option<&fs::Metadata>,
        between: Between,
    ) -> Result<Prepared<'a>, SourceError> {
        let temporary = self.temporary(file, bytes, like, between)?;
        Ok(Prepared { folder: self, file, temporary })
    }

    /// Creates `file`, mode 0600, whole or not at all; `false` where one of that name exists.
    pub fn create(&self, file: &Path, bytes: &[u8], between: Between) -> Result<bool, SourceError> {
        let temporary = self.temporary(file, bytes, None, between)?;
        between();
        let here = rustix::fs::CWD;
        let created = effect("create", || {
            match rustix::fs::renameat_with(here, &temporary, here, file, RenameFlags::NOREPLACE) {
                // Some file systems cannot; a hard link is exclusive, too.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::hard_link(&temporary, file),
                done => done.map_err(io::Error::from),
            }
        });
        let _ = fs::remove_file(&temporary);
        match created {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(failed(file, "create")(e)),
        }
        between();
        self.sync()?;
        Ok(true)
    }

    /// Removes a file; `false` where there is none.
    pub fn remove(&self, file: &Path) -> Result<bool, SourceError> {
        match effect("remove", || fs::remove_file(file)) {
            Ok(()) => self.sync().map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(failed(file, "remove")(e)),
        }
    }

    /// Removes what a killed write of `file` left.
    pub fn sweep(&self, file: &Path) -> Result<(), SourceError> {
        self.remove(&self.temporary_path(file)).map(drop)
    }

    fn temporary_path(&self, file: &Path) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(file.file_name().unwrap_or_default());
        name.push(".rekey-tmp");
        self.path.join(name)
    }

    fn temporary(
        &self,
        file: &Path,
        bytes: &[u8],
        like: Option<&fs::Metadata>,
        between: Between,
    ) -> Result<PathBuf, SourceError> {
        let path = self.temporary_path(file);
        let _ = fs::remove_file(&path);
        let written = (|| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            let mut out = effect("create a temporary file", || options.open(&path))?;
            between();
            effect("write", || out.write_all(bytes))?;
            if let Some(like) = like {
                effect("set owner and mode", || {
                    let mine = out.metadata()?;
                    if (mine.uid(), mine.gid()) != (like.uid(), like.gid()) {
                        std::os::unix::fs::fchown(&out, Some(like.uid()), Some(like.gid()))?;
                    }
                    out.set_permissions(Permissions::from_mode(like.mode() & 0o7777))
                })?;
            }
            effect("sync", || out.sync_all())
        })();
        match written {
            Ok(()) => Ok(path),
            Err(e) => {
                let _ = fs::remove_file(&path);
                Err(failed(file, "write")(e))
            }
        }
    }

    /// What was done in the folder survives a power cut.
    pub fn sync(&self) -> Result<(), SourceError> {
        effect("sync the folder", || self.folder.sync_all()).map_err(failed(&self.path, "sync"))
    }
}

/// A file's new content, on disk beside it; removed where it is not wanted in the end.
pub(in crate::secrets) struct Prepared<'a> {
    folder: &'a LockedFolder,
    file: &'a Path,
    temporary: PathBuf,
}

impl Prepared<'_> {
    /// Puts it in the file's place.
    pub fn replace(self, between: Between) -> Result<(), SourceError> {
        effect("replace", || fs::rename(&self.temporary, self.file)).map_err(failed(self.file, "replace"))?;
        between();
        self.folder.sync().map_err(|e| match e {
            SourceError::Io { path, cause, .. } => SourceError::Io { path, operation: SYNC_REPLACED, cause },
            other => other,
        })
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// One file operation, with a fault point on either side of it.
pub(in crate::secrets) fn effect<T>(
    operation: &'static str,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let pass = |side| match fault_point::reach(side, operation) {
        None => Ok(()),
        Some(_) => Err(io::Error::other("fault point")),
    };
    pass(Side::Before)?;
    let done = work()?;
    pass(Side::After)?;
    Ok(done)
}

pub(in crate::secrets) fn failed(path: &Path, operation: &'static str) -> impl Fn(io::Error) -> SourceError {
    let path = path.display().to_string();
    move |cause| SourceError::Io { path: path.clone(), operation, cause }
}
