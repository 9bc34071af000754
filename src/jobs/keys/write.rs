//! Writing a key to a place: file, dotenv variable or secret. What is there is looked at first, never lost, and
//! never overwritten while a rotation needs it.

mod secret;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

use super::guard::Needed;
use super::subject::writable;
use crate::crypto::{Fingerprint, Weakness, weakness};
use crate::error::{Error, Exit, Result};
use crate::jobs::Session;
use crate::jobs::exposure::warn_of_git;
use crate::secrets::aws::Creation;
use crate::secrets::aws::Seen;
use crate::secrets::dotenv::{Change, backup_path};
use crate::secrets::{DotenvVariable, FileChange, KeySource, SourceError, set_aside};

/// The private label of a new version where nothing later asks who put it there.
pub(super) const LABEL: &str = "rekey-set";

/// What to do with a key that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    /// Leave it; only nothing and placeholders are replaced.
    Keep,
    /// Replace it, and keep it in a backup.
    Replace,
}

/// One key to write.
pub(super) struct Write<'a> {
    /// The place.
    pub target: &'a KeySource,
    /// The key. Never printed.
    pub value: &'a [u8],
    /// What to do with one that is there.
    pub present: Present,
    /// The suffix of the backup of a file that is changed.
    pub backup: &'a str,
    /// The backup that this very command has made already, of the same file before its other key was changed.
    pub made: Option<&'a Path>,
    /// The private label under which a secret's new version is put before it is made current.
    pub label: &'a str,
    /// What keeps the key that is replaced in a secret.
    pub former: Former,
    /// What a secret is made with that is not there yet.
    pub creation: &'a Creation,
}

/// What keeps a key that is replaced in Secrets Manager, where AWSPREVIOUS keeps the last one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Former {
    /// A label with its fingerprint, until `keys destroy`.
    Labelled,
    /// The caller sees to it.
    Kept,
}

/// What was done. Holds no key.
#[derive(Debug, Serialize)]
pub struct Written {
    /// The place.
    pub target: KeySource,
    /// False where the place was left as it was.
    pub changed: bool,
    /// The key that is there now.
    pub fingerprint: Fingerprint,
    /// The key that was there before, where there was one.
    pub former_fingerprint: Option<Fingerprint>,
    /// Secrets Manager: the version that holds the key now.
    pub version: Option<String>,
    /// Secrets Manager: the version that was current before.
    pub former_version: Option<String>,
    /// Where a file's former content is kept.
    pub backup: Option<PathBuf>,
}

/// What was found in the place.
struct Found<'a> {
    write: &'a Write<'a>,
    needed: &'a Needed,
    /// What is there; a placeholder, too.
    key: Cell<Option<Fingerprint>>,
    /// It is a key, which is worth a backup.
    is_key: Cell<bool>,
}

impl<'a> Found<'a> {
    fn new(write: &'a Write<'a>, needed: &'a Needed) -> Found<'a> {
        Found { write, needed, key: Cell::new(None), is_key: Cell::new(false) }
    }

    fn judge(&self, current: &[u8]) -> Seen {
        self.key.set((!current.is_empty()).then(|| Fingerprint::of(current)));
        let Some(found) = self.key.get() else { return Seen::Replaceable };
        let present = weakness(current) != Some(Weakness::Placeholder);
        self.is_key.set(present);
        if found == Fingerprint::of(self.write.value) || (self.write.present == Present::Keep && present) {
            return Seen::Wanted;
        }
        if self.needed.protects(current) { Seen::Foreign } else { Seen::Replaceable }
    }

    /// rekey's own refusals explain themselves; any other error is the source's.
    fn explain(&self, error: SourceError) -> Error {
        let refused = self.key.get().map(|key| self.needed.refuse(self.write.target, key));
        match (refused, &error) {
            (Some(Err(state)), SourceError::Malformed { .. }) => state,
            _ => error.into(),
        }
    }

    fn written(&self, changed: bool) -> Written {
        let wanted = Fingerprint::of(self.write.value);
        let found = self.key.get();
        let now = if changed { wanted } else { found.unwrap_or(wanted) };
        Written {
            target: self.write.target.clone(),
            changed,
            fingerprint: now,
            former_fingerprint: found.filter(|_| changed && self.is_key.get()),
            version: None,
            former_version: None,
            backup: None,
        }
    }
}

impl Write<'_> {
    /// Writes, and says what was there.
    pub async fn apply(&self, session: &Session, needed: &mut Needed) -> Result<Written> {
        writable(self.target)?;
        match (self.target.aws(), self.target.file()) {
            (Some(target), _) => self.to_aws(session, needed, target).await,
            (None, Some(path)) => self.to_file(session, needed, path).await,
            (None, None) => Err(Error::new(Exit::Usage, format!("rekey can't write {}", self.target))),
        }
    }

    async fn to_file(&self, session: &Session, needed: &Needed, path: &Path) -> Result<Written> {
        let judge = Found::new(self, needed);
        // A backup that is there holds other keys; it is moved away only once it is sure that one is to be made.
        let now = match session.sources.fetch(self.target).await {
            Ok(fetched) => fetched.value,
            Err(SourceError::Missing { .. }) => Default::default(),
            Err(e) => return Err(e.into()),
        };
        let seen = judge.judge(&now);
        let keeps_former = seen == Seen::Replaceable && judge.is_key.get();
        let backup = keeps_former.then_some(self.backup);
        if backup.is_some()
            && !self.is_backed_up(path)
            && let Some(aside) = set_aside(path, self.backup)?
        {
            tracing::info!("The existing backup was renamed to {}", aside.display());
            warn_of_git(&aside);
        }
        let done = match self.target.dotenv() {
            Some(DotenvVariable { path, var }) => {
                Change { path, var, value: self.value, backup, create: true }.apply(|v| judge.judge(v))
            }
            None => FileChange { path, value: self.value, backup }.apply(|v| judge.judge(v)),
        };
        let done = done.map_err(|e| judge.explain(e))?;
        warn_of_git(path);
        if let Some(backup) = &done.backup {
            warn_of_git(backup);
        }
        Ok(Written { backup: done.backup, ..judge.written(done.changed) })
    }

    /// Whether the backup that is there is of the file as it was before this command: made by it, or by one that was
    /// killed before it changed anything.
    fn is_backed_up(&self, path: &Path) -> bool {
        let backup = backup_path(path, self.backup);
        if self.made == Some(backup.as_path()) {
            return true;
        }
        let read = |path: &Path| std::fs::read(path).map(Zeroizing::new);
        matches!((read(path), read(&backup)), (Ok(now), Ok(kept)) if now == kept)
    }
}
