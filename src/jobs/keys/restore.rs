//! A key from a backup back to where the application reads it.
//!
//! The passphrase is tried before the target is looked at, and the key is judged before it is written; what is there is
//! kept in a backup, or at AWSPREVIOUS.

mod exported;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::subject::{kind_of, writable};
use super::write::{Former, LABEL, Present, Write, Written};
use crate::crypto::{Fingerprint, KEY_LEN};
use crate::engine::Stop;
use crate::error::{Error, Exit, Result};
use crate::jobs::Session;
use crate::jobs::audit_trail::KeyEvent;
use crate::jobs::interrupt::unless_stopped;
use crate::secrets::aws::AS_USUAL;
use crate::secrets::backup::{BackupError, Bundle, Entry, Passphrase, decrypt};
use crate::secrets::{AppKey, KeySource};

/// Many times what a backup of keys is.
const MAX_BYTES: u64 = 16 << 20;

/// A backup as it was read, not yet decrypted.
pub struct SealedBackup {
    file: PathBuf,
    message: Vec<u8>,
}

impl SealedBackup {
    /// Reads a file made by `keys backup`, or by gpg.
    pub fn read(file: PathBuf) -> Result<SealedBackup> {
        let failed = |e: std::io::Error| {
            Error::new(Exit::Key, format!("{}: can't read the backup: {e}", file.display()))
                .hint("Name the file of the backup")
        };
        let mut message = Vec::new();
        let opened = File::open(&file).map_err(failed)?;
        opened.take(MAX_BYTES).read_to_end(&mut message).map_err(failed)?;
        Ok(SealedBackup { file, message })
    }

    fn open(&self, passphrase: &Passphrase) -> Result<Bundle> {
        let named = |e: BackupError| {
            let e = Error::from(e);
            Error { message: format!("{}: {}", self.file.display(), e.message), ..e }
        };
        let content = decrypt(&self.message, passphrase.bytes()).map_err(named)?;
        Bundle::decode(content).map_err(named)
    }
}

/// What to restore, and where to.
pub struct RestoreRequest {
    /// The backup.
    pub backup: SealedBackup,
    /// What opens it.
    pub passphrase: Passphrase,
    /// Which of several keys in it: the source that it was read from. `None`: the one that `target` names.
    pub from: Option<KeySource>,
    /// Where it goes.
    pub target: KeySource,
}

/// What was done.
pub struct Restored {
    /// The place, and what is there now.
    pub written: Written,
    /// The head of the audit chain.
    pub head: Option<String>,
}

/// Refuses a place that cannot be written: asked before anyone is.
pub fn refuse_place(target: &KeySource) -> Result<()> {
    writable(target)
}

/// Puts the key there.
pub async fn restore(session: &Session, request: RestoreRequest, stop: &mut Stop) -> Result<Restored> {
    let RestoreRequest { backup, passphrase, from, target } = request;
    refuse_place(&target)?;
    let bundle = backup.open(&passphrase)?;
    drop(passphrase);
    let value = chosen(bundle, &target, from.as_ref())?;
    fits(&target, &value)?;
    let opening = async { Ok(super::open(session).await) };
    let (mut trail, mut needed) = unless_stopped(stop, opening).await?;
    let write = Write {
        target: &target,
        value: &value,
        present: Present::Replace,
        backup: "bak",
        made: None,
        label: LABEL,
        former: Former::Labelled,
        creation: &AS_USUAL,
    };
    let written = write.apply(session, &mut needed).await?;
    drop(value);
    let head = match written.changed {
        true => {
            let detail = json!({ "file": backup.file.display().to_string(), "key": written });
            trail.record(KeyEvent::Restore, detail).await
        }
        false => trail.head().await,
    };
    Ok(Restored { written, head })
}

/// The key to restore, out of what was decrypted.
fn chosen(bundle: Bundle, target: &KeySource, from: Option<&KeySource>) -> Result<Zeroizing<Vec<u8>>> {
    let keys = match bundle {
        Bundle::List(keys) => keys,
        Bundle::One(content) => return exported::key_in(content, target),
    };
    let wanted = from.unwrap_or(target).to_string();
    let found = match (keys.iter().find(|k| k.source == wanted), keys.as_slice(), from) {
        (Some(found), _, _) => found,
        (None, [only], None) => only,
        _ => {
            let held: Vec<&str> = keys.iter().map(|k: &Entry| k.source.as_str()).collect();
            let holds = held.join(", ");
            return Err(Error::new(
                Exit::Key,
                format!("the backup has no key from {wanted}; it has {holds}"),
            )
            .hint("Name one with `--from SOURCE`"));
        }
    };
    exported::key_in(found.value()?, target)
}

/// A backup of the other key, or of a whole file, is not put where it does not belong.
fn fits(target: &KeySource, value: &[u8]) -> Result<()> {
    let wrong = match kind_of(target) {
        Some(AppKey::Encryption) if value.len() != KEY_LEN => "exactly 32",
        Some(AppKey::Secret) if value.len() < KEY_LEN => "at least 32",
        _ => return Ok(()),
    };
    Err(Error::new(
        Exit::Key,
        format!(
            "the backup's key has {} bytes (fingerprint {}), but {target} needs {wrong}; nothing was changed",
            value.len(),
            Fingerprint::of(value)
        ),
    )
    .hint("Check the file: this is probably the backup of another key"))
}
