//! `rekey cache purge`: the application's stale entries in Redis. Needs no database.

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use serde_json::json;

use super::confirm::confirm;
use super::context::Context;
use super::examples;
use super::keys::Trail;
use super::signals;
use crate::cache::{CacheError, Mode, Purged, Target, purge};
use crate::error::{Error, Exit, Result};
use crate::jobs::interrupt::unless_stopped;
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
    /// The server; better in REDIS_URL, because arguments are visible to every user of the machine
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// The application's prefix
    #[arg(
        long,
        env = "REKEY_PREFIX",
        hide_env_values = true,
        default_value = "dashtam",
        value_name = "PREFIX"
    )]
    pub prefix: String,
    /// Count, and delete nothing
    #[arg(long, env = "REKEY_DRY_RUN", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
}

/// Runs the command.
pub async fn run(command: CacheCommand, context: &Context) -> Result<Exit> {
    let CacheCommand::Purge(args) = command;
    let url = args.redis_url.filter(|url| !url.trim().is_empty()).ok_or(CacheError::NoUrl)?;
    let url = zeroize::Zeroizing::new(url);
    let target = Target::parse(&url, &args.prefix)?;
    let mode = if args.dry_run { Mode::DryRun } else { Mode::Delete };
    if mode == Mode::Delete {
        let question = format!("Delete {} on {target}?", target.patterns().join(", "));
        confirm(args.yes, &question)?;
    }
    let mut stop = signals::listen()?;
    let purging = async { purge(&target, mode, context.retry_for).await.map_err(Error::from) };
    let purged = unless_stopped(&mut stop, purging).await?;
    let head = match mode {
        Mode::Delete => Trail::open(context).await.record(super::keys::PURGE, detail(&target, &purged)).await,
        Mode::DryRun => None,
    };
    if context.json() {
        let result = json!({
            "server": target.to_string(), "dry_run": mode == Mode::DryRun, "purged": purged, "event_head": head,
        });
        context.print_json(&result)?;
        return Ok(Exit::Ok);
    }
    for p in &purged {
        match mode {
            Mode::DryRun => println!("{:<34}{:>14} would be deleted", p.pattern, thousands(p.found as i64)),
            Mode::Delete => println!("{:<34}{:>14} deleted", p.pattern, thousands(p.deleted as i64)),
        }
    }
    if let Some(head) = head {
        println!("audit chain head: {head}");
    }
    Ok(Exit::Ok)
}

fn detail(target: &Target, purged: &[Purged]) -> serde_json::Value {
    json!({ "server": target.to_string(), "purged": purged })
}
