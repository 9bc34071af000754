//! A status for people: where it is, the rotation, its keys and rows, who works on it. 24 lines with three processes.

use super::age::age;
use super::last_lines::{print_head, print_next};
use crate::jobs::status::{CurrentKey, Heading, PassProgress, Status};
use crate::rotation::{PassOutcome, State};
use crate::store::ledger::process::Process;
use crate::telemetry::progress::thousands;

pub(super) fn print(s: &Status) {
    let standby = if s.server.in_recovery { ", a standby" } else { "" };
    println!("PostgreSQL {}{standby}, {}", s.server.version, s.server.database);
    if !s.server.has_table {
        println!("there is no table public.provider_connections in this database");
    }
    match &s.rotation {
        Some(heading) => rotation(s, heading),
        None => println!("no rotation has been started"),
    }
    print_next(&s.next);
    print_head(s.event_head.as_deref());
}

fn line(name: &str, value: impl std::fmt::Display) {
    println!("  {name:<22}{value}");
}

fn rotation(s: &Status, Heading { rotation: r, .. }: &Heading) {
    println!("rotation {}", r.id);
    line("keys", format_args!("{} → {}", r.old_fingerprint, r.new_fingerprint));
    let back = if s.rollback_possible { "possible" } else { "no longer possible" };
    let back = if r.state == State::RolledBack { "done" } else { back };
    line("state", format_args!("{}, wanted: {}; rollback: {back}", r.state, r.desired));
    if let Some(key) = &s.current_key {
        current_key(key);
    }
    line("started", format_args!("{} by {}", r.created_at, r.operator));
    if let Some(origin) = &s.copied_from {
        line("database", format_args!("copied from {origin}: act there, not here"));
    }
    if let Some(deadline) = &r.deadline {
        let by = s.deadline_by.as_ref().map_or_else(String::new, |by| format!(", set by {by}"));
        line("deadline", format_args!("{deadline}{by}"));
    }
    if let Some(pass) = &s.progress {
        progress(pass);
    }
    if let Some(c) = &s.chunks {
        line("chunks", format_args!("{} done, {} leased, {} waiting", c.done, c.leased, c.waiting));
    }
    let throttled = s.processes.iter().filter(|p| p.throttle.is_some()).count();
    let of_all = match s.processes.len() {
        all if all > 1 && throttled > 0 => format!(" ({throttled} of {all} processes)"),
        _ => String::new(),
    };
    line("throttle", format_args!("{}{of_all}", s.throttle.as_deref().unwrap_or("none")));
    println!();
    if let Some(totals) = &s.totals {
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
    s.processes.iter().for_each(process);
    println!();
}

/// The key that the application is given. It reads it when it starts.
fn current_key(key: &CurrentKey) {
    line("application reads", format_args!("the {} key, {}", key.role, key.fingerprint));
    let (Some(promoted), Some(days)) = (&key.promoted, key.due_in_days) else { return };
    let due = if days >= 0 { format!("due in {days} days") } else { format!("{} days overdue", -days) };
    line("promoted", format_args!("{} ago by {}; {due}", age(promoted.seconds_ago), promoted.operator));
}

fn progress(p: &PassProgress) {
    let outcome = p.outcome.map_or("under way", PassOutcome::as_str);
    line("pass", format_args!("{}, {}, by {}: {outcome}", p.pass, p.pass_kind, p.addressing));
    let rate = match p.rows_per_second {
        rate if rate > 0.0 && p.outcome.is_none() => format!(", {} rows/s", thousands(rate as i64)),
        _ => String::new(),
    };
    let eta = p.eta_seconds.map_or_else(String::new, |seconds| format!(", {} left", age(seconds)));
    let (done, total) = (thousands(p.rows_done), thousands(p.rows_total));
    line("done", format_args!("{done} of {total} rows, {} %{rate}{eta}", p.percent));
}

/// A dead process is told apart: its last rate says nothing any more.
fn process(p: &Process) {
    let by = p.operator.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
    if p.is_silent() {
        println!("  {}{by}: silent for {}, dead or frozen", p.process, age(p.seen_seconds_ago));
        return;
    }
    let workers = if p.workers == 1 { "worker" } else { "workers" };
    println!("  {}{by}: {} {workers}, {} rows/s", p.process, p.workers, thousands(p.rate as i64));
    if let Some(why) = &p.throttle {
        println!("    {why}");
    }
}
