//! `rekey cache purge`: the application's stale entries in Redis. Needs no database.

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::confirm::confirm;
use super::context::Context;
use super::envelope::Document;
use super::last_lines::print_head;
use super::signals;
use crate::cache::{CacheError, Mode, Target};
use crate::error::{Exit, Result};
use crate::jobs::cache::purge;
use crate::manual::examples;
use crate::telemetry::progress::thousands;

/// `rekey cache …`
#[derive(Subcommand)]
pub enum CacheCommand {
    /// Delete the cached connections and secrets that a rotation made stale
    #[command(after_long_help = examples::CACHE_PURGE)]
    Purge(PurgeArgs),
}

/// `cache purge`
#[derive(Args)]
pub struct PurgeArgs {
    /// Redis server. Prefer the REDIS_URL variable: every user of the machine can see arguments
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// Prefix of the application's cache keys
    #[arg(
        long,
        env = "REKEY_PREFIX",
        hide_env_values = true,
        default_value = "dashtam",
        value_name = "PREFIX"
    )]
    pub prefix: String,
    /// Count the entries; delete nothing
    #[arg(long, env = "REKEY_DRY_RUN", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Don't ask for confirmation
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
}

/// Runs the command.
pub async fn run(command: CacheCommand, context: &Context) -> Result<Exit> {
    let CacheCommand::Purge(args) = command;
    let url = args.redis_url.filter(|url| !url.trim().is_empty()).ok_or(CacheError::NoUrl)?;
    let url = Zeroizing::new(url);
    let target = Target::parse(&url, &args.prefix)?;
    let mode = if args.dry_run { Mode::DryRun } else { Mode::Delete };
    if mode == Mode::Delete {
        confirm(args.yes, &format!("Delete {} on {target}?", target.patterns().join(", ")))?;
    }
    let mut stop = signals::listen()?;
    let done = purge(context, &target, mode, &mut stop).await?;
    if context.json() {
        let result = json!({
            "server": target.to_string(), "dry_run": mode == Mode::DryRun, "purged": done.purged, "event_head": done.head,
        });
        context.print_json(&Document::new(Exit::Ok, &result)?)?;
        return Ok(Exit::Ok);
    }
    for p in &done.purged {
        let (count, what) = match mode {
            Mode::DryRun => (p.found, "would be deleted"),
            Mode::Delete => (p.deleted, "deleted"),
        };
        println!("{:<34}{:>14} {what}", p.pattern, thousands(count as i64));
    }
    print_head(done.head.as_deref());
    Ok(Exit::Ok)
}
