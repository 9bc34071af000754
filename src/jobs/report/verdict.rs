//! The verdict on a rotation, in words and as a level: what the first line of a report says. Pure.

use serde::Serialize;

use super::head::Expected;
use super::story::{Found, count_of};
use crate::crypto::Fingerprint;
use crate::rotation::permits::{LastPass, LastVerify, Position};
use crate::rotation::{Counters, Desired, Direction, State};
use crate::store::report::Chain;
use crate::telemetry::progress::thousands;

/// How good the news is; a page gives each its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Every row is where it should be, and that is proven.
    Complete,
    /// Nothing is wrong, and it is not over.
    Open,
    /// Someone should look.
    Attention,
    /// Something is wrong, or not proven.
    Failed,
}

/// What a rotation came to.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// How good it is.
    pub level: Level,
    /// One line.
    pub headline: String,
    /// What else there is to know, a sentence each.
    pub because: Vec<String>,
}

impl Verdict {
    /// Where no rotation was ever started.
    pub fn of_nothing() -> Verdict {
        Verdict {
            level: Level::Attention,
            headline: "NO ROTATION: none was ever started".to_owned(),
            because: Vec::new(),
        }
    }
}

/// What a verdict is made from.
pub struct Facts<'a> {
    /// Where the rotation stands.
    pub at: &'a Position,
    /// The key that rows are to be on.
    pub key: Fingerprint,
    /// Rows by outcome, of the present direction.
    pub totals: &'a Counters,
    /// Rows expected in all.
    pub expected_rows: i64,
    /// The last verify of the present direction.
    pub verify: Option<&'a Found>,
    /// What the ledger says and the audit trail does not.
    pub disagreements: &'a [String],
}

/// What is wrong with the audit trail itself, which no verdict on a rotation outweighs.
pub fn on_trail(chain: &Chain, expected: Option<&Expected>) -> Option<Verdict> {
    if let Some(seq) = chain.broken_at {
        return Some(Verdict {
            level: Level::Failed,
            headline: format!("NOT PROVEN: the audit trail is broken at event {seq}"),
            because: vec![
                "The hash of that event does not follow from the events before it. Someone changed, added or removed events"
                    .to_owned(),
            ],
        });
    }
    let noted = expected.filter(|noted| !noted.contained)?;
    Some(Verdict {
        level: Level::Failed,
        headline: "NOT PROVEN: the audit trail does not contain the head that was noted".to_owned(),
        because: vec![format!(
            "Event {} of this trail has another hash than the one noted. The trail was rewritten or restored, or this is \
             another database",
            noted.head.seq
        )],
    })
}

/// The verdict on a rotation whose trail is in order.
pub fn on(f: &Facts<'_>) -> Verdict {
    if !f.disagreements.is_empty() {
        return Verdict {
            level: Level::Failed,
            headline: "NOT PROVEN: the ledger and its audit trail disagree".to_owned(),
            because: f.disagreements.to_vec(),
        };
    }
    let mut verdict = match (f.at.verify, f.verify) {
        (LastVerify::Clean, Some(found)) => clean(f, found),
        (LastVerify::WrongRows | LastVerify::OtherBytes, Some(found)) => Verdict {
            level: Level::Failed,
            headline: format!("NOT COMPLETE: {}", found.troubles().join("; ")),
            because: Vec::new(),
        },
        (_, before) => unverified(f, before),
    };
    if f.at.quarantine.open > 0 && verdict.level != Level::Failed {
        verdict.because.push(rows_no_key_opens(f));
    }
    if f.at.compromised {
        verdict.because.push("The old key is recorded as compromised".to_owned());
    }
    verdict
}

fn rows_no_key_opens(f: &Facts<'_>) -> String {
    let (n, of) = (f.at.quarantine.open, credentials(f));
    count_of(n, of.max(n), if n == 1 { "decrypts with no key" } else { "decrypt with no key" })
}

fn credentials(f: &Facts<'_>) -> i64 {
    f.totals.settled() - f.totals.null_rows
}

