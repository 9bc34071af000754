//! `rekey status`: reads only the database, so it works from anywhere.

use std::io::IsTerminal as _;
use std::time::Instant;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::Serialize;
use sqlx::PgConnection;

use super::context::Context;
use crate::error::{Exit, Result};
use crate::rotation::{Addressing, Counters, Desired, PassKind, PassOutcome, State};
use crate::store::ledger::process::{self, Process};
use crate::store::ledger::{Rotation, chunk, pass, quarantine, rotation};
use crate::store::{Purpose, StoreError, audit};
use crate::telemetry::progress::thousands;

#[derive(Args)]
pub struct StatusArgs {
    /// Print again every two seconds until the rotation rests
    #[arg(long, env = "REKEY_WATCH", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub watch: bool,
}

#[derive(Serialize)]
struct Status {
    rotation: Option<Printed>,
    totals: Option<Counters>,
    progress: Option<Now>,
    chunks: Option<Chunks>,
    processes: Vec<Process>,
    quarantine: Option<Quarantine>,
    throttle: Option<String>,
    event_head: Option<String>,
    next: &'static str,
}

#[derive(Serialize)]
struct Printed {
    #[serde(flatten)]
    rotation: Rotation,
    direction: &'static str,
}

#[derive(Serialize)]
struct Now {
    pass: i32,
    pass_kind: PassKind,
    addressing: Addressing,
    outcome: Option<PassOutcome>,
    rows_done: i64,
    rows_total: i64,
    rows_per_second: f64,
    eta_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Chunks {
    waiting: i64,
    leased: i64,
    done: i64,
}

#[derive(Serialize)]
struct Quarantine {
    rows: i64,
    unaccepted: i64,
}

impl Status {
    /// Nothing changes by itself any more. Rows that are to be moved may have no pass yet: it is being opened.
    fn is_at_rest(&self) -> bool {
        let moving = self.rotation.as_ref().is_some_and(|r| {
            matches!(r.rotation.state, State::Migrating | State::RollingBack | State::Unpromoting)
        });
        // Aborted, or past its deadline: its pass stays open, and nobody works on it any more.
        let ended = self.rotation.as_ref().is_some_and(|r| {
            (r.rotation.desired == Desired::Aborted || r.rotation.past_deadline) && self.processes.is_empty()
        });
        ended || self.progress.as_ref().map_or(!moving, |pass| pass.outcome.is_some())
    }
}

/// Runs the command.
pub async fn run(args: StatusArgs, context: &Context) -> Result<Exit> {
    let connector = context.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    loop {
        let since = Instant::now();
        let status = loop {
            match look(context, &mut conn).await {
                Ok(status) => break status,
                Err(e) if args.watch => connector.again(Purpose::Control, &mut conn, since, e).await?,
                Err(e) => return Err(e.into()),
            }
        };
        if context.json() {
            context.print_json(&status)?;
        } else {
            if args.watch && std::io::stdout().is_terminal() {
                // Home, and clear what is below: the same place is painted again.
                print!("\x1b[H\x1b[J");
            }
            text(&status);
        }
        let resting = status.is_at_rest();
        if !args.watch || resting {
            return Ok(Exit::Ok);
        }
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        println!();
    }
}

async fn look(context: &Context, conn: &mut PgConnection) -> Result<Status, StoreError> {
    let Some(r) = rotation::latest(conn).await? else {
        return Ok(Status {
            rotation: None,
            totals: None,
            progress: None,
            chunks: None,
            processes: Vec::new(),
            quarantine: None,
            throttle: None,
            event_head: audit::head_line(conn).await,
            next: "rekey plan",
        });
    };
    let direction = r.direction();
    let totals = chunk::totals(conn, r.id, direction).await?;
    let alive = context.lease_ttl.as_secs_f64();
    let processes = process::alive(conn, r.id, alive).await?;
    let (mut progress, mut chunks) = (None, None);
    if let Some(pass) = pass::latest(conn, r.id, direction).await? {
        let rate = processes.iter().map(|p| p.rate).fold(0.0, f64::max);
        let done = totals.settled();
        let estimate = if pass.outcome.is_some() || !pass.first { done } else { pass.estimated_rows };
        let total = estimate.max(done);
        let (waiting, leased, finished) = chunk::census(conn, r.id, pass.number).await?;
        chunks = Some(Chunks { waiting, leased, done: finished });
        progress = Some(Now {
            pass: pass.number,
            pass_kind: pass.kind,
            addressing: pass.addressing,
            rows_done: done,
            rows_total: total,
            rows_per_second: rate.round(),
            eta_seconds: (rate > 0.0 && pass.outcome.is_none())
                .then(|| ((total - done) as f64 / rate).round()),
            outcome: pass.outcome,
        });
    }
    let unaccepted = quarantine::unaccepted(conn, r.id).await?;
    let (seq, hash) = audit::head(conn).await?;
    let throttle = match r.desired {
        crate::rotation::Desired::Paused => Some("paused by the operator".to_owned()),
        crate::rotation::Desired::Aborted => Some("aborted by the operator".to_owned()),
        crate::rotation::Desired::Running if r.past_deadline => Some("past the deadline".to_owned()),
        // One that waits rather than one that is slow.
        crate::rotation::Desired::Running => {
            let held_up = processes.iter().filter_map(|p| p.throttle.as_ref());
            held_up.min_by_key(|why| !why.ends_with("waiting")).cloned()
        }
    };
    Ok(Status {
        next: next(&r, progress.as_ref(), unaccepted),
        quarantine: Some(Quarantine { rows: totals.quarantined, unaccepted }),
        rotation: Some(Printed { direction: direction.as_str(), rotation: r }),
        totals: Some(totals),
        progress,
        chunks,
        processes,
        throttle,
        event_head: Some(format!("{seq}:{hash}")),
    })
}

fn next(r: &Rotation, progress: Option<&Now>, unaccepted: i64) -> &'static str {
    use crate::rotation::{Desired, State};
    match r.state {
        _ if r.desired != Desired::Running && r.state.is_active() => "rekey resume",
        State::Migrating if unaccepted > 0 && progress.is_some_and(|p| p.outcome.is_some()) => {
            "rekey quarantine list"
        }
        State::Migrating => "rekey run",
        State::Migrated if unaccepted > 0 => "rekey quarantine list",
        State::Migrated => "rekey verify",
        State::Promoting => "rekey promote",
        State::Promoted => "rekey finalize",
        State::Finalizing => "rekey finalize --yes",
        State::RollingBack if unaccepted > 0 && progress.is_some_and(|p| p.outcome.is_some()) => {
            "rekey quarantine list"
        }
        State::RollingBack | State::Unpromoting => "rekey rollback --yes",
        State::Finalized | State::RolledBack => "rekey plan",
    }
}

