//! What the timeline of a rotation tells: how long each state took, when work was paused, and what each verify found.
//! Pure; the events are read in `store`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rotation::State;
use crate::store::ledger::retention::{PROOFS_REMOVED, Removed};
use crate::store::report::{Event, Proofs};

/// A state that the rotation was in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// Which.
    pub state: State,
    /// When it began, RFC 3339.
    pub from: String,
    /// When it ended; none of the last one.
    pub until: Option<String>,
    /// Seconds from the start of the rotation to the start of the state.
    pub after_seconds: f64,
    /// How long it took; up to the report where the rotation is still in it, and none where it is over.
    pub seconds: Option<f64>,
    /// The operator who brought it about.
    pub operator: String,
}

/// A time in which workers were not to work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pause {
    /// `pause` or `abort`.
    pub kind: String,
    /// When it began, RFC 3339.
    pub from: String,
    /// When it ended; none where it has not.
    pub until: Option<String>,
    /// How long it took, up to the report where it has not ended.
    pub seconds: f64,
    /// Who stopped the work.
    pub operator: String,
    /// Why.
    pub reason: Option<String>,
    /// What ended it: `resume` or a state.
    pub ended_by: Option<String>,
}

/// A verify that is on record.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyOf {
    /// Its event.
    pub seq: i64,
    /// When, RFC 3339.
    pub at: String,
    /// Who.
    pub operator: String,
    /// The state that the rotation was in.
    pub state: Option<State>,
    /// What it found.
    pub found: Found,
    /// In words.
    pub verdict: String,
}

/// The figures of a verify; [`VerifyReport`](crate::engine::VerifyReport) as the ledger keeps it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Found {
    /// Nothing was wrong.
    pub clean: bool,
    /// Rows visible.
    pub rows: i64,
    /// Byte-identical to what was there before.
    pub identical: i64,
    /// Written by something else since.
    pub changed_since: i64,
    /// Inserted since.
    pub inserted_since: i64,
    /// Deleted since.
    pub deleted_since: i64,
    /// On the key before the rotation reached them.
    pub already_on_key: i64,
    /// Without a credential.
    pub null: i64,
    /// On the wrong key.
    pub wrong_key: i64,
    /// No key opens them.
    pub unreadable: i64,
    /// No key opens them, and an operator accepted that.
    pub accepted: i64,
    /// Written by rekey with other bytes.
    pub other_bytes: i64,
    /// In the table, and not found by id.
    pub unseen: i64,
    /// Whether bytes were compared.
    pub bytes_compared: bool,
    /// The first rows of each kind of trouble.
    pub examples: BTreeMap<String, Vec<String>>,
    /// Seconds it took.
    pub seconds: f64,
}

impl Found {
    /// Rows with a credential.
    pub fn credentials(&self) -> i64 {
        self.rows - self.null
    }

    /// What is wrong, in words; empty where nothing is.
    pub fn troubles(&self) -> Vec<String> {
        let of = self.credentials();
        [
            (self.unreadable, "decrypts with no key", "decrypt with no key"),
            (self.wrong_key, "is on the wrong key", "are on the wrong key"),
            (self.other_bytes, "holds other bytes than before", "hold other bytes than before"),
            (self.unseen, "cannot be found by its id", "cannot be found by their ids"),
        ]
        .into_iter()
        .filter(|(n, ..)| *n > 0)
        .map(|(n, one, several)| count_of(n, of, if n == 1 { one } else { several }))
        .collect()
    }
}

/// `5 of 80 200 rows decrypt with no key`.
pub fn count_of(n: i64, of: i64, do_what: &str) -> String {
    use crate::telemetry::progress::thousands;
    format!("{} of {} {} {do_what}", thousands(n), thousands(of), if of == 1 { "row" } else { "rows" })
}

/// What the proofs came to that were removed since, and when that was.
pub fn proofs_removed(timeline: &[Event]) -> Option<(Vec<Proofs>, String)> {
    let event = timeline.iter().find(|e| e.action == PROOFS_REMOVED)?;
    let removed = Removed::deserialize(&event.detail).ok()?;
    Some((removed.proofs, event.at.clone()))
}

