//! `rekey keys rotate-secret-key`: a new SECRET_KEY, or with `--rollback` the former one again.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;

use super::super::confirm::confirm;
use super::super::context::Context;
use super::super::envelope::Document;
use super::super::last_lines::{print_head, print_next};
use super::super::signals;
use super::subject::{Layout, subject};
use crate::error::{Exit, Result};
use crate::jobs::keys::rotate_secret_key::{Change, refuse_place, rotate};
use crate::jobs::keys::write::Written;
use crate::rotation::permits::{KeyDone, next_for_keys};
use crate::secrets::AppKey;

/// `keys rotate-secret-key`
#[derive(Args)]
pub struct RotateSecretKeyArgs {
    /// Source of SECRET_KEY [default: from the application's settings]
    pub source: Option<String>,
    /// Dotenv file with SECRET_KEY
    #[arg(
        long,
        env = "REKEY_ENV_FILE",
        hide_env_values = true,
        value_name = "PATH",
        conflicts_with = "source"
    )]
    pub env_file: Option<PathBuf>,
    /// Restore the previous SECRET_KEY
    #[arg(long, env = "REKEY_ROLLBACK", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub rollback: bool,
    /// Don't ask for confirmation
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    #[command(flatten)]
    pub layout: Layout,
}

/// Runs the command.
pub async fn run(args: RotateSecretKeyArgs, context: &Context) -> Result<Exit> {
    let (source, env_file) = (args.source.as_deref(), args.env_file.as_deref());
    let target = subject(source, env_file, (AppKey::Secret, &args.layout), context)?.source;
    refuse_place(&target)?;
    let (change, what) = match args.rollback {
        true => (Change::BringBack, "Restore the previous SECRET_KEY"),
        false => (Change::Replace, "Replace SECRET_KEY"),
    };
    // Said first, whether or not anybody is asked.
    eprintln!("Every user will be signed out: tokens signed with the current SECRET_KEY stop working.");
    confirm(args.yes, &format!("{what} in {target}?"))?;
    let mut stop = signals::listen()?;
    let done = rotate(context, &target, change, &mut stop).await?;
    let next = if done.written.changed { next_for_keys(KeyDone::SecretKeyChanged) } else { Vec::new() };
    if context.json() {
        let result = json!({ "key": done.written, "event_head": done.head });
        context.print_json(&Document::new(Exit::Ok, &result)?.next(&next))?;
        return Ok(Exit::Ok);
    }
    text(&done.written, change);
    print_next(&next);
    if done.written.changed && change == Change::Replace {
        println!("undo: run `rekey keys rotate-secret-key --rollback` with the same arguments");
    }
    print_head(done.head.as_deref());
    Ok(Exit::Ok)
}

fn text(done: &Written, change: Change) {
    let Written { target, fingerprint, .. } = done;
    if !done.changed {
        println!("{target} already holds the previous SECRET_KEY again, fingerprint {fingerprint}");
        return;
    }
    let what = match change {
        Change::BringBack => "the previous one is restored",
        Change::Replace => "replaced",
    };
    println!("SECRET_KEY in {target}: {what}, fingerprint {fingerprint}");
    if let Some(former) = done.former_fingerprint {
        println!("  previous key: fingerprint {former}");
    }
    if let (Some(version), Some(former)) = (&done.version, &done.former_version) {
        println!("  version {version}; previous version: {former}");
    }
    if let Some(backup) = &done.backup {
        println!(
            "  The previous file is {}. Remove it when you no longer need to undo this",
            backup.display()
        );
    }
}