fn text(s: &Status) {
    let Some(Printed { rotation: r, .. }) = &s.rotation else {
        println!("no rotation has been started");
        println!("next: {}", s.next);
        if let Some(head) = &s.event_head {
            println!("audit chain head: {head}");
        }
        return;
    };
    println!("rotation {}", r.id);
    println!("  {:<22}{} → {}", "keys", r.old_fingerprint, r.new_fingerprint);
    println!("  {:<22}{}, wanted: {}", "state", r.state, r.desired);
    println!("  {:<22}{} by {}", "started", r.created_at, r.operator);
    if let Some(deadline) = &r.deadline {
        println!("  {:<22}{deadline}", "deadline");
    }
    if let Some(p) = &s.progress {
        let outcome = p.outcome.map_or("under way", PassOutcome::as_str);
        println!("  {:<22}{}, {}, by {}: {outcome}", "pass", p.pass, p.pass_kind, p.addressing);
        println!("  {:<22}{} of {} rows", "done", thousands(p.rows_done), thousands(p.rows_total));
        let eta = p.eta_seconds.map_or_else(String::new, |s| format!(", {s:.0} s left"));
        println!("  {:<22}{} rows/s{eta}", "rate", thousands(p.rows_per_second as i64));
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
    if let Some(t) = &s.totals {
        println!();
        for (name, rows) in [
            ("re-encrypted", t.re_encrypted),
            ("already on the key", t.already_on_key),
            ("without a credential", t.null_rows),
            ("quarantined", t.quarantined),
            ("lost races, retried", t.lost_races),
        ] {
            println!("  {name:<22}{:>14} rows", thousands(rows));
        }
    }
    if !s.processes.is_empty() {
        println!();
        for p in &s.processes {
            println!("  {:<40} {} workers, heard of {:.0} s ago", p.process, p.workers, p.seen_seconds_ago);
            if let Some(why) = &p.throttle {
                println!("    {why}");
            }
        }
    }
    println!();
    println!("next: {}", s.next);
    if let Some(head) = &s.event_head {
        println!("audit chain head: {head}");
    }
}
