//! Keys into a file that only its passphrase opens.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use crate::crypto::Fingerprint;
use crate::engine::Stop;
use crate::error::{Error, Exit, Result};
use crate::jobs::Session;
use crate::jobs::audit_trail::{AuditTrail, KeyEvent};
use crate::jobs::interrupt::unless_stopped;
use crate::secrets::backup::{Bundle, Entry, Passphrase, decrypt, encrypt};
use crate::secrets::{Fetched, KeySource, create_private};

/// Which keys, and where to.
pub struct BackupRequest {
    /// Where the keys are.
    pub sources: Vec<KeySource>,
    /// The file to make.
    pub out: PathBuf,
    /// What opens it.
    pub passphrase: Passphrase,
}

/// What is in the backup.
pub struct BackedUp {
    /// Each key.
    pub keys: Vec<BackedUpKey>,
    /// The head of the audit chain.
    pub head: Option<String>,
}

/// One key that is in the backup. Holds no key.
#[derive(Serialize)]
pub struct BackedUpKey {
    /// Where it was read.
    pub source: KeySource,
    /// Which key.
    pub fingerprint: Fingerprint,
    /// Secrets Manager: the secret's ARN.
    pub secret: Option<String>,
    /// Secrets Manager: the version's id.
    pub version: Option<String>,
}

/// Refuses a file that is there: asked before a passphrase is.
pub fn refuse_existing(out: &Path) -> Result<()> {
    if std::fs::symlink_metadata(out).is_ok() { Err(exists(out)) } else { Ok(()) }
}

fn exists(out: &Path) -> Error {
    Error::new(Exit::Usage, format!("{} exists; rekey never overwrites a backup", out.display()))
        .hint("Name another file")
}

/// Writes the backup, opened again and compared.
pub async fn backup(session: &Session, request: BackupRequest, stop: &mut Stop) -> Result<BackedUp> {
    let BackupRequest { sources, out, passphrase } = request;
    refuse_existing(&out)?;
    let (mut trail, fetched) = unless_stopped(stop, fetch(&sources, session)).await?;
    let mut entries = Vec::new();
    let mut keys = Vec::new();
    for (source, fetched) in sources.into_iter().zip(&fetched) {
        let fingerprint = Fingerprint::of(&fetched.value);
        entries.push(Entry::new(source.to_string(), fingerprint.to_string(), &fetched.value));
        let (secret, version) = (fetched.arn.clone(), fetched.version_id.clone());
        keys.push(BackedUpKey { source, fingerprint, secret, version });
    }
    let content = Bundle::encode(entries)?;
    let message = encrypt(&content, passphrase.bytes())?;
    // A backup that does not open is found today, not on the day it is needed.
    if *decrypt(&message, passphrase.read_again()?.bytes())? != *content {
        return Err(Error::new(
            Exit::Internal,
            "the backup didn't decrypt to its contents; nothing was written",
        ));
    }
    drop((content, fetched, passphrase));
    if !create_private(&out, &message)? {
        return Err(exists(&out));
    }
    let detail = json!({ "keys": keys, "file": out.display().to_string() });
    let head = trail.record(KeyEvent::Backup, detail).await;
    Ok(BackedUp { keys, head })
}

async fn fetch(sources: &[KeySource], session: &Session) -> Result<(AuditTrail, Vec<Fetched>)> {
    let trail = AuditTrail::open(session).await;
    let mut fetched = Vec::new();
    for source in sources {
        fetched.push(session.sources.fetch(source).await?);
    }
    Ok((trail, fetched))
}
