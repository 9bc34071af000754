//! A status for people: where it is, the rotation, its keys and rows, who works on it. 24 lines with three processes.

use super::last_lines::{head_line, next_lines};
use crate::jobs::status::{CurrentKey, Heading, PassProgress, Status};
use crate::rotation::{PassOutcome, State};
use crate::store::ledger::process::Process;
use crate::telemetry::progress::thousands;
use crate::text::age::age;

/// A line of the text.
macro_rules! say {
    ($page:ident) => { $page.push('\n') };
    ($page:ident, $($what:tt)+) => {{
        $page.push_str(&format!($($what)+));
        $page.push('\n');
    }};
}

/// All of it; each line ends with a line end.
pub(super) fn text(s: &Status) -> String {
    let mut text = String::new();
    let page = &mut text;
    let standby = if s.server.in_recovery { ", a standby" } else { "" };
    say!(page, "PostgreSQL {}{standby}, {}", s.server.version, s.server.database);
    if !s.server.has_table {
        say!(page, "there is no table public.provider_connections in this database");
    }
    match &s.rotation {
        Some(heading) => rotation(page, s, heading),
        None => say!(page, "no rotation has been started"),
    }
    page.push_str(&next_lines(&s.next));
    page.push_str(&head_line(s.event_head.as_deref()));
    text
}

fn line(page: &mut String, name: &str, value: impl std::fmt::Display) {
    say!(page, "  {name:<22}{value}");
}

fn rotation(page: &mut String, s: &Status, Heading { rotation: r, .. }: &Heading) {
    say!(page, "rotation {}", r.id);
    line(page, "keys", format_args!("{} → {}", r.old_fingerprint, r.new_fingerprint));
    let back = if s.rollback_possible { "possible" } else { "no longer possible" };
    let back = if r.state == State::RolledBack { "done" } else { back };
    line(page, "state", format_args!("{}, wanted: {}; rollback: {back}", r.state, r.desired));
    for found in &s.contradictions {
        let said = match (&found.ledger, &found.trail) {
            (Some(ledger), trail) => format!(" ({ledger} and {})", trail.as_deref().unwrap_or("nothing")),
            _ => String::new(),
        };
        let on = found.claim.describe();
        line(page, "WARNING", format_args!("ledger and audit trail disagree on {on}{said}"));
    }
    if let Some(key) = &s.current_key {
        current_key(page, key);
    }
    line(page, "started", format_args!("{} by {}", r.created_at, r.operator));
    if let Some(origin) = &s.copied_from {
        line(page, "database", format_args!("copied from {origin}. Run commands there, not here"));
    }
    if let Some(deadline) = &r.deadline {
        let by = s.deadline_by.as_ref().map_or_else(String::new, |by| format!(", set by {by}"));
        line(page, "deadline", format_args!("{deadline}{by}"));
    }
    if let Some(pass) = &s.progress {
        progress(page, pass);
    }
    if let Some(c) = &s.chunks {
        line(page, "chunks", format_args!("{} done, {} leased, {} waiting", c.done, c.leased, c.waiting));
    }
    let throttled = s.processes.iter().filter(|p| p.throttle.is_some()).count();
    let of_all = match s.processes.len() {
        all if all > 1 && throttled > 0 => format!(" ({throttled} of {all} processes)"),
        _ => String::new(),
    };
    line(page, "throttle", format_args!("{}{of_all}", s.throttle.as_deref().unwrap_or("none")));
    say!(page);
    if let Some(totals) = &s.totals {
        for (name, rows) in [
            ("re-encrypted", totals.re_encrypted),
            ("already on the key", totals.already_on_key),
            ("without a credential", totals.null_rows),
            ("quarantined", totals.quarantined),
            ("lost races, retried", totals.lost_races),
        ] {
            say!(page, "  {name:<22}{:>14} rows", thousands(rows));
        }
    }
    s.processes.iter().for_each(|p| process(page, p));
    say!(page);
}

/// The key that the application is given. It reads it when it starts.
fn current_key(page: &mut String, key: &CurrentKey) {
    line(page, "application reads", format_args!("the {} key, {}", key.role, key.fingerprint));
    let (Some(promoted), Some(days)) = (&key.promoted, key.due_in_days) else { return };
    let due = if days >= 0 { format!("due in {days} days") } else { format!("{} days overdue", -days) };
    line(page, "promoted", format_args!("{} ago by {}; {due}", age(promoted.seconds_ago), promoted.operator));
}

fn progress(page: &mut String, p: &PassProgress) {
    let outcome = p.outcome.map_or("under way", PassOutcome::as_str);
    line(page, "pass", format_args!("{}, {}, by {}: {outcome}", p.pass, p.pass_kind, p.addressing));
    let rate = match p.rows_per_second {
        rate if rate > 0.0 && p.outcome.is_none() => format!(", {} rows/s", thousands(rate as i64)),
        _ => String::new(),
    };
    let eta = p.eta_seconds.map_or_else(String::new, |seconds| format!(", {} left", age(seconds)));
    let (done, total) = (thousands(p.rows_done), thousands(p.rows_total));
    let of = if p.estimated { "of about" } else { "of" };
    line(page, "done", format_args!("{done} {of} {total} rows, {} %{rate}{eta}", p.percent));
}

/// A dead process is shown without its last rate, which no longer means anything.
fn process(page: &mut String, p: &Process) {
    let by = p.operator.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
    if p.is_silent() {
        say!(page, "  {}{by}: no heartbeat for {}, dead or frozen", p.process, age(p.seen_seconds_ago));
        return;
    }
    let workers = if p.workers == 1 { "worker" } else { "workers" };
    say!(page, "  {}{by}: {} {workers}, {} rows/s", p.process, p.workers, thousands(p.rate as i64));
    if let Some(why) = &p.throttle {
        say!(page, "    {why}");
    }
}
