//! Controls of the standards that the guide names, by their current numbers, and the recorded fact that supports each.

use serde::Serialize;

use super::story::VerifyOf;
use crate::rotation::Direction;
use crate::store::ledger::Rotation;
use crate::store::ledger::quarantine::Entry;
use crate::store::report::{Chain, Encryptions, Event};

/// One requirement and its evidence.
#[derive(Serialize)]
pub struct Control {
    /// Standard and number.
    pub control: &'static str,
    /// What the guide calls it (its section 7.1), which numbers by an older edition.
    pub guide: &'static str,
    /// What it asks for.
    pub requirement: &'static str,
    /// The recorded fact, or that there is none.
    pub evidence: String,
    /// Whether there is one.
    pub evidenced: bool,
}

/// What controls are evidenced by.
pub struct Facts<'a> {
    /// As recorded.
    pub rotation: &'a Rotation,
    /// Its events.
    pub timeline: &'a [Event],
    /// Under the old key, then under the new one.
    pub encryptions: &'a [Encryptions],
    /// The last verify on record.
    pub verify: Option<&'a VerifyOf>,
    /// The audit chain.
    pub chain: &'a Chain,
    /// Rows that neither key decrypts.
    pub quarantine: &'a [Entry],
}

const MISSING: &str = "not evidenced";

/// The controls, each with what supports it.
pub fn of(f: &Facts<'_>) -> Vec<Control> {
    let control = |control, guide, requirement, evidence: Result<String, &str>| Control {
        control,
        guide,
        requirement,
        evidenced: evidence.is_ok(),
        evidence: match evidence {
            Ok(fact) => fact,
            Err("") => MISSING.to_owned(),
            Err(why) => format!("{MISSING}: {why}"),
        },
    };
    let (pci, nist) = ("PCI-DSS 3.6", "NIST SP 800-57");
    vec![
        control(
            "PCI DSS v4.0.1, 3.6.1",
            pci,
            "Keys are protected against disclosure; each use of one is known",
            f.custody(),
        ),
        control(
            "PCI DSS v4.0.1, 3.7.4",
            pci,
            "Keys are changed at the end of their cryptoperiod",
            f.changed(),
        ),
        control(
            "PCI DSS v4.0.1, 3.7.5",
            pci,
            "Keys that are no longer used are retired, kept only as long as needed, and identified",
            f.retired(),
        ),
        control(
            "SOC 2, CC6.1",
            "SOC 2 CC6.1",
            "Changes to keys are authorised, and name a person and a reason",
            f.authorised(),
        ),
        control(
            "SOC 2, CC6.1",
            "SOC 2 CC6.1",
            "The log of these changes cannot be altered unseen",
            f.logged(),
        ),
        control("NIST SP 800-57 part 1 rev. 5", nist, "Re-encryption is complete and verified", f.verified()),
        control(
            "NIST SP 800-57 part 1 rev. 5",
            nist,
            "The old and the new key are distinct and identified",
            Ok(format!("fingerprints {} and {}", f.rotation.old_fingerprint, f.rotation.new_fingerprint)),
        ),
        control(
            "NIST SP 800-38D, 8.3",
            "none",
            "At most 2^32 encryptions with random 96-bit IVs under one key",
            Ok(ivs(f.encryptions)),
        ),
        control(
            "GDPR, Article 32",
            "GDPR Article 32",
            "Personal data is encrypted, and the measure is tested",
            f.protected(),
        ),
    ]
}

impl Facts<'_> {
    fn last(&self, action: &str) -> Option<&Event> {
        self.timeline.iter().rev().find(|e| e.action == action)
    }

    fn custody(&self) -> Result<String, &'static str> {
        let reads = self.timeline.iter().filter(|e| e.action == "access").count();
        if reads == 0 {
            return Err("no event records that a key was read");
        }
        let r = self.rotation;
        Ok(format!(
            "keys at {} and {}; {reads} {} of keys on record, by fingerprint and never by value",
            r.old_source,
            r.new_source,
            if reads == 1 { "use" } else { "uses" }
        ))
    }

    fn changed(&self) -> Result<String, &'static str> {
        if self.rotation.direction() == Direction::Backward {
            return Err("the rotation was rolled back");
        }
        let e = self.last("promoted").ok_or("the new key is not promoted")?;
        Ok(format!("event {} at {} by {}", e.seq, e.at, e.operator))
    }

    fn retired(&self) -> Result<String, &'static str> {
        let e = self.last("finalized").ok_or("the rotation is not finalized")?;
        if let Some(label) = e.detail["retired_label"].as_str() {
            return Ok(format!("event {}: label {label}", e.seq));
        }
        // A file's former text, kept beside it.
        let kept = ["retired_copy", "retired_file", "kept_file", "kept"].map(|name| e.detail[name].as_str());
        match kept.into_iter().flatten().next() {
            Some(kept) => Ok(format!("event {}: kept at {kept}", e.seq)),
            None => Err("rekey kept no copy of the old key"),
        }
    }

    fn authorised(&self) -> Result<String, &'static str> {
        let r = self.rotation;
        let reason = r.reason.as_deref().ok_or("no reason was given with --reason")?;
        Ok(format!("started by {}: {reason}", r.operator))
    }

    fn logged(&self) -> Result<String, &'static str> {
        if !self.chain.intact {
            return Err("the hash chain is BROKEN");
        }
        Ok(format!("{} events of this rotation, hash chain intact", self.timeline.len()))
    }

    fn verified(&self) -> Result<String, &'static str> {
        let r = self.rotation;
        if r.direction() == Direction::Backward {
            return Err("the rotation was rolled back");
        }
        let v = self.verify.filter(|_| r.verified_clean.is_some()).ok_or("no verify is recorded")?;
        if !v.found.clean || r.verified_clean != Some(true) {
            return Err("the last verify was not clean");
        }
        Ok(format!(
            "event {}: clean verify at {}: {} rows, {} byte-identical",
            v.seq, v.at, v.found.rows, v.found.identical
        ))
    }

    fn protected(&self) -> Result<String, &'static str> {
        self.verified()?;
        let open = self.quarantine.iter().filter(|row| !row.accepted).count();
        match open {
            0 => {
                Ok("AES-256-GCM; every credential was decrypted with the expected key by that verify"
                    .to_owned())
            }
            _ => Err("rows that no key decrypts are not accepted"),
        }
    }
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
