//! Prometheus' text exposition format 0.0.4, for the few metrics there are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::{BOUNDS, Histogram, Ledger, Recorded, process};
use crate::rotation::throttle::Signals;
use crate::rotation::{Activity, Counters, Progress, State};

/// All metrics, each with its HELP and TYPE.
pub(super) fn write(r: &Recorded) -> String {
    let mut out = Text { text: String::with_capacity(8192), database: r.database.clone() };
    out.head("rekey_build_info", "gauge", "Version and commit of this process.");
    let commit =
        option_env!("REKEY_BUILT_FROM").and_then(|built| built.split(' ').next()).unwrap_or("unknown");
    out.sample("rekey_build_info", &[("version", env!("CARGO_PKG_VERSION")), ("commit", commit)], 1.0);

    out.head("rekey_rows_total", "counter", "Rows this process finished, by outcome.");
    for (outcome, rows) in outcomes(&r.rows) {
        out.sample("rekey_rows_total", &[("outcome", outcome)], rows as f64);
    }
    out.head(
        "rekey_lost_races_total",
        "counter",
        "Rows that the application changed between rekey's read and write.",
    );
    out.sample("rekey_lost_races_total", &[], r.rows.lost_races as f64);
    out.head("rekey_written_bytes_total", "counter", "Bytes of new ciphertext committed by this process.");
    out.sample("rekey_written_bytes_total", &[], r.rows.bytes as f64);

    out.head("rekey_batches_total", "counter", "Batches of this process, by outcome.");
    out.sample("rekey_batches_total", &[("outcome", "committed")], r.batches as f64);
    out.sample("rekey_batches_total", &[("outcome", "rolled_back")], r.rolled_back as f64);
    out.histogram(
        "rekey_batch_duration_seconds",
        "Duration of a batch from BEGIN to the end of COMMIT.",
        &r.batch_seconds,
    );
    out.histogram("rekey_lock_duration_seconds", "Time a batch held its row locks.", &r.lock_seconds);

    out.head("rekey_retries_total", "counter", "Retries, by SQLSTATE; connection means no response.");
    for (sqlstate, count) in &r.retries {
        out.sample("rekey_retries_total", &[("sqlstate", sqlstate)], *count as f64);
    }
    out.head("rekey_lease_losses_total", "counter", "Leases of this process that another process took over.");
    out.sample("rekey_lease_losses_total", &[], r.lease_losses as f64);

    if let Some((progress, at)) = &r.progress {
        rotation(&mut out, progress);
        if !r.rested {
            out.head(
                "rekey_ledger_age_seconds",
                "gauge",
                "Seconds since the last successful read of schema \
                rekey.",
            );
            out.sample("rekey_ledger_age_seconds", &[], at.elapsed().as_secs_f64());
        }
    }
    out.head("rekey_throttled", "gauge", "1 while this reason slows down or pauses the work.");
    for (reason, active) in &r.throttles {
        out.sample("rekey_throttled", &[("reason", reason.as_str())], f64::from(u8::from(*active)));
    }
    if let Some(signals) = &r.signals {
        database(&mut out, signals);
    }
    if let Some(code) = r.exit_code {
        out.head("rekey_exit_code", "gauge", "Exit code of the process; RUNBOOK.md explains each.");
        out.sample("rekey_exit_code", &[], f64::from(code));
    }
    if let Some((ledger, _)) = &r.ledger {
        standing(&mut out, ledger);
    }
    for gauge in process::look() {
        out.head(gauge.name, gauge.kind, gauge.help);
        out.sample(gauge.name, &[], gauge.value);
    }
    out.text
}

fn standing(out: &mut Text, ledger: &Ledger) {
    if let Some(state) = ledger.state {
        out.head("rekey_rotation_state", "gauge", "1 for the state that the rotation is in.");
        for each in State::ALL {
            out.sample(
                "rekey_rotation_state",
                &[("state", each.as_str())],
                f64::from(u8::from(*each == state)),
            );
        }
    }
    if !ledger.successes.is_empty() {
        let name = "rekey_last_success_timestamp_seconds";
        out.head(
            name,
            "gauge",
            "When a command last reached its goal, by the ledger, in seconds since 1970.",
        );
        for (command, at) in &ledger.successes {
            out.sample(name, &[("command", command)], *at);
        }
    }
    if let Some(key) = &ledger.key {
        out.head(
            "rekey_key_age_seconds",
            "gauge",
            "Age of the key that the application reads, since its first trace.",
        );
        out.sample("rekey_key_age_seconds", &[("fingerprint", &key.fingerprint)], key.age_seconds);
        let name = "rekey_key_due_timestamp_seconds";
        out.head(name, "gauge", "When that key should be replaced, in seconds since 1970.");
        out.sample(name, &[("fingerprint", &key.fingerprint)], key.due);
    }
}

