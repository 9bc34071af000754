//! `rekey keys backup SOURCE… --out FILE`: keys into a file that only its passphrase opens.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;

use super::super::context::Context;
use super::super::envelope::Document;
use super::super::last_lines::{print_head, print_next};
use super::super::signals;
use super::passphrase::{self, PassphraseArgs};
use crate::error::{Exit, Result};
use crate::jobs::keys::backup::{BackupRequest, backup, refuse_existing};
use crate::rotation::permits::{KeyDone, next_for_keys};
use crate::secrets::KeySource;
use crate::secrets::backup::Short;

/// `keys backup`
#[derive(Args)]
pub struct BackupArgs {
    /// Sources of the keys
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// File to create, mode 0600; never overwritten
    #[arg(long, env = "REKEY_OUT", hide_env_values = true, value_name = "FILE")]
    pub out: PathBuf,
    /// Accept a passphrase of fewer than 12 characters
    #[arg(long, env = "REKEY_ALLOW_WEAK_PASSPHRASE", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub allow_weak_passphrase: bool,
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

/// Runs the command.
pub async fn run(args: BackupArgs, context: &Context) -> Result<Exit> {
    let sources = args.sources.iter().map(|s| KeySource::parse(s)).collect::<Result<Vec<_>, _>>()?;
    refuse_existing(&args.out)?;
    let mut stop = signals::listen()?;
    let short = if args.allow_weak_passphrase { Short::Allowed } else { Short::Refused };
    let passphrase = passphrase::to_make(&args.passphrase, short, &mut stop).await?;
    let request = BackupRequest { sources, out: args.out.clone(), passphrase };
    let done = backup(context, request, &mut stop).await?;
    let next = next_for_keys(KeyDone::BackedUp);
    if context.json() {
        let result = json!({ "file": args.out, "keys": done.keys, "event_head": done.head });
        context.print_json(&Document::new(Exit::Ok, &result)?.next(&next))?;
        return Ok(Exit::Ok);
    }
    let keys = match done.keys.len() {
        1 => "1 key".to_owned(),
        n => format!("{n} keys"),
    };
    println!("{}: {keys} encrypted, decrypted again and compared", args.out.display());
    for key in &done.keys {
        println!("  {} {}", key.fingerprint, key.source);
    }
    println!("To restore a key from it, run `rekey keys restore FILE --to SOURCE`");
    print_next(&next);
    print_head(done.head.as_deref());
    Ok(Exit::Ok)
}
