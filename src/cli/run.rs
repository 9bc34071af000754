//! `rekey run`: arguments, and what is printed of a dry run. The end of a run is printed by [`summary`].

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::Serialize;

use super::context::Context;
use super::envelope::Document;
use super::last_lines::{print_head, print_next};
use super::options::{KeyArgs, WorkArgs, given};
use super::{signals, summary};
use crate::engine::DryRun;
use crate::error::{Exit, Result};
use crate::jobs::dry_run::{self, DryEnd, Tried};
use crate::jobs::run::{self, RunRequest};
use crate::rotation::Step;
use crate::telemetry::progress::thousands;

#[derive(Args)]
pub struct RunArgs {
    /// Read, re-encrypt and check every row in memory; write nothing
    #[arg(long, env = "REKEY_DRY_RUN", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// An older key that some rows may be on; rekey re-encrypts those rows too
    #[arg(long, env = "REKEY_ALSO_KEY", hide_env_values = true, value_name = "SOURCE")]
    pub also_key: Option<String>,
    /// Mark the old key compromised; `rollback` then requires `--i-know-the-old-key-is-compromised`
    #[arg(long, env = "REKEY_COMPROMISED", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub compromised: bool,
    #[command(flatten)]
    pub keys: KeyArgs,
    #[command(flatten)]
    pub work: WorkArgs,
}

/// Runs the command.
pub async fn run(args: RunArgs, context: &Context) -> Result<Exit> {
    let request = RunRequest {
        compromised: args.compromised,
        also_key: given("--also-key", &args.also_key)?,
        keys: args.keys.named()?,
        work: args.work.request()?,
    };
    let stop = signals::listen()?;
    if args.dry_run {
        return print_dry(context, dry_run::dry_run(context, &request, stop).await?);
    }
    summary::print(context, &run::run(context, &request, stop).await?)
}

#[derive(Serialize)]
struct DryReport {
    #[serde(skip)]
    outcome: &'static str,
    #[serde(flatten)]
    found: DryRun,
    rows_per_second: f64,
    rejected_rows: Option<u64>,
    #[serde(skip)]
    next: Vec<Step>,
    event_head: Option<String>,
}

fn print_dry(context: &Context, tried: Tried) -> Result<Exit> {
    let Tried { end, found, rejected_rows, next, event_head } = tried;
    let outcome = match end {
        DryEnd::Clean => "every row would be on the new key; nothing was written",
        DryEnd::Quarantine => {
            "neither key decrypts some rows, which would be quarantined; nothing was written"
        }
        DryEnd::Rejected => {
            "a constraint rejects the update of some rows, which would be quarantined; nothing was written"
        }
        DryEnd::WrongKey => "the old key decrypts no row; nothing was written",
        DryEnd::PastDeadline => "past the deadline; nothing was written",
        DryEnd::Signalled => "stopped by a signal; nothing was written",
    };
    let exit = end.exit();
    context.say_next(outcome, &next);
    let report = DryReport {
        outcome,
        rows_per_second: (found.rows as f64 / found.seconds.max(1e-9)).round(),
        found,
        rejected_rows,
        next,
        event_head,
    };
    if context.json() {
        context.print_json(&Document::new(exit, &report)?.outcome(outcome).next(&report.next))?;
    } else {
        text(&report);
    }
    Ok(exit)
}

fn text(report: &DryReport) {
    println!("{}\n", report.outcome);
    for (name, rows) in [
        ("would be re-encrypted", report.found.would_re_encrypt),
        ("already on the key", report.found.already_on_key),
        ("without a credential", report.found.null),
        ("neither key decrypts", report.found.unreadable),
    ] {
        println!("  {name:<22}{:>14} rows", thousands(rows));
    }
    if let Some(rows @ 1..) = report.rejected_rows {
        println!("  {:<22}{:>14} rows", "constraint rejects", thousands(rows as i64));
    }
    println!("  {:<22}{:>14.1} s", "time", report.found.seconds);
    println!("  {:<22}{:>14} rows/s", "rate", thousands(report.rows_per_second as i64));
    for (reason, rows) in &report.found.unreadable_by_reason {
        println!("    {:<20}{:>14} rows", reason.as_str(), thousands(*rows));
    }
    for id in report.found.unreadable_ids.iter().take(10) {
        println!("  unreadable: {id}");
    }
    println!();
    print_next(&report.next);
    print_head(report.event_head.as_deref());
}
