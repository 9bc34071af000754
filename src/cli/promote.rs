//! `rekey promote`: arguments, the question, and what is printed.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;

use super::confirm::{self, Answer};
use super::context::Context;
use super::envelope::Document;
use super::last_lines::{print_head, print_next};
use super::options::{KeyArgs, duration, given, program};
use super::signals;
use super::variables::naming;
use crate::error::{Exit, Result};
use crate::jobs::key_pair::NamedKeys;
use crate::jobs::promote::{self, PromoteRequest, Promoted, WaitFor};
use crate::jobs::stakes;
use crate::rotation::Command;
use crate::store::preflight::Allowed;

#[derive(Args)]
pub struct PromoteArgs {
    /// Where the application reads its key [default: the old key's source]
    #[arg(long, env = "REKEY_TARGET", hide_env_values = true, value_name = "SOURCE")]
    pub target: Option<String>,
    /// Don't write the key: print what to change, then rerun to confirm
    #[arg(long, env = "REKEY_EXTERNAL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub external: bool,
    /// Give the new key on stdin to this program, which puts it where the application reads it
    #[arg(
        long,
        env = "REKEY_PROMOTE_COMMAND",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "CMD",
        conflicts_with = "external"
    )]
    pub promote_command: Option<String>,
    /// Wait until this source yields the new key; only then may the application be restarted
    #[arg(
        long,
        env = "REKEY_WAIT_FOR",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "SOURCE"
    )]
    pub wait_for: Option<String>,
    /// Maximum time to wait for it
    #[arg(long, env = "REKEY_WAIT_LIMIT", hide_env_values = true, hide_short_help = true, default_value = "10m", value_parser = duration, value_name = "DURATION")]
    pub wait_limit: Duration,
    /// Don't ask for confirmation
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    /// Workers that verify the rows first
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    /// Allow a refused finding by name; repeatable
    #[arg(long, env = "REKEY_ALLOW", hide_env_values = true, value_name = "FINDING", value_delimiter = ',')]
    pub allow: Vec<String>,
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// Runs the command.
pub async fn run(args: PromoteArgs, context: &Context) -> Result<Exit> {
    let request = PromoteRequest {
        external: args.external,
        program: program(&args.promote_command)?,
        wait_for: given("--wait-for", &args.wait_for)?
            .map(|source| WaitFor { source, limit: args.wait_limit }),
        allowed: naming("--allow", Allowed::parse(&args.allow))?,
        workers: args.workers.into(),
        keys: NamedKeys { target: given("--target", &args.target)?, ..args.keys.named()? },
    };
    // A connection that cannot be made is refused before a question is asked.
    context.connector()?;
    let stop = signals::listen()?;
    if confirm::is_needed(args.yes)? {
        confirm::show(
            &stakes::of(
                context,
                Command::Promote { external: request.external || request.program.is_some() },
            )
            .await?,
        );
        confirm::ask("This gives the application the new key. Continue?", Answer::Yes)?;
    }
    let done = promote::promote(context, &request, stop).await?;
    context.say_next("promoted", &done.next);
    if context.json() {
        let result = json!({
            "already": done.already, "target": done.target.to_string(), "version_id": done.version_id,
            "seen_at": done.seen_at, "cache": done.cache, "rotation": done.rotation, "event_head": done.event_head,
        });
        context.print_json(&Document::new(Exit::Ok, &result)?.outcome("promoted").next(&done.next))?;
    } else {
        text(&done);
    }
    Ok(Exit::Ok)
}

fn text(p: &Promoted) {
    let before = if p.already { ", as before" } else { "" };
    println!("{} holds the new key, {}{before}", p.target, p.rotation.new_fingerprint);
    if let Some(version) = &p.version_id {
        println!("  version {version} is AWSCURRENT");
    }
    if let Some(place) = &p.seen_at {
        println!("  {place} yields it, too: the application can be restarted");
    }
    println!("  {}\n", p.cache);
    print_next(&p.next);
    print_head(Some(&p.event_head));
}
