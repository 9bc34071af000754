//! The end of `run`, `rollback` and `quarantine retry` in words: rows by outcome, seconds, rows a second, the next
//! command, the audit chain's head.

use serde::Serialize;

use super::context::Context;
use super::envelope::Document;
use super::last_lines::{print_head, print_next};
use crate::error::{Exit, Result};
use crate::jobs::{Goal, Settled};
use crate::rotation::{Counters, Direction, State, Step};
use crate::store::ledger::Rotation;
use crate::telemetry::progress::thousands;

/// What is printed.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(skip)]
    outcome: &'a str,
    rotation: &'a Rotation,
    totals: Counters,
    unaccepted: i64,
    seconds: f64,
    rows_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'a str>,
    #[serde(skip)]
    next: &'a [Step],
    event_head: &'a str,
}

/// Prints how it ended and returns the exit code.
pub fn print(context: &Context, settled: &Settled) -> Result<Exit> {
    let exit = settled.goal.exit();
    let accepted = settled.totals.quarantined - settled.unaccepted;
    let outcome = match settled.goal {
        Goal::ReachedButAccepted => format!(
            "every row is on the {} key, except {} that an operator accepted",
            settled.direction.target(),
            thousands(accepted)
        ),
        goal => outcome(goal, settled.direction).to_owned(),
    };
    context.say_next(&outcome, &settled.next);
    let summary = Summary {
        outcome: &outcome,
        rotation: &settled.rotation,
        totals: settled.totals,
        unaccepted: settled.unaccepted,
        seconds: (settled.took.as_secs_f64() * 1000.0).round() / 1000.0,
        rows_per_second: settled.rows_per_second,
        cache: settled.cache.as_deref(),
        next: &settled.next,
        event_head: &settled.event_head,
    };
    if context.json() {
        context.print_json(&Document::new(exit, &summary)?.outcome(&outcome).next(&settled.next))?;
    } else {
        text(&summary);
    }
    Ok(exit)
}

fn outcome(goal: Goal, direction: Direction) -> &'static str {
    match (goal, direction) {
        (Goal::Reached | Goal::ReachedButAccepted, Direction::Forward) => "every row is on the new key",
        (Goal::Reached | Goal::ReachedButAccepted, Direction::Backward) => "every row is on the old key",
        (Goal::Quarantined, _) => "finished, but rows are quarantined",
        (Goal::OtherBytes, _) => "Rows written by rekey didn't match their pre-rotation contents",
        (Goal::Unsettled, _) => "Writers keep saving rows under the wrong key. Stop them, then rerun",
        (Goal::Signalled, _) => "stopped by a signal, checkpoint saved",
        (Goal::Aborted, _) => "aborted, checkpoint saved",
        (Goal::PastDeadline, Direction::Forward) => {
            "past the deadline, checkpoint saved; the application can't decrypt the rows on the new key yet"
        }
        (Goal::PastDeadline, Direction::Backward) => "past the deadline, checkpoint saved",
        (Goal::Superseded(State::RollingBack | State::Unpromoting | State::RolledBack), _) => {
            "the rotation is being rolled back"
        }
        (Goal::Superseded(State::Promoting | State::Finalizing), _) => {
            "the rotation is being promoted or finalized"
        }
        (Goal::Superseded(_), _) => "another process changed the rotation's state",
    }
}

fn text(s: &Summary<'_>) {
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
    if let Some((role, fingerprint)) = s.rotation.application_reads() {
        println!("  {:<22}  the {role} key, {fingerprint}", "application reads");
    }
    if let Some(cache) = &s.cache {
        println!("  {cache}");
    }
    println!();
    print_next(s.next);
    print_head(Some(s.event_head));
}
