//! The place the application reads its key from: a Secrets Manager secret, a dotenv file, or something only its
//! owner can change.

use std::path::PathBuf;

use crate::crypto::EncryptionKey;
use crate::error::{Error, Exit, Result};
use crate::secrets::aws::{Action, Replacement, Seen, id8, promote_label, rollback_label};
use crate::secrets::{KeySource, Sources, dotenv};
use crate::store::ledger::Rotation;

/// Where the application reads its encryption key, for one rotation.
pub struct Target<'a> {
    /// Fetches and writes.
    pub sources: &'a Sources,
    /// The rotation.
    pub rotation: &'a Rotation,
    /// The place.
    pub source: KeySource,
}

/// Which key the application would read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yields {
    /// The rotation's old key.
    Old,
    /// The rotation's new key.
    New,
    /// Neither.
    Neither,
}

impl<'a> Target<'a> {
    /// The place that promote recorded, or else the old key's own: what the application reads.
    pub fn of(sources: &'a Sources, rotation: &'a Rotation, named: Option<KeySource>) -> Result<Target<'a>> {
        let recorded = rotation.target_source.as_deref().unwrap_or(&rotation.old_source);
        let source = match named {
            Some(source) => source,
            None => KeySource::parse(recorded)?,
        };
        Ok(Target { sources, rotation, source })
    }

    /// Whether we can write there.
    pub fn is_writable(&self) -> bool {
        matches!(self.source, KeySource::Aws(_) | KeySource::Dotenv { .. })
    }

    /// Which key these bytes are.
    pub fn judge(&self, value: &[u8]) -> Yields {
        match EncryptionKey::from_bytes(value).map(|k| k.fingerprint().to_string()) {
            Ok(f) if f == self.rotation.old_fingerprint => Yields::Old,
            Ok(f) if f == self.rotation.new_fingerprint => Yields::New,
            _ => Yields::Neither,
        }
    }

    /// What it yields now: what AWSCURRENT holds, for a secret.
    pub async fn look(&self) -> Result<Yields> {
        let source = match &self.source {
            KeySource::Aws(aws) => KeySource::Aws(aws.at_current()),
            other => other.clone(),
        };
        Ok(self.judge(&self.sources.fetch(&source).await?.value))
    }

    /// Makes a key current there; returns the version id that holds it, where there are versions.
    pub async fn make_current(&self, wanted: Yields, key: &EncryptionKey) -> Result<Option<String>> {
        let judge = |value: &[u8]| match self.judge(value) {
            Yields::Neither => Seen::Foreign,
            found if found == wanted => Seen::Wanted,
            _ => Seen::Replaceable,
        };
        match &self.source {
            KeySource::Aws(aws) => {
                let (action, label) = match wanted {
                    Yields::Old => (Action::Rollback, rollback_label(self.rotation.id)),
                    _ => (Action::Promote, promote_label(self.rotation.id)),
                };
                let replacement = Replacement {
                    target: aws,
                    value: key.expose(),
                    id: self.rotation.id,
                    action,
                    label: &label,
                };
                let current = self.sources.aws().await?.replace(&replacement, judge).await?;
                Ok(Some(current.version_id))
            }
            KeySource::Dotenv { path, var } => {
                let suffix = self.backup_suffix();
                let backup = (wanted == Yields::New).then_some(suffix.as_str());
                dotenv::Change { path, var, value: key.expose(), backup, create: false }.apply(judge)?;
                Ok(None)
            }
            KeySource::Env(_) | KeySource::File(_) => Ok(None),
        }
    }

    /// Suffix of the backup that a promotion keeps beside a dotenv file.
    pub fn backup_suffix(&self) -> String {
        format!("rekey-{}.bak", id8(self.rotation.id))
    }

    /// The files that hold keys there: a dotenv file, and its backup where there is one.
    pub fn files(&self) -> Vec<PathBuf> {
        let KeySource::Dotenv { path, .. } = &self.source else { return Vec::new() };
        let backup = dotenv::backup_path(path, &self.backup_suffix());
        [Some(path.clone()), Some(backup).filter(|b| b.exists())].into_iter().flatten().collect()
    }

    /// Removes that backup, once it is no longer needed.
    pub fn drop_backup(&self) {
        if let KeySource::Dotenv { path, .. } = &self.source
            && let Err(error) = dotenv::remove_backup(path, &self.backup_suffix())
        {
            tracing::warn!(%error, "the backup of the dotenv file could not be removed: remove it by hand");
        }
    }

    /// What somebody has to change by hand, and what to do then. State 7 until it is done.
    pub fn by_hand(&self, fingerprint: &str, again: &str) -> Error {
        let what = match &self.source {
            KeySource::Env(var) => format!(
                "set {var} to the key with fingerprint {fingerprint} where the application is started"
            ),
            KeySource::File(path) => {
                format!("put the key with fingerprint {fingerprint} into {}", path.display())
            }
            other => format!("put the key with fingerprint {fingerprint} into {other}"),
        };
        Error::new(Exit::State, format!("{} does not yield that key yet: {what}", self.source))
            .hint(format!("once it is changed, and where that source yields it: {again}"))
    }
}
