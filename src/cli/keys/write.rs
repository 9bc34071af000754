//! Writing a key to a place: file, dotenv variable or secret. What is there is looked at first, never lost, and
//! never overwritten while a rotation needs it.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::super::context::Context;
use super::guard::Needed;
use super::subject::writable;
use crate::crypto::{Fingerprint, Weakness, weakness};
use crate::error::{Error, Exit, Result};
use crate::jobs::exposure::warn_of_git;
use crate::secrets::aws::{Action, Replacement, Seen};
use crate::secrets::dotenv::{Change, backup_path};
use crate::secrets::{AwsSource, DotenvVariable, FileChange, KeySource, SourceError, set_aside};

/// That label where nobody asks afterwards who put it there.
pub(super) const LABEL: &str = "rekey-set";

/// What to do with a key that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// Leave it; only nothing and placeholders are replaced.
    Keep,
    /// Replace it, and keep it in a backup.
    Replace,
}

/// One key to write.
pub struct Write<'a> {
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
}

/// What was done. Holds no key.
#[derive(Debug, Serialize)]
pub struct Written {
    /// The place.
    pub target: String,
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
struct Judge<'a> {
    write: &'a Write<'a>,
    needed: &'a Needed,
    /// What is there; a placeholder, too.
    found: Cell<Option<Fingerprint>>,
    /// It is a key, which is worth a backup.
    is_key: Cell<bool>,
}

