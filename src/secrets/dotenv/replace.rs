//! Changing one variable of a dotenv file: the way promote, rollback, generate and restore write keys there.
//!
//! Everything else in the file is kept, edits of the same moment included: what was read is compared with what
//! is there just before the rename. Killed anywhere and repeated, it ends in the same place.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use zeroize::Zeroizing;

use super::{
    super::{
        SourceError,
        aws::Seen,
        file::{read_whole, refuse_irregular},
    },
    atomic::{Between, LockedFolder, failed},
    backup_path,
    lines::{DotenvFile, LineError},
};

/// How often to start again if the file is edited meanwhile.
const ATTEMPTS: u32 = 8;

/// One variable to change.
pub struct Change<'a> {
    /// The file. A symbolic link is followed: what it points to is replaced, the link stays.
    pub path: &'a Path,
    /// The variable.
    pub var: &'a str,
    /// Its new value. Never printed.
    pub value: &'a [u8],
    /// Keep the file as it was at `PATH.SUFFIX` (`rekey-ID8.bak`, say), mode 0600. One that is already there is
    /// left as it is, if it holds the value that is now to be replaced, and an error if not.
    pub backup: Option<&'a str>,
    /// Create the file (0600) where there is none, instead of failing.
    pub create: bool,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// False where the variable already had the wanted value.
    pub changed: bool,
    /// Where the file as it was is kept.
    pub backup: Option<PathBuf>,
}