/// The states, in their order. The rotation's `start` is the first.
pub fn phases(timeline: &[Event], now: &str) -> Vec<Phase> {
    let mut phases: Vec<Phase> = Vec::new();
    for e in timeline {
        let state = if e.action == "start" { Some(State::Migrating) } else { e.action.parse().ok() };
        let Some(state) = state else { continue };
        match phases.last_mut() {
            // A promotion that had to be repeated is written again.
            Some(last) if last.state == state => continue,
            Some(last) => {
                last.until = Some(e.at.clone());
                last.seconds = Some(between(&last.from, &e.at));
            }
            None => {}
        }
        let start = phases.first().map_or(e.at.as_str(), |first| first.from.as_str());
        let after_seconds = between(start, &e.at);
        phases.push(Phase {
            state,
            from: e.at.clone(),
            until: None,
            after_seconds,
            seconds: state.is_active().then(|| between(&e.at, now)),
            operator: e.operator.clone(),
        });
    }
    phases
}

/// When workers were stopped by an operator.
pub fn pauses(timeline: &[Event], now: &str) -> Vec<Pause> {
    let mut pauses: Vec<Pause> = Vec::new();
    for e in timeline {
        let begins = matches!(e.action.as_str(), "pause" | "abort");
        let ends = begins || matches!(e.action.as_str(), "resume" | "rolling_back" | "rolled_back");
        let open = pauses.last_mut().filter(|pause| pause.until.is_none() && ends);
        if let Some(pause) = open {
            pause.until = Some(e.at.clone());
            pause.ended_by = Some(e.action.clone());
            pause.seconds = between(&pause.from, &e.at);
        }
        if begins {
            pauses.push(Pause {
                kind: e.action.clone(),
                from: e.at.clone(),
                until: None,
                seconds: between(&e.at, now),
                operator: e.operator.clone(),
                reason: e.reason.clone(),
                ended_by: None,
            });
        }
    }
    pauses
}

/// Every verify, the first one first.
pub fn verifies(timeline: &[Event]) -> Vec<VerifyOf> {
    let mut state = None;
    let mut verifies = Vec::new();
    for e in timeline {
        if e.action == "start" {
            state = Some(State::Migrating);
        } else if let Ok(entered) = e.action.parse() {
            state = Some(entered);
        } else if e.action == "verify" {
            let found = Found::deserialize(&e.detail).unwrap_or_default();
            let verdict = verdict_of(&found);
            let (at, operator) = (e.at.clone(), e.operator.clone());
            verifies.push(VerifyOf { seq: e.seq, at, operator, state, found, verdict });
        }
    }
    verifies
}

fn verdict_of(found: &Found) -> String {
    let troubles = found.troubles();
    match (found.clean, troubles.is_empty(), found.accepted) {
        (true, _, 0) => "Clean".to_owned(),
        (true, _, n) => format!("Clean, with {n} accepted {}", if n == 1 { "row" } else { "rows" }),
        (false, false, _) => format!("Not clean: {}", troubles.join("; ")),
        (false, true, _) => "Not clean".to_owned(),
    }
}

/// Where the ledger claims something that its audit trail does not say. Whoever may write tables can change the one, and
/// cannot add to the other unseen.
pub fn disagreements(state: State, verified_clean: Option<bool>, timeline: &[Event]) -> Vec<String> {
    let mut found = Vec::new();
    let last = phases(timeline, "").last().map(|phase| phase.state);
    if last != Some(state) {
        let trail = last.map_or("no state at all", State::as_str);
        found.push(format!("The ledger says {state}, and the last event of a state says {trail}"));
    }
    let verified = verifies(timeline).last().map(|verify| verify.found.clean);
    if verified_clean == Some(true) && verified != Some(true) {
        let trail = match verified {
            Some(_) => "the last verify on record was not clean",
            None => "no verify is on record",
        };
        found.push(format!("The ledger says that a verify was clean, and {trail}"));
    }
    found
}

