//! A new SECRET_KEY where the application reads it, the former kept so that it can be brought back. No row depends on
//! it, but every token does: every user is signed out, either way.

use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::generate::new_value;
use super::guard::Needed;
use super::subject::{kind_of, writable};
use super::write::{self, Former, Present, Write, Written};
use crate::engine::Stop;
use crate::error::{Error, Exit, Result};
use crate::jobs::Session;
use crate::jobs::audit_trail::KeyEvent;
use crate::jobs::exposure::warn_of_git;
use crate::jobs::interrupt::unless_stopped;
use crate::secrets::aws::AS_USUAL;
use crate::secrets::{AppKey, KeySource, SourceError, dotenv, rename_backup, set_aside};

/// The suffix of the file that keeps the former SECRET_KEY, and the label that keeps it in Secrets Manager.
const BACKUP: &str = "secret-key.bak";
/// The suffix it has until the new one is in place: found by the next try, it says that one was cut short.
const PENDING: &str = "secret-key.pending";
const LABEL: &str = "rekey-former-secret-key";
/// The label of what this job writes, until it is done: found on what is current, it says that a try was cut short.
const WRITTEN: &str = "rekey-set-secret-key";

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new key; the former is kept.
    Replace,
    /// The former key again.
    BringBack,
}

/// What was done.
pub struct SecretKeyChanged {
    /// The place, and what is there now.
    pub written: Written,
    /// The head of the audit chain.
    pub head: Option<String>,
}

/// Refuses a place that is not for a SECRET_KEY, or cannot be written: asked before anyone is.
pub fn refuse_place(target: &KeySource) -> Result<()> {
    writable(target)?;
    if kind_of(target) == Some(AppKey::Encryption) {
        return Err(Error::new(Exit::Usage, format!("{target} is an encryption key, and rows depend on it"))
            .hint("Run `rekey run` to re-encrypt every row under a new encryption key"));
    }
    Ok(())
}

/// Changes the key.
pub async fn rotate(
    session: &Session,
    target: &KeySource,
    change: Change,
    stop: &mut Stop,
) -> Result<SecretKeyChanged> {
    refuse_place(target)?;
    let opening = async { Ok(super::open(session).await) };
    let (mut trail, mut needed) = unless_stopped(stop, opening).await?;
    let (written, event) = match change {
        Change::Replace => (replace(target, session, &mut needed).await?, KeyEvent::RotateSecretKey),
        Change::BringBack => (bring_back(target, session, &mut needed).await?, KeyEvent::RollBackSecretKey),
    };
    let detail = json!({
        "key": written, "old_version": written.former_version, "new_version": written.version,
        "reason": session.actor.reason,
    });
    let head = match written.changed {
        true => trail.record(event, detail).await,
        false => trail.head().await,
    };
    Ok(SecretKeyChanged { written, head })
}

async fn replace(target: &KeySource, session: &Session, needed: &mut Needed) -> Result<Written> {
    keep_former(target, session).await?;
    let value = new_value(AppKey::Secret)?;
    // The former key of a try that was cut short is the one it kept; what it wrote is kept as any other key.
    let backup = if is_pending(target) { "bak" } else { PENDING };
    let write = Write {
        target,
        value: &value,
        present: Present::Replace,
        backup,
        made: None,
        label: WRITTEN,
        former: Former::Kept,
        creation: &AS_USUAL,
    };
    let mut done = write.apply(session, needed).await?;
    match settle(target) {
        Ok(kept) => done.backup = kept.or(done.backup),
        // The key is in place; the next try, or bringing the former back, settles it.
        Err(error) => tracing::warn!(%error, "The previous key stays at staging label {PENDING}"),
    }
    Ok(done)
}

async fn bring_back(target: &KeySource, session: &Session, needed: &mut Needed) -> Result<Written> {
    settle(target)?;
    let former = former(target, session).await?;
    let write = Write {
        target,
        value: &former,
        present: Present::Replace,
        backup: "bak",
        made: None,
        label: write::LABEL,
        former: Former::Kept,
        creation: &AS_USUAL,
    };
    write.apply(session, needed).await
}

/// Secrets Manager: labels what is current before anything changes, so that no later version pushes it away.
async fn keep_former(target: &KeySource, session: &Session) -> Result<()> {
    let Some(aws) = target.aws() else {
        // There must be one to replace.
        session.sources.fetch(target).await?;
        return Ok(());
    };
    let current = session.sources.fetch(&aws.at_current().into()).await?;
    let version = current.version_id.unwrap_or_default();
    let client = session.sources.aws().await?;
    let info = client.describe(&aws.secret_id).await?;
    if info.holder(WRITTEN) == Some(version.as_str()) && info.holder(LABEL).is_some() {
        // What is current was written by a try that was cut short: the former key is the one it kept.
        return Ok(());
    }
    client.attach(&aws.secret_id, LABEL, &version).await?;
    Ok(())
}

fn is_pending(target: &KeySource) -> bool {
    target.file().is_some_and(|path| dotenv::backup_path(path, PENDING).exists())
}

/// Files: what is pending is the former key from now on. Returns where it is kept.
fn settle(target: &KeySource) -> Result<Option<PathBuf>> {
    let Some(path) = target.file().filter(|_| is_pending(target)) else { return Ok(None) };
    if let Some(aside) = set_aside(path, BACKUP)? {
        tracing::info!("The existing backup was renamed to {}", aside.display());
        warn_of_git(&aside);
    }
    let kept = rename_backup(path, PENDING, BACKUP)?;
    warn_of_git(&kept);
    Ok(Some(kept))
}

async fn former(target: &KeySource, session: &Session) -> Result<Zeroizing<Vec<u8>>> {
    let copy = || target.in_copy(&dotenv::backup_path(target.file()?, BACKUP));
    let place = target.aws().map(|aws| aws.at(LABEL).into()).or_else(copy);
    let place =
        place.ok_or_else(|| Error::new(Exit::Usage, format!("{target} doesn't keep the previous key")))?;
    match session.sources.fetch(&place).await {
        Ok(fetched) => Ok(fetched.value),
        Err(SourceError::Missing { .. }) => Err(Error::new(
            Exit::Key,
            format!("{place} has no previous SECRET_KEY"),
        )
        .hint(
            "Only `rekey keys rotate-secret-key` keeps one. To restore a key from a backup, run `rekey keys \
             restore`",
        )),
        Err(e) => Err(e.into()),
    }
}