impl Change<'_> {
    /// Changes the variable, if `judge` allows it for the value it has now (empty where it has none).
    pub fn apply(&self, judge: impl Fn(&[u8]) -> Seen) -> Result<Changed, SourceError> {
        let (real, folder) = self.lock()?;
        self.apply_between(&real, &folder, &judge, &|| ())
    }

    /// Keeps the file as it is at the backup's path, and changes nothing in it: another hand is about to.
    pub fn keep_as_it_is(&self) -> Result<(), SourceError> {
        let (real, folder) = self.lock()?;
        let before = read_whole("dotenv", &real)?;
        let file = DotenvFile::parse(Zeroizing::new(before.to_vec()));
        let current = file.get(self.var).map_err(|e| self.malformed(&e))?.unwrap_or_default();
        match self.backup.map(|suffix| backup_path(self.path, suffix)) {
            Some(backup) => self.keep(&before, &current, &backup, &folder, &|| ()),
            None => Ok(()),
        }
    }

    /// Refuses what could not be written, or not be changed back to what is there now: the value, the file, its folder.
    /// All of a change is tried but the renaming.
    pub fn is_possible(&self) -> Result<(), SourceError> {
        let (real, folder) = self.lock()?;
        let before = read_whole("dotenv", &real)?;
        let like = fs::metadata(&real).ok();
        let file = DotenvFile::parse(Zeroizing::new(before.to_vec()));
        let there_and_back = || {
            let now = file.get(self.var)?.unwrap_or_default();
            file.with(self.var, self.value)?.with(self.var, &now)
        };
        there_and_back().map_err(|e| self.malformed(&e))?;
        refuse_mount_point(&real)?;
        drop(folder.prepare(&real, &before, like.as_ref(), &|| ())?);
        let Some(backup) = self.backup.map(|suffix| backup_path(self.path, suffix)) else { return Ok(()) };
        if !folder.holds(&backup) {
            drop(LockedFolder::of(&backup)?.prepare(&backup, &before, None, &|| ())?);
        }
        Ok(())
    }

    /// The same as [`Change::apply`], if `guard` still allows it after the directory is locked against other rekey processes.
    pub async fn apply_guarded<E: From<SourceError>>(
        &self,
        judge: impl Fn(&[u8]) -> Seen,
        guard: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Result<Changed, E> {
        let (real, folder) = self.lock()?;
        guard().await?;
        Ok(self.apply_between(&real, &folder, &judge, &|| ())?)
    }

    /// The file behind the path, in a directory that is locked against other rekey processes.
    fn lock(&self) -> Result<(PathBuf, LockedFolder), SourceError> {
        let real = match fs::canonicalize(self.path) {
            Ok(real) => real,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.create => self.path.to_path_buf(),
            // Reading says better what is wrong.
            Err(_) => return read_whole("dotenv", self.path).and(Err(self.contended())),
        };
        refuse_irregular(&real)?;
        let folder = LockedFolder::of(&real)?;
        Ok((real, folder))
    }

    fn apply_between(
        &self,
        real: &Path,
        folder: &LockedFolder,
        judge: &dyn Fn(&[u8]) -> Seen,
        between: Between,
    ) -> Result<Changed, SourceError> {
        for _ in 0..ATTEMPTS {
            let like = fs::metadata(real).ok();
            let before = match &like {
                Some(_) => read_whole("dotenv", real)?,
                None => Zeroizing::default(),
            };
            let file = DotenvFile::parse(Zeroizing::new(before.to_vec()));
            let current = file.get(self.var).map_err(|e| self.malformed(&e))?.unwrap_or_default();
            let kept = self.backup.map(|suffix| backup_path(self.path, suffix));
            match judge(&current) {
                Seen::Wanted => {
                    return Ok(Changed { changed: false, backup: kept.filter(|path| path.exists()) });
                }
                Seen::Foreign => return Err(self.foreign()),
                Seen::Replaceable => {}
            }
            let after = file.with(self.var, self.value).map_err(|e| self.malformed(&e))?;
            if let (Some(backup), Some(_)) = (&kept, &like) {
                self.keep(&before, &current, backup, folder, between)?;
            }
            self.warn_of_others(&file, &current);
            // Synced first, which may take long: between the comparison and the rename there is nothing.
            let prepared = folder.prepare(real, after.bytes(), like.as_ref(), between)?;
            between();
            let unchanged = match &like {
                Some(_) => *read_whole("dotenv", real)? == *before,
                None => !real.exists(),
            };
            if unchanged {
                prepared.replace(between)?;
                return Ok(Changed { changed: true, backup: kept.filter(|path| path.exists()) });
            }
        }
        Err(self.contended())
    }

    /// Every line that assigns the variable gets the value: one that held a third, overridden one loses it.
    fn warn_of_others(&self, file: &DotenvFile, current: &[u8]) {
        let lines = file.lines_with_others(self.var, &[current, self.value]);
        if !lines.is_empty() {
            let lines = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                path = %self.path.display(),
                "{} is assigned another value in line {lines}, which a later line overrides: it is overwritten there, too",
                self.var
            );
        }
    }

    /// Keeps the file as it was, beside the path as it was given.
    fn keep(
        &self,
        before: &[u8],
        current: &[u8],
        backup: &Path,
        held: &LockedFolder,
        between: Between,
    ) -> Result<(), SourceError> {
        let created = if held.holds(backup) {
            held.create(backup, before, between)?
        } else {
            LockedFolder::of(backup)?.create(backup, before, between)?
        };
        if created {
            return Ok(());
        }
        let there = DotenvFile::parse(read_whole("dotenv", backup)?);
        match there.get(self.var) {
            Ok(Some(kept)) if *kept == current => Ok(()),
            _ => Err(failed(backup, "create")(std::io::ErrorKind::AlreadyExists.into())),
        }
    }

    fn malformed(&self, error: &LineError) -> SourceError {
        SourceError::Malformed {
            source_name: format!("dotenv:{}#{}", self.path.display(), self.var),
            what: error.to_string(),
            hint: "Fix that in the file. Nothing was changed".into(),
        }
    }

    fn foreign(&self) -> SourceError {
        SourceError::Malformed {
            source_name: format!("dotenv:{}#{}", self.path.display(), self.var),
            what: "the value is neither of the keys that rekey may replace, and was not changed".into(),
            hint: "Find out what changed it, and restore the right value".into(),
        }
    }

    fn contended(&self) -> SourceError {
        SourceError::Contended { resource: self.path.display().to_string(), attempts: ATTEMPTS }
    }
}

