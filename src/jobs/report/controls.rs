//! Controls of the standards that the guide names, and the recorded fact that supports each.

use serde::Serialize;
use serde_json::Value;

use crate::rotation::Direction;
use crate::store::ledger::Rotation;
use crate::store::report::{Chain, Encryptions, Event};

/// One requirement and its evidence.
#[derive(Serialize)]
pub struct Control {
    /// Standard and number.
    pub control: &'static str,
    /// What it asks for.
    pub requirement: &'static str,
    /// The recorded fact, or that there is none.
    pub evidence: String,
}

const MISSING: &str = "not evidenced";

/// The controls of the guide (its section 7.1), each with what supports it.
pub fn of(
    r: &Rotation,
    timeline: &[Event],
    encryptions: &[Encryptions],
    verify: Option<&Value>,
    chain: &Chain,
) -> Vec<Control> {
    let event = |action: &str| timeline.iter().rev().find(|e| e.action == action);
    let at = |action: &str| {
        event(action)
            .map_or_else(|| MISSING.to_owned(), |e| format!("event {} at {} by {}", e.seq, e.at, e.operator))
    };
    let control = |control, requirement, evidence| Control { control, requirement, evidence };
    vec![
        control(
            "PCI-DSS 3.6",
            "keys are changed at the end of their cryptoperiod",
            match r.direction() {
                Direction::Forward => at("promoted"),
                Direction::Backward => format!("{MISSING}: the rotation was rolled back"),
            },
        ),
        control(
            "PCI-DSS 3.6",
            "retired keys are kept only as long as needed, and identified",
            event("finalized")
                .and_then(|e| e.detail["retired_label"].as_str())
                .map_or_else(|| MISSING.to_owned(), |l| format!("label {l}")),
        ),
        control(
            "PCI-DSS 3.6",
            "key-custody actions name a person and a reason",
            match &r.reason {
                Some(reason) => format!("started by {}: {reason}", r.operator),
                None => format!("started by {}; reason {MISSING}", r.operator),
            },
        ),
        control(
            "SOC 2 CC6",
            "changes to keys are authorised and logged",
            format!(
                "{} events, hash chain {}",
                timeline.len(),
                if chain.intact { "intact" } else { "BROKEN" }
            ),
        ),
        control(
            "NIST SP 800-57",
            "re-encryption is complete and verified",
            match (r.direction(), r.verified_clean, &r.verified_at, verify) {
                (Direction::Forward, Some(true), Some(at), Some(v)) => {
                    format!("clean verify at {at}: {} rows, {} byte-identical", v["rows"], v["identical"])
                }
                _ => MISSING.to_owned(),
            },
        ),
        control(
            "NIST SP 800-57",
            "old and new keys are distinct and identified",
            format!("fingerprints {} and {}", r.old_fingerprint, r.new_fingerprint),
        ),
        control(
            "NIST SP 800-38D §8.3",
            "at most 2^32 encryptions with random 96-bit IVs under one key",
            ivs(encryptions),
        ),
    ]
}

/// The estimate under each key, warned of from half the limit on.
fn ivs(encryptions: &[Encryptions]) -> String {
    let limit = 2f64.powi(32);
    let told: Vec<String> = encryptions
        .iter()
        .map(|e| {
            let n = e.by_rekey + e.by_application;
            let warning = if n as f64 >= limit / 2.0 { ": WARNING, rotate to a fresh key" } else { "" };
            format!(
                "under {} about {n} ({} by rekey), {:.6} % of 2^32{warning}",
                e.fingerprint,
                e.by_rekey,
                n as f64 / limit * 100.0
            )
        })
        .collect();
    told.join("; ")
}
