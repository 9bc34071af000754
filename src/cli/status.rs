//! `rekey status`: arguments, and what is printed, once or again and again.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::context::Context;
use super::last_lines::{print_head, print_next};
use crate::error::{Exit, Result};
use crate::jobs::status::{Heading, PassProgress, Status, Watch};
use crate::rotation::PassOutcome;
use crate::telemetry::progress::thousands;

#[derive(Args)]
pub struct StatusArgs {
    /// Print again every two seconds until the rotation rests
    #[arg(long, env = "REKEY_WATCH", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub watch: bool,
}

/// Runs the command.
pub async fn run(args: StatusArgs, context: &Context) -> Result<Exit> {
    let mut watch = Watch::open(context).await?;
    loop {
        let status = if args.watch { watch.look_patiently().await? } else { watch.look().await? };
        if context.json() {
            context.print_json(&status)?;
        } else {
            if args.watch && std::io::stdout().is_terminal() {
                // Home, and clear what is below: the same place is painted again.
                print!("\x1b[H\x1b[J");
            }
            text(&status);
        }
        if !args.watch || status.is_at_rest() {
            return Ok(Exit::Ok);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!();
    }
}

fn text(s: &Status) {
    match &s.rotation {
        Some(heading) => {
            rotation(s, heading);
            println!();
        }
        None => println!("no rotation has been started"),
    }
    print_next(&s.next);
    print_head(s.event_head.as_deref());
}

fn rotation(s: &Status, Heading { rotation: r, .. }: &Heading) {
    println!("rotation {}", r.id);
    println!("  {:<22}{} → {}", "keys", r.old_fingerprint, r.new_fingerprint);
    println!("  {:<22}{}, wanted: {}", "state", r.state, r.desired);
    println!("  {:<22}{} by {}", "started", r.created_at, r.operator);
    if let Some(deadline) = &r.deadline {
        println!("  {:<22}{deadline}", "deadline");
    }
    if let Some(pass) = &s.progress {
        progress(pass);
    }
    if let Some(c) = &s.chunks {
        println!("  {:<22}{} done, {} leased, {} waiting", "chunks", c.done, c.leased, c.waiting);
    }
    let throttled = s.processes.iter().filter(|p| p.throttle.is_some()).count();
    let of_all = match s.processes.len() {
        all if all > 1 && throttled > 0 => format!(" ({throttled} of {all} processes)"),
        _ => String::new(),
    };
    println!("  {:<22}{}{of_all}", "throttle", s.throttle.as_deref().unwrap_or("none"));
    if let Some(totals) = &s.totals {
        println!();
        for (name, rows) in [
            ("re-encrypted", totals.re_encrypted),
            ("already on the key", totals.already_on_key),
            ("without a credential", totals.null_rows),
            ("quarantined", totals.quarantined),
            ("lost races, retried", totals.lost_races),
        ] {
            println!("  {name:<22}{:>14} rows", thousands(rows));
        }
    }
    if !s.processes.is_empty() {
        println!();
    }
    for p in &s.processes {
        println!("  {:<40} {} workers, heard of {:.0} s ago", p.process, p.workers, p.seen_seconds_ago);
        if let Some(why) = &p.throttle {
            println!("    {why}");
        }
    }
}

fn progress(p: &PassProgress) {
    let outcome = p.outcome.map_or("under way", PassOutcome::as_str);
    println!("  {:<22}{}, {}, by {}: {outcome}", "pass", p.pass, p.pass_kind, p.addressing);
    println!("  {:<22}{} of {} rows", "done", thousands(p.rows_done), thousands(p.rows_total));
    let eta = p.eta_seconds.map_or_else(String::new, |s| format!(", {s:.0} s left"));
    println!("  {:<22}{} rows/s{eta}", "rate", thousands(p.rows_per_second as i64));
}