/// Seconds from one RFC 3339 time to another; never negative, and zero where one cannot be read.
pub fn between(from: &str, until: &str) -> f64 {
    match (from.parse::<Timestamp>(), until.parse::<Timestamp>()) {
        (Ok(from), Ok(until)) => until.duration_since(from).as_secs_f64().max(0.0),
        _ => 0.0,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(in crate::jobs::report) fn event(seq: i64, minute: u8, action: &str, detail: Value) -> Event {
        Event {
            seq,
            at: format!("2026-11-30T03:{minute:02}:00.000000Z"),
            rotation: None,
            action: action.into(),
            operator: "alice".into(),
            reason: Some("quarterly".into()),
            detail,
            login: None,
            address: None,
            application: None,
            hash: String::new(),
        }
    }

    fn told(actions: &[&str]) -> Vec<Event> {
        let numbered = (1..).zip(actions);
        numbered.map(|(n, action)| event(n, n as u8, action, json!({}))).collect()
    }

    #[test]
    fn each_state_has_its_time() {
        let timeline =
            told(&["plan", "start", "pause", "resume", "migrated", "promoting", "promoted", "promoted"]);
        let phases = phases(&timeline, "2026-11-30T03:30:00Z");
        let told: Vec<_> = phases.iter().map(|p| (p.state, p.after_seconds, p.seconds)).collect();
        assert_eq!(
            told,
            [
                (State::Migrating, 0.0, Some(180.0)),
                (State::Migrated, 180.0, Some(60.0)),
                (State::Promoting, 240.0, Some(60.0)),
                (State::Promoted, 300.0, Some(1380.0)),
            ]
        );
    }

    #[test]
    fn what_is_over_takes_no_time() {
        let phases = phases(&told(&["start", "rolling_back", "rolled_back"]), "2026-11-30T09:00:00Z");
        assert_eq!(phases[2].seconds, None);
        assert_eq!(phases[1].until.as_deref(), Some("2026-11-30T03:03:00.000000Z"));
    }

    #[test]
    fn a_pause_ends_with_what_ends_it() {
        let now = "2026-11-30T03:30:00Z";
        let pauses = pauses(&told(&["start", "pause", "abort", "resume", "pause"]), now);
        let told: Vec<_> =
            pauses.iter().map(|p| (p.kind.as_str(), p.seconds, p.ended_by.as_deref())).collect();
        assert_eq!(
            told,
            [("pause", 60.0, Some("abort")), ("abort", 60.0, Some("resume")), ("pause", 1500.0, None)]
        );
    }

    #[test]
    fn each_verify_has_its_own_verdict() {
        let unclean = json!({ "clean": false, "rows": 12, "null": 2, "unreadable": 5, "wrong_key": 1 });
        let timeline = [
            event(1, 1, "start", json!({})),
            event(2, 2, "verify", unclean),
            event(3, 3, "migrated", json!({})),
            event(4, 4, "verify", json!({ "clean": true, "rows": 12, "null": 2 })),
            event(5, 5, "verify", json!({ "clean": true, "accepted": 1 })),
        ];
        let told: Vec<_> = verifies(&timeline).into_iter().map(|v| (v.state, v.verdict)).collect();
        let unclean = "Not clean: 5 of 10 rows decrypt with no key; 1 of 10 rows is on the wrong key";
        assert_eq!(
            told,
            [
                (Some(State::Migrating), unclean.to_owned()),
                (Some(State::Migrated), "Clean".to_owned()),
                (Some(State::Migrated), "Clean, with 1 accepted row".to_owned()),
            ]
        );
    }

    #[test]
    fn the_ledger_is_held_against_its_trail() {
        let timeline = told(&["start", "migrated"]);
        assert!(disagreements(State::Migrated, None, &timeline).is_empty());
        assert!(disagreements(State::Promoted, None, &timeline)[0].contains("says promoted"));
        assert!(disagreements(State::Migrated, Some(true), &timeline)[0].contains("no verify is on record"));
    }
}
