//! The end of `run` and `rollback`: rows by outcome, seconds, rows a second, the next command, the audit chain's head.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgConnection;

use super::context::Context;
use crate::engine::End;
use crate::error::{Exit, Result};
use crate::rotation::{Counters, Direction, State};
use crate::store::audit;
use crate::store::ledger::{Rotation, chunk, quarantine, rotation};
use crate::telemetry::progress::thousands;

/// What is printed.
#[derive(Serialize)]
struct Summary {
    outcome: &'static str,
    exit_code: u8,
    meaning: &'static str,
    rotation: Rotation,
    totals: Counters,
    unaccepted: i64,
    seconds: f64,
    rows_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<String>,
    next: Vec<&'static str>,
    event_head: String,
}

/// How the engine's work ended.
pub struct Ended {
    /// Which way rows moved.
    pub direction: Direction,
    /// Why it ended.
    pub end: End,
    /// How long it took.
    pub took: Duration,
    /// Totals before it.
    pub before: Counters,
    /// What became of the application's cache, where that was to be looked after.
    pub cache: Option<String>,
}

/// Prints how it ended and returns the exit code.
pub async fn print(
    context: &Context,
    conn: &mut PgConnection,
    rotation_id: uuid::Uuid,
    ended: Ended,
) -> Result<Exit> {
    let Ended { direction, end, took, before, cache } = ended;
    let rotation = rotation::by_id(conn, rotation_id).await?;
    let totals = chunk::totals(conn, rotation_id, direction).await?;
    let unaccepted = quarantine::unaccepted(conn, rotation_id).await?;
    // Whoever wakes up after a rollback must not say that its goal holds.
    let turned = end == End::Clean && rotation.state.direction() != direction;
    let end = if turned { End::Superseded(rotation.state) } else { end };
    let other_bytes =
        direction == Direction::Backward && audit::happened(conn, rotation_id, "other_bytes").await?;
    let (exit, outcome, mut next) =
        outcome(&end, direction, rotation.state, (unaccepted, totals.quarantined - unaccepted), other_bytes);
    if exit == Exit::Ok && direction == Direction::Backward && rotation.promoting_at.is_some() {
        // It may have read the new key, and have it in memory.
        next.insert(0, "restart the application");
    }
    context.metrics.settled(totals);
    context.last_word.say(outcome, next.first().copied());
    let seconds = took.as_secs_f64();
    let (seq, hash) = audit::head(conn).await?;
    let summary = Summary {
        outcome,
        exit_code: exit.code(),
        meaning: exit.meaning(),
        rows_per_second: ((totals.re_encrypted - before.re_encrypted) as f64 / seconds.max(1e-9)).round(),
        rotation,
        totals,
        unaccepted,
        seconds: (seconds * 1000.0).round() / 1000.0,
        cache,
        next,
        event_head: format!("{seq}:{hash}"),
    };
    if context.json() {
        context.print_json(&summary)?;
    } else {
        text(&summary);
    }
    Ok(exit)
}

fn outcome(
    end: &End,
    direction: Direction,
    state: State,
    (unaccepted, accepted): (i64, i64),
    other_bytes: bool,
) -> (Exit, &'static str, Vec<&'static str>) {
    let again = match direction {
        Direction::Forward => "rekey run",
        Direction::Backward => "rekey rollback --yes",
    };
    match end {
        End::Clean if unaccepted > 0 => (
            Exit::Quarantined,
            "finished, but rows are quarantined",
            vec![
                "rekey quarantine list",
                "rekey quarantine retry",
                "rekey quarantine accept ID --reason TEXT",
            ],
        ),
        End::Clean if other_bytes => (
            Exit::VerifyFailed,
            "rows of ours held other bytes than before the rotation",
            vec!["rekey report"],
        ),
        End::Clean if direction == Direction::Backward => {
            let outcome = match accepted {
                0 => "every row is on the old key",
                _ => "every row is on the old key, except those that were accepted",
            };
            (Exit::Ok, outcome, vec!["rekey verify"])
        }
        End::Clean => {
            let outcome = match accepted {
                0 => "every row is on the new key",
                _ => "every row is on the new key, except those that were accepted",
            };
            let then = if state == State::Promoted { "rekey finalize" } else { "rekey promote" };
            (Exit::Ok, outcome, vec!["rekey verify", then])
        }
        End::Unsettled => (
            Exit::VerifyFailed,
            "writers kept saving rows on the old key: stop them, then go on",
            vec![again],
        ),
        End::Signalled => (Exit::Signalled, "stopped by a signal, checkpoint saved", vec![again]),
        End::Aborted => {
            (Exit::Stopped, "aborted, checkpoint saved", vec!["rekey resume", "rekey rollback --yes"])
        }
        End::PastDeadline => (
            Exit::Stopped,
            "past its deadline, checkpoint saved",
            match direction {
                Direction::Forward => vec!["rekey resume", "rekey run --deadline 2h"],
                Direction::Backward => vec!["rekey resume", "rekey rollback --yes --deadline 2h"],
            },
        ),
        End::Superseded(State::RollingBack | State::Unpromoting | State::RolledBack) => {
            (Exit::Busy, "the rotation is being rolled back", vec!["rekey status", "rekey rollback --yes"])
        }
        End::Superseded(State::Promoting | State::Finalizing) => {
            (Exit::Busy, "the rotation is being promoted or finalized", vec!["rekey status", again])
        }
        End::Superseded(_) => (Exit::State, "the rotation has moved on", vec!["rekey status"]),
    }
}

fn text(s: &Summary) {
    println!("{}", s.outcome);
    println!();
    for (name, rows) in [
        ("re-encrypted", s.totals.re_encrypted),
        ("already on the key", s.totals.already_on_key),
        ("without a credential", s.totals.null_rows),
        ("quarantined", s.totals.quarantined),
        ("lost races, retried", s.totals.lost_races),
    ] {
        println!("  {name:<22}{:>14} rows", thousands(rows));
    }
    println!("  {:<22}{:>14.1} s", "time", s.seconds);
    println!("  {:<22}{:>14} rows/s", "rate", thousands(s.rows_per_second as i64));
    println!("  {:<22}{:>14}", "state", s.rotation.state);
    println!("  {:<22}  {}", "rotation", s.rotation.id);
    if let Some(cache) = &s.cache {
        println!("  {cache}");
    }
    println!();
    for (i, next) in s.next.iter().enumerate() {
        println!("{} {next}", if i == 0 { "next:" } else { "     " });
    }
    println!("audit chain head: {}", s.event_head);
}
