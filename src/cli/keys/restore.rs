//! `rekey keys restore FILE --to SOURCE`: a key from a backup back to where the application reads it.
//!
//! The passphrase is tried before the target is looked at; what is there is kept in a backup, or at AWSPREVIOUS.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::json;
use zeroize::Zeroizing;

use super::super::confirm::confirm;
use super::super::context::Context;
use super::super::signals;
use super::args::RestoreArgs;
use super::passphrase::{self, Purpose};
use super::subject::{kind_of, writable};
use super::trail::{Action, print_head};
use super::write::{LABEL, Present, Write};
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::jobs::interrupt::unless_stopped;
use crate::secrets::aws::read_field;
use crate::secrets::backup::{Bundle, Entry, decrypt};
use crate::secrets::{AppKey, KeySource};

/// Many times what a backup of keys is.
const MAX_BYTES: u64 = 16 << 20;

/// Runs the command.
pub async fn run(args: RestoreArgs, context: &Context) -> Result<Exit> {
    let target = KeySource::parse(&args.to)?;
    let from = args.from.as_deref().map(KeySource::parse).transpose()?;
    writable(&target)?;
    let shown = args.file.display();
    confirm(args.yes, &format!("Put the key in {shown} into {target}, in place of the one that is there?"))?;
    let message = read(&args.file)?;
    let passphrase = passphrase::get(&args.passphrase, Purpose::Decrypt)?;
    let content = decrypt(&message, &passphrase).map_err(|e| named(e, &args.file))?;
    drop(passphrase);
    let bundle = Bundle::decode(content).map_err(|e| named(e, &args.file))?;
    let value = chosen(bundle, &target, from.as_ref())?;
    fits(&target, &value)?;

    let mut stop = signals::listen()?;
    let (mut trail, mut needed) = unless_stopped(&mut stop, super::open(context)).await?;
    let write = Write {
        target: &target,
        value: &value,
        present: Present::Replace,
        backup: "bak",
        made: None,
        label: LABEL,
    };
    let done = write.apply(context, &mut needed).await?;
    drop(value);
    let head = match done.changed {
        true => trail.record(Action::RESTORE, json!({ "file": shown.to_string(), "key": done })).await,
        false => trail.head().await,
    };
    if context.json() {
        context.print_json(&json!({ "key": done, "event_head": head }))?;
        return Ok(Exit::Ok);
    }
    if !done.changed {
        println!("{target} holds this key already, fingerprint {}", done.fingerprint);
        print_head(head.as_ref());
        return Ok(Exit::Ok);
    }
    println!("{target}: restored, fingerprint {}", done.fingerprint);
    if let Some(former) = &done.former_fingerprint {
        println!("  before: fingerprint {former}");
    }
    if let Some(backup) = &done.backup {
        println!("  the file as it was is {}", backup.display());
    }
    if let Some(version) = &done.former_version {
        match target.is_live() {
            true => println!("  the version before is {version}, at AWSPREVIOUS"),
            false => println!("  the version before is {version}; no label keeps it, and AWS may delete it"),
        }
    }
    println!("next: restart the application; rekey cache purge; rekey verify");
    print_head(head.as_ref());
    Ok(Exit::Ok)
}

fn named(e: crate::secrets::backup::BackupError, file: &Path) -> Error {
    let e = Error::from(e);
    Error { message: format!("{}: {}", file.display(), e.message), ..e }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| {
        Error::new(Exit::Key, format!("{}: cannot read the backup: {e}", path.display()))
            .hint("name the backup's file")
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The key to restore, out of what was decrypted.
fn chosen(bundle: Bundle, target: &KeySource, from: Option<&KeySource>) -> Result<Zeroizing<Vec<u8>>> {
    let keys = match bundle {
        Bundle::List(keys) => keys,
        Bundle::One(content) => return one(content, target),
    };
    let wanted = from.unwrap_or(target).to_string();
    if let Some(found) = keys.iter().find(|k| k.source == wanted) {
        return Ok(found.value()?);
    }
    if let ([only], None) = (keys.as_slice(), from) {
        return Ok(only.value()?);
    }
    let held: Vec<&str> = keys.iter().map(|k: &Entry| k.source.as_str()).collect();
    Err(Error::new(Exit::Key, format!("the backup holds no key from {wanted}; it holds {}", held.join(", ")))
        .hint("say which with --from SOURCE"))
}

/// A whole JSON secret, exported and encrypted by hand, yields the field that the target names.
fn one(content: Zeroizing<Vec<u8>>, target: &KeySource) -> Result<Zeroizing<Vec<u8>>> {
    if let Some(aws) = target.aws()
        && let Some(field) = &aws.field
        && content.starts_with(b"{")
        && let Ok(value) = read_field(&content, field)
    {
        return Ok(value);
    }
    Ok(content)
}

/// A backup of the other key, or of a whole file, is not put where it does not belong.
fn fits(target: &KeySource, value: &[u8]) -> Result<()> {
    let wrong = match kind_of(target) {
        Some(AppKey::Encryption) if value.len() != 32 => "exactly 32",
        Some(AppKey::Secret) if value.len() < 32 => "at least 32",
        _ => return Ok(()),
    };
    Err(Error::new(
        Exit::Key,
        format!(
            "the backup's key has {} bytes (fingerprint {}), and {target} needs {wrong}; nothing was changed",
            value.len(),
            Fingerprint::of(value)
        ),
    )
    .hint("this is probably the backup of another key"))
}
