//! The report for people.

use serde_json::json;

use crate::cli::printable::printable;
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::jobs::report::Report;
use crate::rotation::RecordedSource;
use crate::store::ledger::Rotation;
use crate::store::report::Event;

/// Prints the report as one page that needs nothing else.
pub fn print(report: &Report) -> Result<()> {
    print!("{}", page(report)?);
    Ok(())
}

fn page(report: &Report) -> Result<String> {
    let mut out = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>rekey report</title><style>body{font:15px/1.5 system-ui;max-width:60rem;margin:2rem auto;\
         padding:0 1rem}table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #8884;padding:.3rem .6rem;text-align:left;\
         vertical-align:top}pre{overflow:auto}</style><h1>rekey report</h1>",
    );
    out += &format!(
        "<p>Audit chain: {} events, {}. Head <code>{}</code></p>",
        report.chain.events,
        if report.chain.intact { "intact" } else { "<b>broken</b>" },
        report.chain.head
    );
    for r in &report.rotations {
        let rotation = &r.rotation;
        out += &format!("<h2>Rotation {}</h2><table>", rotation.id);
        for (name, value) in [
            ("State", rotation.state.to_string()),
            ("Old key", key(rotation.old_fingerprint, &rotation.old_source, rotation.old_version.as_deref())),
            ("New key", key(rotation.new_fingerprint, &rotation.new_source, rotation.new_version.as_deref())),
            ("Promoted at", promoted(rotation)),
            ("Started", format!("{} by {}", rotation.created_at, rotation.operator)),
            ("Why", rotation.reason.clone().unwrap_or_default()),
        ] {
            out += &row(&[name, &value]);
        }
        out += "</table><h3>Controls</h3><table><tr><th>Control<th>Requirement<th>Evidence</tr>";
        for c in &r.controls {
            out += &row(&[c.control, c.requirement, &c.evidence]);
        }
        out += "</table><h3>Timeline</h3>";
        out += &timeline(&r.timeline);
        let counts = json!({
            "totals": r.totals, "rolled_back": r.totals_rolled_back, "proofs": r.proofs, "encryptions": r.encryptions,
            "quarantine": r.quarantine, "verify": r.last_verify,
        });
        let counts = serde_json::to_string_pretty(&counts)
            .map_err(|e| Error::new(Exit::Internal, format!("cannot print the report: {e}")))?;
        out += &format!("<h3>Counts</h3><pre>{}</pre>", escape(&counts));
    }
    if !report.other_events.is_empty() {
        out += "<h2>Events of no rotation</h2>";
        out += &timeline(&report.other_events);
    }
    if !report.cloudtrail.is_empty() {
        let queries = escape(&report.cloudtrail.join("\n"));
        out += &format!("<h2>The same from AWS's side</h2><pre>{queries}</pre>");
    }
    Ok(out)
}

fn key(fingerprint: Fingerprint, source: &RecordedSource, version: Option<&str>) -> String {
    let version = version.map(|version| format!(", version {version}")).unwrap_or_default();
    format!("{fingerprint}, {source}{version}")
}

fn promoted(r: &Rotation) -> String {
    let place = r.target_source.as_ref().filter(|_| r.promoting_at.is_some());
    let place = place.map(ToString::to_string).unwrap_or_default();
    match &r.promoted_version {
        Some(version) => format!("{place}, version {version}"),
        None => place,
    }
}

fn timeline(events: &[Event]) -> String {
    let mut out = String::from("<table><tr><th>#<th>When<th>What<th>Who<th>Why<th>Hash</tr>");
    for e in events {
        let why = e.reason.as_deref().unwrap_or("");
        out += &row(&[&e.seq.to_string(), &e.at, &e.action, &e.operator, why, &e.hash]);
    }
    out + "</table>"
}

fn row(cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{}", escape(cell))).collect();
    format!("<tr>{cells}</tr>")
}

fn escape(text: &str) -> String {
    printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
