//! `rekey keys rotate-secret-key`: a new SECRET_KEY, or with `--rollback` the former one again.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;

use super::super::confirm::confirm;
use super::super::context::Context;
use super::super::last_lines::print_head;
use super::super::signals;
use super::subject::{Layout, subject};
use crate::error::{Exit, Result};
use crate::jobs::keys::rotate_secret_key::{Change, refuse_place, rotate};
use crate::jobs::keys::write::Written;
use crate::secrets::AppKey;

/// `keys rotate-secret-key`
#[derive(Args)]
pub struct RotateSecretKeyArgs {
    /// Where SECRET_KEY is [default: where the application's settings say]
    pub source: Option<String>,
    /// A dotenv file: SECRET_KEY in it
    #[arg(
        long,
        env = "REKEY_ENV_FILE",
        hide_env_values = true,
        value_name = "PATH",
        conflicts_with = "source"
    )]
    pub env_file: Option<PathBuf>,
    /// Bring the former SECRET_KEY back
    #[arg(long, env = "REKEY_ROLLBACK", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub rollback: bool,
    /// Do not ask
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
        true => (Change::BringBack, "Bring the former SECRET_KEY back"),
        false => (Change::Replace, "Replace SECRET_KEY"),
    };
    // Said first, whether or not anybody is asked.
    eprintln!("Every user will be signed out: tokens signed with the present SECRET_KEY stop working.");
    confirm(args.yes, &format!("{what} in {target}?"))?;
    let mut stop = signals::listen()?;
    let done = rotate(context, &target, change, &mut stop).await?;
    if context.json() {
        context.print_json(&json!({ "key": done.written, "event_head": done.head }))?;
        return Ok(Exit::Ok);
    }
    text(&done.written, change);
    print_head(done.head.as_deref());
    Ok(Exit::Ok)
}

fn text(done: &Written, change: Change) {
    let Written { target, fingerprint, .. } = done;
    if !done.changed {
        println!("the former SECRET_KEY is back in {target} already, fingerprint {fingerprint}");
        return;
    }
    let what = match change {
        Change::BringBack => "the former one is back",
        Change::Replace => "replaced",
    };
    println!("SECRET_KEY in {target}: {what}, fingerprint {fingerprint}");
    if let Some(former) = done.former_fingerprint {
        println!("  before: fingerprint {former}");
    }
    if let (Some(version), Some(former)) = (&done.version, &done.former_version) {
        println!("  version {version}; before: {former}");
    }
    if let Some(backup) = &done.backup {
        println!("  the file as it was is {}: remove it when you will not go back", backup.display());
    }
    println!("next: rekey cache purge; restart the application");
    if change == Change::Replace {
        println!("back: rekey keys rotate-secret-key --rollback, with the same arguments");
    }
}