/// Removes a backup that `Change::apply` kept, and what killed ones left beside it and beside the file; `false` where
/// there was no backup.
pub fn remove_backup(path: &Path, suffix: &str) -> Result<bool, SourceError> {
    let backup = backup_path(path, suffix);
    let folder = LockedFolder::of(&backup)?;
    let removed = folder.remove(&backup)?;
    folder.sweep(&backup)?;
    if let Ok(real) = fs::canonicalize(path) {
        match folder.holds(&real) {
            true => folder.sweep(&real)?,
            false => LockedFolder::of(&real)?.sweep(&real)?,
        }
    }
    Ok(removed)
}

/// A file that is mounted by itself, as containers do, cannot be replaced (EBUSY). Kernels before 5.8 do not tell.
fn refuse_mount_point(real: &Path) -> Result<(), SourceError> {
    let found = statx(CWD, real, AtFlags::empty(), StatxFlags::empty());
    match found {
        Ok(found) if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => {
            Err(failed(real, "replace")(std::io::ErrorKind::ResourceBusy.into()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
        process::Command,
    };

    use super::*;
    use crate::error::{Error, Exit};

    const BEFORE: &str = "# keys\r\nexport K='old' # note\r\nA=1";
    const AFTER: &str = "# keys\r\nexport K=new # note\r\nA=1";

    fn change(path: &Path) -> Change<'_> {
        Change { path, var: "K", value: b"new", backup: Some("rekey-x.bak"), create: false }
    }

    fn judge(value: &[u8]) -> Seen {
        match value {
            b"new" => Seen::Wanted,
            b"old" | b"" => Seen::Replaceable,
            _ => Seen::Foreign,
        }
    }

    fn read(path: impl AsRef<Path>) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn one_value_changes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, BEFORE).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let done = change(&link).apply(judge).unwrap();
        let backup = dir.path().join("link.rekey-x.bak");
        assert_eq!(done, Changed { changed: true, backup: Some(backup.clone()) });
        assert_eq!((read(&real), read(&backup)), (AFTER.into(), BEFORE.into()));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::metadata(&backup).unwrap().mode() & 0o777, 0o600);
        assert!(!change(&link).apply(judge).unwrap().changed);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert!(remove_backup(&link, "rekey-x.bak").unwrap());
        assert!(!remove_backup(&link, "rekey-x.bak").unwrap());
        let left = [".real.rekey-tmp", ".link.rekey-x.bak.rekey-tmp"].map(|name| dir.path().join(name));
        left.iter().for_each(|path| fs::write(path, "left by a killed one").unwrap());
        assert!(!remove_backup(&link, "rekey-x.bak").unwrap());
        assert!(left.iter().all(|path| !path.exists()));
    }

    #[test]
    fn what_must_not_be_overwritten_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        let refused = |exit| {
            let error = Error::from(change(&path).apply(judge).unwrap_err());
            assert_eq!(error.exit, exit, "{error:?}");
            assert!(!format!("{error:?}").contains("canary"));
        };
        refused(Exit::Key);
        fs::write(&path, "K=canary\n").unwrap();
        refused(Exit::Key);
        // A backup of that name that holds another key.
        fs::write(&path, BEFORE).unwrap();
        fs::write(dir.path().join(".env.rekey-x.bak"), "K=canary\n").unwrap();
        refused(Exit::Usage);
        assert_eq!(read(&path), BEFORE);
        let folder = LockedFolder::of(&path).unwrap();
        refused(Exit::Busy);
        drop(folder);
    }

    #[test]
    fn an_edit_of_the_same_moment_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        fs::write(&path, BEFORE).unwrap();
        let edits = Cell::new(0);
        // The editor saves once, while our new file is made.
        let change = Change { backup: None, ..change(&path) };
        let between = || {
            if edits.replace(edits.get() + 1) == 0 {
                fs::write(&path, format!("{BEFORE}\nB=2\n")).unwrap();
            }
        };
        let (real, folder) = change.lock().unwrap();
        assert!(change.apply_between(&real, &folder, &judge, &between).unwrap().changed);
        assert_eq!(read(&path), format!("{AFTER}\nB=2\n"));
    }

    #[test]
    fn what_could_not_be_written_or_undone_is_not_possible() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        let fits = |text: &str, value: &[u8]| {
            fs::write(&path, text).unwrap();
            Change { value, ..change(&path) }.is_possible().map_err(|e| Error::from(e).exit)
        };
        assert_eq!(fits("K='old'\n", b"new"), Ok(()));
        assert_eq!(fits("K='old'\n", b"\xff"), Err(Exit::Key));
        // A backslash behind white space at the end: with quotes older readers do not see its end, without it is another.
        assert_eq!(fits("K=' old\\\\'\n", b"new"), Err(Exit::Key));
    }

    /// What stands behind a pipe is another program's: read within a time, and never replaced.
    #[test]
    fn a_named_pipe_is_read_and_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let refused = Error::from(change(&path).apply(judge).unwrap_err());
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.hint.unwrap().contains("promote --external"));
        assert!(change(&path).is_possible().is_err());
        let writer = {
            let path = path.clone();
            std::thread::spawn(move || fs::write(path, "K=old\n").unwrap())
        };
        assert_eq!(read_whole("dotenv", &path).unwrap().as_slice(), b"K=old\n");
        writer.join().unwrap();
        let error = Error::from(read_whole("dotenv", &path).unwrap_err());
        assert_eq!((error.exit, error.message.contains("timed out")), (Exit::Key, true), "{error}");
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_full_disk_is_explained() {
        let full = failed(Path::new(".env"), "write")(std::io::ErrorKind::StorageFull.into());
        let error = Error::from(full);
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.hint.unwrap().contains("Nothing was changed. Free some disk space"));
    }

    /// Runs as a process of its own and dies at the n-th gap between two effects.
    #[test]
    #[ignore = "started by killed_anywhere"]
    fn dies_in_between() {
        let Ok(path) = std::env::var("REKEY_TEST_DOTENV") else { return };
        let n: usize = std::env::var("REKEY_TEST_GAP").unwrap().parse().unwrap();
        let gap = Cell::new(0);
        let between = || {
            if gap.replace(gap.get() + 1) == n {
                std::process::abort();
            }
        };
        let change = change(Path::new(&path));
        let (real, folder) = change.lock().unwrap();
        change.apply_between(&real, &folder, &judge, &between).unwrap();
    }

    #[test]
    fn killed_anywhere_and_repeated_it_ends_right() {
        let name = "secrets::dotenv::replace::tests::dies_in_between";
        for n in 0.. {
            assert!(n < 20, "never ends");
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(".env");
            fs::write(&path, BEFORE).unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", name, "--ignored"]).env("REKEY_TEST_DOTENV", &path);
            let output = child.env("REKEY_TEST_GAP", n.to_string()).output().unwrap();
            let now = read(&path);
            assert!(now == BEFORE || now == AFTER, "{n}: {now}");
            let backup = dir.path().join(".env.rekey-x.bak");
            assert!(!backup.exists() || read(&backup) == BEFORE, "{n}");
            assert!(now == BEFORE || backup.exists(), "{n}: the old key is nowhere");
            change(&path).apply(judge).unwrap();
            assert_eq!((read(&path), read(&backup)), (AFTER.into(), BEFORE.into()), "{n}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "{n}: something is left over");
            if output.status.success() {
                assert!(n > 5, "too few gaps: {n}");
                break;
            }
        }
    }
}