/// A clean verify stands.
fn clean(f: &Facts<'_>, found: &Found) -> Verdict {
    let rows = found.credentials() - found.accepted;
    let identical = found.bytes_compared && found.identical == rows;
    let rows = format!("{} {} on key {}", thousands(rows), if rows == 1 { "row" } else { "rows" }, f.key);
    let rows = if identical { format!("{rows}, each byte-identical") } else { rows };
    let excepted = |word: &str| match found.accepted {
        0 => word.to_owned(),
        n => format!(
            "{word}, WITH {} ACCEPTED {}",
            thousands(n),
            if n == 1 { "EXCEPTION" } else { "EXCEPTIONS" }
        ),
    };
    let (level, word, note) = match f.at.state {
        State::Migrating | State::RollingBack | State::Unpromoting => (
            Level::Open,
            "VERIFIED, NOT ENDED".to_owned(),
            "The rotation has not recorded its closing proof yet",
        ),
        State::Migrated => (
            Level::Open,
            excepted("RE-ENCRYPTED, NOT PROMOTED"),
            "The application still reads the old key: the new key is not promoted yet",
        ),
        State::Promoting => (
            Level::Attention,
            "PROMOTION NOT ENDED".to_owned(),
            "The new key is being made the one that the application reads",
        ),
        State::Promoted => (
            Level::Complete,
            excepted("COMPLETE"),
            "The application reads the new key. The rotation is not finalized: a rollback is still possible",
        ),
        State::Finalizing => {
            (Level::Attention, "FINALIZING NOT ENDED".to_owned(), "The end of the rotation is being recorded")
        }
        State::Finalized => (
            Level::Complete,
            excepted("COMPLETE"),
            "The rotation is finalized: there is no rollback any more",
        ),
        State::RolledBack => (
            Level::Attention,
            excepted("ROLLED BACK"),
            "The rotation was undone: every row is on the old key again",
        ),
    };
    let level = if found.accepted > 0 && level == Level::Complete { Level::Attention } else { level };
    let mut because = vec![note.to_owned()];
    if found.accepted > 0 {
        let (one, several) = (
            "decrypts with no key, and an operator accepted that",
            "decrypt with no key, and an operator accepted each",
        );
        because.push(count_of(
            found.accepted,
            found.credentials(),
            if found.accepted == 1 { one } else { several },
        ));
    }
    if !identical {
        because.extend(apart(found));
    }
    if found.null > 0 {
        because.push(format!("{} without a credential, left alone", rows_of(found.null)));
    }
    Verdict { level, headline: format!("{word}: {rows}"), because }
}

