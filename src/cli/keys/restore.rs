//! `rekey keys restore FILE --to SOURCE`: a key from a backup back to where the application reads it.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;

use super::super::confirm::confirm;
use super::super::context::Context;
use super::super::envelope::Document;
use super::super::last_lines::{print_head, print_next};
use super::super::signals;
use super::passphrase::{self, PassphraseArgs};
use crate::error::{Exit, Result};
use crate::jobs::keys::restore::{RestoreRequest, SealedBackup, refuse_place, restore};
use crate::jobs::keys::write::Written;
use crate::rotation::permits::{KeyDone, next_for_keys};
use crate::secrets::KeySource;

/// `keys restore`
#[derive(Args)]
pub struct RestoreArgs {
    /// File made by `rekey keys backup` or `gpg --symmetric`
    pub file: PathBuf,
    /// Where to write the key
    #[arg(long, env = "REKEY_TO", hide_env_values = true, value_name = "SOURCE")]
    pub to: String,
    /// In a backup of several keys, the source the key was read from [default: the one that --to names]
    #[arg(long, env = "REKEY_FROM", hide_env_values = true, value_name = "SOURCE")]
    pub from: Option<String>,
    /// Don't ask for confirmation
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

/// Runs the command.
pub async fn run(args: RestoreArgs, context: &Context) -> Result<Exit> {
    let target = KeySource::parse(&args.to)?;
    let from = args.from.as_deref().map(KeySource::parse).transpose()?;
    refuse_place(&target)?;
    let shown = args.file.display();
    confirm(args.yes, &format!("Replace the key in {target} with the one from {shown}?"))?;
    let backup = SealedBackup::read(args.file)?;
    let mut stop = signals::listen()?;
    let passphrase = passphrase::to_open(&args.passphrase, &mut stop).await?;
    let request = RestoreRequest { backup, passphrase, from, target };
    let done = restore(context, request, &mut stop).await?;
    let next = if done.written.changed { next_for_keys(KeyDone::Restored) } else { Vec::new() };
    if context.json() {
        let result = json!({ "key": done.written, "event_head": done.head });
        context.print_json(&Document::new(Exit::Ok, &result)?.next(&next))?;
        return Ok(Exit::Ok);
    }
    text(&done.written);
    print_next(&next);
    print_head(done.head.as_deref());
    Ok(Exit::Ok)
}

fn text(done: &Written) {
    let Written { target, fingerprint, .. } = done;
    if !done.changed {
        println!("{target} already holds this key, fingerprint {fingerprint}");
        return;
    }
    println!("{target}: restored, fingerprint {fingerprint}");
    if let Some(former) = done.former_fingerprint {
        println!("  previous key: fingerprint {former}");
    }
    if let Some(backup) = &done.backup {
        println!("  The previous file is {}", backup.display());
    }
    match &done.former_version {
        Some(version) if target.is_live() => println!("  The previous version is {version}, at AWSPREVIOUS"),
        Some(version) => {
            println!("  The previous version is {version}. It has no staging label, so AWS may delete it");
        }
        None => {}
    }
}