fn rotation(out: &mut Text, p: &Progress) {
    out.head("rekey_rotation_rows", "gauge", "Rows of the rotation over all processes, by outcome.");
    for (outcome, rows) in outcomes(&p.totals) {
        out.sample("rekey_rotation_rows", &[("outcome", outcome)], rows as f64);
    }
    out.head("rekey_rotation_rows_expected", "gauge", "Estimated rows in the table, from the planner.");
    out.sample("rekey_rotation_rows_expected", &[], p.rows_total as f64);
    out.head(
        "rekey_rotation_rows_per_second",
        "gauge",
        "Rows per second of all processes over the last \
        seconds.",
    );
    out.sample("rekey_rotation_rows_per_second", &[], p.rows_per_second);
    if let Some(eta) = p.eta_seconds {
        out.head("rekey_rotation_eta_seconds", "gauge", "Estimated seconds left at the current rate.");
        out.sample("rekey_rotation_eta_seconds", &[], eta);
    }
    out.head("rekey_rotation_pass", "gauge", "Number of the current pass.");
    let kind = p.activity.map_or("", Activity::as_str);
    out.sample("rekey_rotation_pass", &[("kind", kind)], f64::from(p.pass));
}

fn database(out: &mut Text, signals: &Signals) {
    // Several replicas may share a name: the one furthest behind speaks for them.
    let mut lag = BTreeMap::new();
    for replica in &signals.replicas {
        let (bytes, behind) = lag.entry(replica.name.as_str()).or_insert((0, Duration::ZERO));
        *bytes = replica.behind_bytes.max(*bytes);
        *behind = replica.behind.max(*behind);
    }
    if !lag.is_empty() {
        out.head("rekey_replication_lag_bytes", "gauge", "Bytes of WAL that this replica has not replayed.");
        for (name, (bytes, _)) in &lag {
            out.sample("rekey_replication_lag_bytes", &[("replica", name)], *bytes as f64);
        }
        out.head("rekey_replication_lag_seconds", "gauge", "Replica lag in seconds.");
        for (name, (_, behind)) in &lag {
            out.sample("rekey_replication_lag_seconds", &[("replica", name)], behind.as_secs_f64());
        }
    }
    if !signals.slots.is_empty() {
        out.head(
            "rekey_slot_retained_bytes",
            "gauge",
            "Bytes of WAL that the server retains for this \
            replication slot.",
        );
        for slot in &signals.slots {
            out.sample("rekey_slot_retained_bytes", &[("slot", &slot.name)], slot.retained_bytes as f64);
        }
    }
    out.head("rekey_blocked_sessions", "gauge", "Sessions waiting for a lock of this process.");
    out.sample("rekey_blocked_sessions", &[], f64::from(signals.blocked));
}

fn outcomes(c: &Counters) -> [(&'static str, i64); 4] {
    [
        ("re_encrypted", c.re_encrypted),
        ("already_on_key", c.already_on_key),
        ("null", c.null_rows),
        ("quarantined", c.quarantined),
    ]
}

struct Text {
    text: String,
    /// Where there is one, each of rekey's own series bears it.
    database: Option<String>,
}

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let database = self.database.as_deref().filter(|_| name.starts_with("rekey_"));
        let labels = labels.iter().copied().chain(database.map(|database| ("database", database)));
        self.text.push_str(name);
        let mut before = '{';
        for (label, text) in labels {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{before}{label}=\"{text}\"");
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn histogram(&mut self, name: &str, help: &str, h: &Histogram) {
        self.head(name, "histogram", help);
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        for (bound, count) in BOUNDS.iter().zip(h.counts) {
            below += count;
            self.sample(&bucket, &[("le", &bound.to_string())], below as f64);
        }
        self.sample(&bucket, &[("le", "+Inf")], h.count as f64);
        self.sample(&format!("{name}_sum"), &[], h.sum);
        self.sample(&format!("{name}_count"), &[], h.count as f64);
    }
}