/// Why not every row is byte-identical.
fn apart(found: &Found) -> Vec<String> {
    if !found.bytes_compared {
        return vec!["Bytes were not compared: the verify had no new key to check the tags with".to_owned()];
    }
    let parts = [
        (found.identical, "byte-identical to before"),
        (found.changed_since, "changed by the application since"),
        (found.inserted_since, "inserted by the application since"),
        (found.already_on_key, "on the key before rekey came to them"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", rows_of(*n))).collect();
    if parts.is_empty() { Vec::new() } else { vec![parts.join("; ")] }
}

fn rows_of(n: i64) -> String {
    format!("{} {}", thousands(n), if n == 1 { "row" } else { "rows" })
}

/// No verify stands: there was none, or rekey wrote rows since.
fn unverified(f: &Facts<'_>, before: Option<&Found>) -> Verdict {
    let (done, expected) = (f.totals.settled(), f.expected_rows.max(f.totals.settled()));
    let moved = match f.at.state.direction() {
        Direction::Forward => format!("{} re-encrypted under key {}", rows_of(f.totals.re_encrypted), f.key),
        Direction::Backward => format!("{} returned to key {}", rows_of(f.totals.re_encrypted), f.key),
    };
    let moving = matches!(f.at.state, State::Migrating | State::RollingBack | State::Unpromoting);
    let mut because = Vec::new();
    let (level, headline) = match (moving, f.at.pass) {
        (true, LastPass::Clean | LastPass::Unsettled) if f.at.quarantine.open > 0 => {
            (Level::Failed, format!("NOT COMPLETE: {}", rows_no_key_opens(f)))
        }
        (true, LastPass::Unsettled) => {
            because.push("Writers kept saving rows under the wrong key".to_owned());
            (Level::Failed, format!("NOT COMPLETE: {moved}, and the closing proof is not clean"))
        }
        (true, _) => {
            let word = match (f.at.desired, f.at.past_deadline, f.at.workers) {
                (Desired::Paused, ..) => "PAUSED",
                (Desired::Aborted, ..) => "ABORTED",
                (_, true, _) => "STOPPED AT ITS DEADLINE",
                (_, _, 0) => "NOT COMPLETE, AND AT REST",
                _ => "UNDER WAY",
            };
            let level = if word == "UNDER WAY" { Level::Open } else { Level::Attention };
            (level, format!("{word}: {} of {} rows settled", thousands(done), thousands(expected)))
        }
        (false, _) => {
            if f.at.quarantine.open > 0 {
                (Level::Failed, format!("NOT COMPLETE: {}", rows_no_key_opens(f)))
            } else {
                (Level::Attention, format!("NOT VERIFIED: {moved}"))
            }
        }
    };
    if moving {
        because.push(moved);
    }
    because.push(match before {
        None if moving => "No verify has been recorded yet".to_owned(),
        None => "No verify is recorded for these rows: run `rekey verify`".to_owned(),
        Some(found) if found.clean => {
            "rekey wrote rows after the last clean verify, which says nothing of them: run `rekey verify`"
                .to_owned()
        }
        Some(found) => format!(
            "The last verify was not clean ({}). What changed since is not verified: run `rekey verify`",
            found.troubles().join("; ")
        ),
    });
    Verdict { level, headline, because }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::rotation::permits::{Outside, Quarantined};

    fn at(state: State, verify: LastVerify) -> Position {
        Position {
            id: Uuid::nil(),
            state,
            desired: Desired::Running,
            deadline: None,
            past_deadline: false,
            workers: 1,
            outside: Outside::Free,
            pass: LastPass::Open,
            quarantine: Quarantined::default(),
            verify,
            promotion: None,
            external: false,
            compromised: false,
            contradicted: None,
        }
    }

    fn judged(at: &Position, found: Option<&Found>) -> Verdict {
        let totals = Counters {
            re_encrypted: 80_000,
            null_rows: 200,
            quarantined: at.quarantine.open,
            ..Counters::default()
        };
        let key = Fingerprint::from_bytes([0x33; 8]);
        on(&Facts { at, key, totals: &totals, expected_rows: 90_000, verify: found, disagreements: &[] })
    }

    fn found(change: impl FnOnce(&mut Found)) -> Found {
        let mut found = Found {
            clean: true,
            rows: 80_200,
            identical: 80_000,
            null: 200,
            bytes_compared: true,
            ..Found::default()
        };
        change(&mut found);
        found
    }

    #[test]
    fn what_is_complete_says_so_and_what_is_not_says_why() {
        let clean = found(|_| {});
        let verdict = judged(&at(State::Finalized, LastVerify::Clean), Some(&clean));
        assert_eq!(verdict.level, Level::Complete);
        assert_eq!(verdict.headline, "COMPLETE: 80 000 rows on key 3333333333333333, each byte-identical");

        let verdict = judged(&at(State::Migrated, LastVerify::Clean), Some(&clean));
        assert_eq!(verdict.level, Level::Open);
        assert!(verdict.headline.starts_with("RE-ENCRYPTED, NOT PROMOTED: 80 000 rows"), "{verdict:?}");

        let touched = found(|f| (f.identical, f.changed_since) = (79_990, 10));
        let verdict = judged(&at(State::Promoted, LastVerify::Clean), Some(&touched));
        assert_eq!(verdict.headline, "COMPLETE: 80 000 rows on key 3333333333333333");
        let apart = "79 990 rows byte-identical to before; 10 rows changed by the application since";
        assert!(verdict.because.iter().any(|why| why == apart), "{verdict:?}");

        let bad = found(|f| (f.clean, f.unreadable, f.wrong_key) = (false, 5, 1));
        let verdict = judged(&at(State::Promoted, LastVerify::WrongRows), Some(&bad));
        assert_eq!(verdict.level, Level::Failed);
        let expected =
            "NOT COMPLETE: 5 of 80 000 rows decrypt with no key; 1 of 80 000 rows is on the wrong key";
        assert_eq!(verdict.headline, expected);
    }

    #[test]
    fn exceptions_are_no_clean_bill() {
        let excepted = found(|f| (f.accepted, f.identical) = (3, 79_997));
        let verdict = judged(&at(State::Finalized, LastVerify::Clean), Some(&excepted));
        assert_eq!(verdict.level, Level::Attention);
        let expected =
            "COMPLETE, WITH 3 ACCEPTED EXCEPTIONS: 79 997 rows on key 3333333333333333, each byte-identical";
        assert_eq!(verdict.headline, expected);
    }

    #[test]
    fn nothing_is_complete_without_a_verify_that_stands() {
        for state in State::ALL {
            for before in [None, Some(&found(|_| {})), Some(&found(|f| f.clean = false))] {
                let verdict = judged(&at(*state, LastVerify::None), before);
                assert_ne!(verdict.level, Level::Complete, "{verdict:?}");
            }
        }
        let mut under_way = at(State::Migrating, LastVerify::None);
        assert_eq!(judged(&under_way, None).headline, "UNDER WAY: 80 200 of 90 000 rows settled");
        under_way.desired = Desired::Paused;
        assert!(judged(&under_way, None).headline.starts_with("PAUSED"));
        (under_way.pass, under_way.quarantine.open) = (LastPass::Clean, 5);
        assert_eq!(judged(&under_way, None).headline, "NOT COMPLETE: 5 of 80 005 rows decrypt with no key");
    }

    #[test]
    fn doubts_about_the_trail_come_first() {
        let chain = Chain { events: 9, intact: false, broken_at: Some(4), head: String::new() };
        let verdict = on_trail(&chain, None).expect("a verdict");
        assert_eq!((verdict.level, verdict.headline.contains("broken at event 4")), (Level::Failed, true));
        let clean = found(|_| {});
        let totals = Counters::default();
        let key = Fingerprint::from_bytes([0x33; 8]);
        let (at, disagreements) = (at(State::Finalized, LastVerify::Clean), ["They differ".to_owned()]);
        let facts = Facts {
            at: &at,
            key,
            totals: &totals,
            expected_rows: 0,
            verify: Some(&clean),
            disagreements: &disagreements,
        };
        assert_eq!(on(&facts).level, Level::Failed);
    }
}
