//! `rekey promote`: arguments, the question, and what is printed.

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;

use super::confirm::{self, Answer};
use super::context::Context;
use super::last_lines::{print_head, print_next};
use super::options::{KeyArgs, given};
use super::signals;
use super::variables::naming;
use crate::error::{Exit, Result};
use crate::jobs::promote::{self, PromoteRequest, Promoted};
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
        target: given("--target", &args.target)?,
        external: args.external,
        allowed: naming("--allow", Allowed::parse(&args.allow))?,
        workers: args.workers.into(),
        keys: args.keys.named()?,
    };
    // A connection that cannot be made is refused before a question is asked.
    context.connector()?;
    let stop = signals::listen()?;
    if confirm::is_needed(args.yes)? {
        confirm::show(&stakes::of(context, Command::Promote { external: args.external }).await?);
        confirm::ask("This gives the application the new key. Continue?", Answer::Yes)?;
    }
    let done = promote::promote(context, &request, stop).await?;
    context.say_next("promoted", &done.next);
    if context.json() {
        context.print_json(&json!({
            "outcome": "promoted", "already": done.already, "target": done.target.to_string(),
            "version_id": done.version_id, "cache": done.cache, "rotation": done.rotation, "next": done.next,
            "event_head": done.event_head,
        }))?;
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
    println!("  {}\n", p.cache);
    print_next(&p.next);
    print_head(Some(&p.event_head));
}
