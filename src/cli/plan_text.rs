//! A plan for people: aligned, with units, refusals last and so in sight.

use super::columns::say;
use super::last_lines::{print_head, print_next};
use crate::jobs::plan::Plan;
use crate::rotation::Direction;
use crate::store::preflight::{Finding, Severity};
use crate::telemetry::progress::thousands;

pub fn print(outcome: &str, plan: &Plan) {
    println!("{outcome}");
    table(plan);
    sample(plan);
    run(plan);
    findings(plan);
    println!();
    print_next(&plan.next);
    print_head(plan.event_head.as_deref());
}

fn line(name: &str, value: &str, unit: &str) {
    println!("{}", format!("  {name:<24}{value:>14} {unit}").trim_end());
}

fn count(name: &str, n: f64, unit: &str) {
    line(name, &thousands(n as i64), unit);
}

fn size(name: &str, bytes: f64) {
    line(name, &format!("{:.1}", bytes / f64::from(1 << 20)), "MiB");
}

fn table(plan: &Plan) {
    let facts = &plan.report.facts;
    let standby = if plan.server.in_recovery { ", a standby" } else { "" };
    println!("\nPostgreSQL {}{standby}, {}", plan.server.version, plan.server.database);
    count("rows, estimated", facts.rows, "rows");
    line("without a credential", &format!("{:.1}", facts.null_fraction * 100.0), "%");
    count("mean credential", facts.credential_bytes, "bytes");
    size("table, with TOAST", facts.heap_bytes as f64);
    size("indexes", facts.index_bytes as f64);
    if let Some(r) = &plan.rotation {
        println!(
            "  {:<24}{} ({}, {} → {})",
            "active rotation", r.id, r.state, r.old_fingerprint, r.new_fingerprint
        );
    }
}

fn sample(plan: &Plan) {
    let Some(sample) = &plan.report.sample else { return };
    println!("\nkeys, on a sample of {} rows", sample.rows);
    let (source, target) = match plan.rotation.as_ref().map(|r| r.direction()) {
        Some(Direction::Backward) => ("on the new key", "on the old key"),
        _ => ("on the old key", "on the new key"),
    };
    count(source, sample.on_source as f64, "rows");
    count(target, sample.on_target as f64, "rows");
    count("neither key decrypts", sample.neither as f64, "rows");
    count("without a credential", sample.null as f64, "rows");
}

fn run(plan: &Plan) {
    let (run, forecast) = (&plan.run, &plan.forecast);
    println!("\na run");
    line("walks the table by", run.addressing, "");
    count("workers", run.workers as f64, "");
    count("chunk", f64::from(run.chunk_rows), "rows");
    count("maximum batch", f64::from(run.batch_rows), "rows");
    count("rows to re-encrypt", forecast.rows as f64, "rows");
    size("table growth, about", forecast.growth_bytes as f64);
    if let (Some(rate), Some(seconds)) = (forecast.rows_per_second, forecast.seconds) {
        count("rate, one worker", rate, "rows/s");
        line("duration, one worker", &format!("{seconds:.1}"), "s");
    }
    if let Some(wal) = forecast.wal_bytes {
        size("WAL", wal as f64);
    }
    if let Some(seconds) = forecast.lock_seconds {
        line("longest row locks", &format!("{:.1}", seconds * 1000.0), "ms");
    }
    match plan.rehearsed_rows {
        Some(rows) => println!(
            "  measured on {} rows, written and rolled back; the table grew by {:.1} MiB, which VACUUM will \
             free for reuse",
            thousands(rows as i64),
            forecast.rehearsal_bytes.unwrap_or(0) as f64 / f64::from(1 << 20)
        ),
        None => println!("  To measure rate, duration, WAL and locks, run `rekey plan --rehearse 20000`"),
    }
}

fn findings(plan: &Plan) {
    if plan.report.findings.is_empty() {
        return;
    }
    println!("\nfindings");
    for finding in plan.report.findings.iter().rev() {
        say(word(finding), &format!("{}: {}", finding.name, finding.message));
        say("", &format!("→ {}", finding.remedy));
        if finding.refuses() && finding.may_be_allowed() {
            say("", &format!("→ Or allow it with `--allow {}`", finding.name));
        }
    }
}

fn word(finding: &Finding) -> &'static str {
    match finding.severity {
        _ if finding.allowed => "allowed",
        Severity::Refuse | Severity::RefuseKey => "refused",
        Severity::Warn => "warning",
        Severity::Note => "note",
    }
}
