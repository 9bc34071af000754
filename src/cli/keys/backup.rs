//! `rekey keys backup SOURCE… --out FILE`: keys into a file that only its passphrase opens.

use serde_json::json;

use super::super::context::Context;
use super::super::signals;
use super::args::BackupArgs;
use super::passphrase::{self, Purpose};
use super::trail::{Action, Trail, print_head};
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::jobs::interrupt::unless_stopped;
use crate::secrets::backup::{Bundle, Entry, decrypt, encrypt};
use crate::secrets::{Fetched, KeySource, create_private};

/// Runs the command.
pub async fn run(args: BackupArgs, context: &Context) -> Result<Exit> {
    let sources = args.sources.iter().map(|s| KeySource::parse(s)).collect::<Result<Vec<_>, _>>()?;
    let exists = || {
        Error::new(Exit::Usage, format!("{} exists, and backups are never overwritten", args.out.display()))
            .hint("name another file")
    };
    if std::fs::symlink_metadata(&args.out).is_ok() {
        return Err(exists());
    }
    let passphrase = passphrase::get(&args.passphrase, Purpose::Encrypt)?;
    let mut stop = signals::listen()?;
    let (mut trail, fetched) = unless_stopped(&mut stop, fetch(&sources, context)).await?;
    let mut entries = Vec::new();
    let mut keys = Vec::new();
    for (source, fetched) in sources.iter().zip(&fetched) {
        let fingerprint = Fingerprint::of(&fetched.value);
        keys.push(json!({
            "source": source.to_string(), "fingerprint": fingerprint,
            "secret": fetched.arn, "version": fetched.version_id,
        }));
        entries.push(Entry::new(source.to_string(), fingerprint.to_string(), &fetched.value));
    }
    let content = Bundle::encode(entries)?;
    let message = encrypt(&content, &passphrase)?;
    // A backup that does not open is found today, not on the day it is needed.
    if *decrypt(&message, &passphrase)? != *content {
        return Err(Error::new(
            Exit::Internal,
            "the backup does not open to what was put in; nothing was written",
        ));
    }
    drop((content, fetched, passphrase));
    if !create_private(&args.out, &message)? {
        return Err(exists());
    }
    let head =
        trail.record(Action::BACKUP, json!({ "keys": keys, "file": args.out.display().to_string() })).await;
    if context.json() {
        context.print_json(&json!({ "file": args.out, "keys": keys, "event_head": head }))?;
        return Ok(Exit::Ok);
    }
    println!(
        "{}: {} encrypted, opened again and compared",
        args.out.display(),
        match keys.len() {
            1 => "1 key".to_owned(),
            n => format!("{n} keys"),
        }
    );
    for key in &keys {
        println!(
            "  {} {}",
            key["fingerprint"].as_str().unwrap_or_default(),
            key["source"].as_str().unwrap_or_default()
        );
    }
    println!("next: store it away from this machine; rekey keys restore FILE --to SOURCE brings a key back");
    print_head(head.as_ref());
    Ok(Exit::Ok)
}

async fn fetch(sources: &[KeySource], context: &Context) -> Result<(Trail, Vec<Fetched>)> {
    let trail = Trail::open(context).await;
    let mut fetched = Vec::new();
    for source in sources {
        fetched.push(context.sources.fetch(source).await?);
    }
    Ok((trail, fetched))
}
