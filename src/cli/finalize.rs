//! `rekey finalize`: arguments, the question, and what is printed.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::confirm::{self, Answer};
use super::context::Context;
use super::envelope::{Document, wrong};
use super::last_lines::{print_head, print_next};
use super::options::{KeyArgs, given};
use super::signals;
use super::variables::naming;
use crate::error::{Exit, Result};
use crate::jobs::finalize::{self, FinalizeRequest, Finalized};
use crate::jobs::key_pair::NamedKeys;
use crate::jobs::stakes;
use crate::rotation::Command;
use crate::store::preflight::Allowed;
use crate::telemetry::progress::thousands;

#[derive(Args)]
pub struct FinalizeArgs {
    /// Days during which AWS can still restore the deleted temporary secret
    #[arg(long, env = "REKEY_RECOVERY_WINDOW", hide_env_values = true, default_value_t = 30, value_parser = clap::value_parser!(u8).range(7..=30), value_name = "DAYS")]
    pub recovery_window: u8,
    /// Don't ask for confirmation. Has no environment variable, because finalizing can't be undone
    #[arg(long)]
    pub yes: bool,
    /// Workers that verify the rows first
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    /// Allow a refused finding by name; repeatable
    #[arg(long, env = "REKEY_ALLOW", hide_env_values = true, value_name = "FINDING", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// Where the application reads its key, for a `command:` source, which rekey runs only where you name it
    #[arg(long, env = "REKEY_TARGET", hide_env_values = true, hide_short_help = true, value_name = "SOURCE")]
    pub target: Option<String>,
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// Runs the command.
pub async fn run(args: FinalizeArgs, context: &Context) -> Result<Exit> {
    let request = FinalizeRequest {
        recovery_window: args.recovery_window,
        allowed: naming("--allow", Allowed::parse(&args.allow))?,
        workers: args.workers.into(),
        keys: NamedKeys { target: given("--target", &args.target)?, ..args.keys.named()? },
    };
    context.connector()?;
    let stop = signals::listen()?;
    if confirm::is_needed(args.yes)? {
        confirm::show(&stakes::of(context, Command::Finalize).await?);
        confirm::ask("This ends the rotation. Rollback is impossible afterwards.", Answer::Word("finalize"))?;
    }
    let done = finalize::finalize(context, &request, stop).await?;
    context.say_next("finalized", &done.next);
    if context.json() {
        let result = json!({
            "ending": ending(&done)?, "rotation": done.rotation, "accepted": done.accepted, "other_credentials": done.others,
            "event_head": done.event_head,
        });
        context.print_json(&Document::new(Exit::Ok, &result)?.outcome("finalized").next(&done.next))?;
    } else {
        text(&done, args.recovery_window);
    }
    Ok(Exit::Ok)
}

/// As recorded, with a time in place of seconds since 1970.
fn ending(f: &Finalized) -> Result<Value> {
    let mut ending = serde_json::to_value(&f.ending).map_err(wrong)?;
    let at = f.ending.deleted_at.and_then(|at| Timestamp::from_second(at).ok());
    ending["deleted_at"] = json!(at.map(|at| at.to_string()));
    Ok(ending)
}

fn text(f: &Finalized, recovery_window: u8) {
    let (r, ending) = (&f.rotation, &f.ending);
    let but = match f.accepted {
        0 => String::new(),
        rows => format!(", except {} that an operator accepted", thousands(rows)),
    };
    println!("rotation {} is finalized; every row is on the new key, {}{but}", r.id, r.new_fingerprint);
    if let Some(label) = &ending.retired_label {
        println!(
            "  The old key is kept under the staging label {label}. Database backups taken before the \
            rotation need it"
        );
    }
    if let Some(file) = &ending.retired_file {
        println!("  The old key is kept in {file}. Database backups taken before the rotation need it");
    }
    if let Some(secret) = &ending.deletion_scheduled {
        println!("  Secret {secret} is scheduled for deletion, {recovery_window} days after the request");
    }
    if let Some(secret) = &ending.already_gone {
        println!("  Secret {secret} was already permanently deleted");
    }
    if let Some(secret) = &ending.left_alone {
        let why = ending.left_alone_because.as_deref().unwrap_or_default();
        println!("  Secret {secret} is kept: {why}");
    }
    if let Some(secret) = &ending.not_deleted {
        println!("  Secret {secret} could not be deleted. Delete it by hand");
    }
    if let Some(others) = &f.others {
        println!("  {}: {}", others.name, others.message);
        println!("  → {}", others.remedy);
    }
    println!();
    print_next(&f.next);
    print_head(Some(&f.event_head));
}