impl Judge<'_> {
    fn judge(&self, current: &[u8]) -> Seen {
        self.found.set((!current.is_empty()).then(|| Fingerprint::of(current)));
        let Some(found) = self.found.get() else { return Seen::Replaceable };
        let present = weakness(current) != Some(Weakness::Placeholder);
        self.is_key.set(present);
        if found == Fingerprint::of(self.write.value) || (self.write.present == Present::Keep && present) {
            return Seen::Wanted;
        }
        if self.needed.by(found).is_some() { Seen::Foreign } else { Seen::Replaceable }
    }

    /// A refusal of ours says why; anything else is as the place says.
    fn explain(&self, error: SourceError) -> Error {
        let refused = self.found.get().map(|key| self.needed.refuse(self.write.target, key));
        match (refused, &error) {
            (Some(Err(state)), SourceError::Malformed { .. }) => state,
            _ => error.into(),
        }
    }

    fn written(&self, changed: bool) -> Written {
        let wanted = Fingerprint::of(self.write.value);
        let found = self.found.get();
        let now = if changed { wanted } else { found.unwrap_or(wanted) };
        Written {
            target: self.write.target.to_string(),
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
    pub async fn apply(&self, context: &Context, needed: &mut Needed) -> Result<Written> {
        writable(self.target)?;
        match (self.target.aws(), self.target.file()) {
            (Some(target), _) => self.to_aws(context, needed, target).await,
            (None, Some(path)) => self.to_file(context, needed, path).await,
            (None, None) => Err(Error::new(Exit::Usage, format!("{} cannot be written", self.target))),
        }
    }

    async fn to_file(&self, context: &Context, needed: &Needed, path: &Path) -> Result<Written> {
        let judge = Judge { write: self, needed, found: Cell::new(None), is_key: Cell::new(false) };
        // A backup that is there holds other keys; it is moved away only once it is sure that one is to be made.
        let now = match context.sources.fetch(self.target).await {
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
            tracing::info!("the backup that was there is now {}", aside.display());
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

    async fn to_aws(&self, context: &Context, needed: &mut Needed, target: &AwsSource) -> Result<Written> {
        let client = context.sources.aws().await?;
        let stage = match target.stage_or_version.as_deref() {
            _ if target.names_current() => None,
            Some(_) if target.names_version_id() => {
                return Err(not_a_stage(self.target, "a version cannot be changed"));
            }
            Some("AWSPREVIOUS") => return Err(not_a_stage(self.target, "AWSPREVIOUS is AWS's own")),
            stage => stage,
        };
        let secret_id = target.secret_id.as_str();
        let id = crate::entropy::id();
        let mut restored = false;
        let info = match client.describe(secret_id).await {
            Ok(info) => Some(info),
            Err(SourceError::Missing { .. }) => None,
            Err(e) => return Err(e.into()),
        };
        let nothing = Needed::default();
        let fresh = Judge { write: self, needed: &nothing, found: Cell::new(None), is_key: Cell::new(false) };
        let Some(mut info) = info else {
            if stage.is_some() {
                return Err(not_a_stage(self.target, "there is no such secret yet"));
            }
            let content = first_content(self.target, target, self.value)?;
            return match client.create(secret_id, &content, id).await? {
                Some(stored) => Ok(Written { version: Some(stored.version_id), ..fresh.written(true) }),
                None => Err(Error::new(
                    Exit::Busy,
                    format!("{} was created by somebody else meanwhile", self.target),
                )
                .hint("run the same command again")),
            };
        };
        if info.deletion.is_some() {
            client.undelete(secret_id).await?;
            tracing::info!("{secret_id} was scheduled for deletion and is restored");
            restored = true;
            info = client.describe(secret_id).await?;
        }
        if info.holder("AWSCURRENT").is_none() && stage.is_none() {
            let content = first_content(self.target, target, self.value)?;
            let version = client.first_value(secret_id, content.as_bytes(), id).await?;
            return Ok(Written { version: Some(version), ..fresh.written(true) });
        }
        needed.add_pins(&context.sources, target).await?;
        // What was scheduled for deletion was given up on: it does not count as present.
        let present = if restored { Present::Replace } else { self.present };
        let write = Write { present, ..*self };
        let judge = Judge { write: &write, needed, found: Cell::new(None), is_key: Cell::new(false) };
        if let Some(stage) = stage {
            return write.to_stage(context, &judge, target, stage, id).await;
        }
        let replacement =
            Replacement { target, value: self.value, id, action: Action::Set, label: self.label };
        let unguarded = async || Ok::<_, SourceError>(());
        let current = client.replace(&replacement, |v| judge.judge(v), unguarded).await;
        let current = current.map_err(|e| judge.explain(e))?;
        let former = info.holder("AWSCURRENT").map(str::to_owned);
        if let Err(e) = client.detach(secret_id, self.label).await {
            tracing::warn!("the label {} stays on {secret_id}: {e}", self.label);
        }
        let changed = current.moved_from.is_some();
        // The last look was at our own key: what was there before is at the version that the label was taken from.
        let mut written = judge.written(changed);
        written.former_fingerprint = None;
        if let Some(from) = current.moved_from.clone().or(former).filter(|_| changed) {
            if let Ok(before) = context.sources.fetch(&target.at(&from).into()).await {
                written.former_fingerprint = Some(Fingerprint::of(&before.value));
            }
            written.former_version = Some(from);
        }
        Ok(Written { version: Some(current.version_id), ..written })
    }

    /// A label beside AWSCURRENT: the new key of a JSON secret waits at AWSPENDING.
    async fn to_stage(
        &self,
        context: &Context,
        judge: &Judge<'_>,
        target: &AwsSource,
        stage: &str,
        id: Uuid,
    ) -> Result<Written> {
        let client = context.sources.aws().await?;
        let info = client.describe(&target.secret_id).await?;
        // AWS leaves AWSPENDING on the current version after a rotation of its own, and promote leaves it where the
        // key waited that is current now: nothing is pending then.
        let current = context.sources.fetch(&target.at_current().into()).await.ok();
        let holder = info.holder(stage).filter(|v| info.holder("AWSCURRENT") != Some(*v)).map(str::to_owned);
        if let Some(version) = &holder {
            let there = client.key_if_any(&target.at(version)).await?;
            let used = current.is_some_and(|c| c.value == there);
            match judge.judge(&there) {
                // Not while a rotation may still look for it there.
                Seen::Wanted if used && judge.needed.by(Fingerprint::of(&there)).is_none() => {}
                Seen::Wanted => return Ok(Written { version: holder, ..judge.written(false) }),
                Seen::Foreign => {
                    return Err(judge.explain(SourceError::Malformed {
                        source_name: self.target.to_string(),
                        what: String::new(),
                        hint: String::new(),
                    }));
                }
                Seen::Replaceable => {}
            }
        }
        let version = client.stage(target, self.value, stage, id).await?;
        Ok(Written { version: Some(version), former_version: holder, ..judge.written(true) })
    }
}

/// What a secret that does not exist yet is created with.
fn first_content(place: &KeySource, target: &AwsSource, value: &[u8]) -> Result<Zeroizing<String>> {
    let text = std::str::from_utf8(value)
        .map_err(|_| Error::new(Exit::Key, format!("{place}: a secret's string must be UTF-8")))?;
    Ok(Zeroizing::new(match &target.field {
        None => text.to_owned(),
        Some(field) => serde_json::json!({ field: text }).to_string(),
    }))
}

fn not_a_stage(place: &KeySource, why: &str) -> Error {
    Error::new(Exit::Usage, format!("{place} cannot be written: {why}"))
        .hint("name the secret alone, or with @AWSPENDING for a key that is not to be current yet")
}
