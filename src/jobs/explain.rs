//! What a name that rekey prints means: an exit code, a finding, a state or a throttle reason.
//!
//! The one source of these texts: the tables in RUNBOOK.md and docs/findings.md are checked against them. Looks at no database.

use serde::Serialize;
use uuid::Uuid;

use crate::error::{Error, Exit, Result};
use crate::rotation::permits::{Position, Standing};
use crate::rotation::throttle::Reason;
use crate::rotation::{State, next};
use crate::store::preflight::{About, FINDINGS};

/// What kind of name it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// How a process ended.
    ExitCode,
    /// What preflight found.
    Finding,
    /// Where a rotation stands.
    State,
    /// Why work is slow or waits.
    ThrottleReason,
}

impl Kind {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::ExitCode => "exit code",
            Kind::Finding => "finding",
            Kind::State => "state",
            Kind::ThrottleReason => "throttle reason",
        }
    }
}

/// What a name means. Sentences, with commands in backquotes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// As rekey prints it.
    pub name: String,
    /// What kind of name it is.
    pub kind: Kind,
    /// What it means.
    pub meaning: String,
    /// What is true of the data.
    pub data: String,
    /// What to do.
    pub next: Vec<String>,
}

/// Every name there is, exit codes first.
pub fn all() -> Vec<Explanation> {
    let codes = Exit::ALL.iter().map(|&exit| of_exit(exit));
    let states = State::ALL.iter().map(|&state| of_state(state));
    let reasons = Reason::ALL.iter().map(|&reason| of_reason(reason));
    codes.chain(states).chain(reasons).chain(FINDINGS.iter().map(of_finding)).collect()
}

/// Explains one name, written as rekey prints it, or with hyphens; `7` and `exit 7` are exit codes.
pub fn explain(name: &str) -> Result<Explanation> {
    let asked = plain(name);
    let asked = asked.strip_prefix("exit-").unwrap_or(&asked);
    let all = all();
    if let Some(found) = all.iter().find(|known| plain(&known.name) == asked) {
        return Ok(found.clone());
    }
    let near = all.iter().filter(|known| near(&plain(&known.name), asked));
    let near: Vec<&str> = near.map(|known| known.name.as_str()).collect();
    let hint = match near.as_slice() {
        [] => "Run `rekey explain` to list every name".to_owned(),
        names => format!("Did you mean {}?", names.join(", ")),
    };
    Err(Error::new(Exit::Usage, "no exit code, finding, state or throttle reason has that name").hint(hint))
}

/// Case, underscores and spaces do not matter, nor what was measured behind a colon.
fn plain(name: &str) -> String {
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    name.trim().to_lowercase().replace(['_', ' '], "-")
}

/// One begins with the other, or they share a word that says something.
fn near(known: &str, asked: &str) -> bool {
    let words =
        |name: &str| name.split('-').filter(|word| word.len() > 3).map(str::to_owned).collect::<Vec<_>>();
    asked.len() > 2 && known.starts_with(asked) || words(known).iter().any(|word| words(asked).contains(word))
}

fn of_exit(exit: Exit) -> Explanation {
    let stands = "everything up to the last committed batch is saved";
    let (data, next) = match exit {
        Exit::Ok => ("as the output says", "follow `next:` in the output"),
        Exit::Internal => (
            "everything up to the last committed batch is saved; no row is half-written",
            "run the same command again, keep the log, and report the bug",
        ),
        Exit::Usage => (
            "unchanged; if the run had already begun (the password changed), everything up to the last \
             committed batch is saved",
            "follow the message; see `rekey COMMAND --help`",
        ),
        Exit::Key => ("unchanged", "run `rekey keys fingerprint SOURCE` on each source"),
        Exit::Preflight => (
            "unchanged; if the run had already begun, everything up to the last committed batch is saved",
            "run `rekey plan` to see each finding and its remedy; `--allow NAME` allows one",
        ),
        Exit::Quarantined => (
            "every other row is on the target key; the quarantined rows are unchanged",
            "run `rekey quarantine list`",
        ),
        Exit::VerifyFailed => (
            "the other key still decrypts rows that are on the wrong key",
            "stop the writers, then run `rekey run` (in a rollback `rekey rollback --yes`), then `rekey verify`",
        ),
        Exit::State => ("unchanged", "run `rekey status` and follow its `next:`"),
        Exit::Busy => ("another process is changing rows or keys", "wait, then run `rekey status`"),
        Exit::Stopped => (
            "some rows are on each key",
            "run `rekey resume`, then rerun the command that stopped; or run `rekey rollback --yes`",
        ),
        Exit::Unavailable => (stands, "fix the connection, then run the same command again"),
        Exit::Signalled => (stands, "run the same command again"),
    };
    Explanation {
        name: exit.code().to_string(),
        kind: Kind::ExitCode,
        meaning: exit.meaning().into(),
        data: data.into(),
        next: vec![next.into()],
    }
}

fn of_finding(about: &&'static About) -> Explanation {
    let mut steps =
        vec!["run `rekey plan` to see what it found and how to fix it".to_owned(), about.remedy.to_owned()];
    if about.may_be_allowed {
        steps.push(format!("or, if you know that it is harmless, add `--allow {}`", about.name));
    }
    Explanation {
        name: about.name.into(),
        kind: Kind::Finding,
        meaning: about.meaning.into(),
        data: "unchanged; if the run had already begun, everything up to the last committed batch is saved"
            .into(),
        next: steps,
    }
}

fn of_state(state: State) -> Explanation {
    let (meaning, data) = match state {
        State::Migrating => {
            ("rows are being re-encrypted from the old key to the new one", "some rows are on each key")
        }
        State::Migrated => (
            "every row is on the new key; the application still reads the old key",
            "every row is on the new key, except those in quarantine",
        ),
        State::Promoting => (
            "a promotion has begun and not finished",
            "every row is on the new key; the application reads the old key or the new one",
        ),
        State::Promoted => (
            "the application reads the new key after its restart",
            "every row is on the new key; a rollback is still possible",
        ),
        State::Finalizing => (
            "the finalize has begun and not finished",
            "every row is on the new key; a rollback is no longer possible",
        ),
        State::Finalized => ("the rotation ended on the new key", "every row is on the new key"),
        State::RollingBack => {
            ("rows are being re-encrypted from the new key to the old one", "some rows are on each key")
        }
        State::Unpromoting => (
            "the rollback is giving the application the old key again",
            "every row is on the old key; the application reads the old key or the new one",
        ),
        State::RolledBack => ("the rotation ended on the old key", "every row is on the old key"),
    };
    let rotation = Some(Position::at_rest(Uuid::nil(), state));
    let next = next(&Standing { rotation, ..Standing::default() });
    Explanation {
        name: state.as_str().into(),
        kind: Kind::State,
        meaning: meaning.into(),
        data: data.into(),
        next: next.iter().map(ToString::to_string).collect(),
    }
}

fn of_reason(reason: Reason) -> Explanation {
    let (meaning, next) = match reason {
        Reason::Paused => ("an operator paused the rotation", "run `rekey resume`"),
        Reason::Window => (
            "the time is outside `--window`",
            "wait until the window opens; `rekey status` \
            shows when",
        ),
        Reason::Unreadable => (
            "the role can't read a signal that a limit needs, or the database has not answered for 5 s",
            "run `GRANT pg_monitor TO role`, which takes effect immediately, or pass `--allow monitoring`",
        ),
        Reason::ReplicaGone => (
            "a standby stopped streaming",
            "reconnect the standby; if it was removed permanently, stop rekey and start it again",
        ),
        Reason::ReplicationLag => (
            "a standby replays WAL more slowly than rekey writes it, or not at all",
            "check `pg_stat_replication`, and on the standby `pg_is_wal_replay_paused()` and its long queries",
        ),
        Reason::SlotWal => (
            "the consumer of a replication slot lags or is dead",
            "find the slot in `pg_replication_slots`, then start its consumer or drop the slot",
        ),
        Reason::SlotXmin => (
            "an old query on a standby or a dead slot blocks pruning of dead rows",
            "end the query or drop the slot",
        ),
        Reason::WalArchive => {
            ("`archive_command` is slow or fails", "check `pg_stat_archiver` and the server's log")
        }
        Reason::Blocked => (
            "sessions of the application wait for rekey's row locks; rekey pauses longer until they don't",
            "if this lasts, use a smaller `--lock-target`, fewer `--workers`, or a quieter hour",
        ),
        Reason::Checkpoints => (
            "WAL forces PostgreSQL checkpoints; rekey pauses longer until it doesn't",
            "raise `max_wal_size`, or accept the lower rate",
        ),
        Reason::MaxRate => ("rekey writes at `--max-rate`", "do nothing, or raise `--max-rate`"),
        Reason::RowHeld => (
            "another session has locked a row that rekey must still re-encrypt",
            "wait until that transaction ends, or end the session with `SELECT pg_terminate_backend(PID)`",
        ),
        Reason::PreparedTransaction => (
            "an unfinished prepared transaction holds a lock on a row or the table",
            "run `COMMIT PREPARED` or `ROLLBACK PREPARED` with its name",
        ),
        Reason::TableLocked => (
            "another session holds a lock on the table, such as DDL or a dump",
            "wait for that session, or end it with `SELECT pg_terminate_backend(PID)`",
        ),
        Reason::Lease => (
            "another process has leased the remaining chunks",
            "do nothing: the lease of a dead process expires, and rekey takes its chunk over",
        ),
    };
    Explanation {
        name: reason.as_str().into(),
        kind: Kind::ThrottleReason,
        meaning: meaning.into(),
        data:
            "everything up to the last committed batch is saved; rekey continues when the reason has passed"
                .into(),
        next: vec![next.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_they_are_printed_and_as_they_are_typed() {
        for known in all() {
            for typed in [known.name.clone(), known.name.replace(' ', "-"), known.name.to_uppercase()] {
                assert_eq!(explain(&typed).map_err(|e| e.message), Ok(known.clone()), "{typed}");
            }
        }
        assert_eq!(explain("exit 7").map(|e| e.name).unwrap_or_default(), "7");
        assert_eq!(explain("replication lag: 12 s").map(|e| e.kind).ok(), Some(Kind::ThrottleReason));
    }

    #[test]
    fn every_name_is_explained_once() {
        let mut names: Vec<String> = all().iter().map(|known| plain(&known.name)).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(all().iter().all(|known| !known.next.is_empty()));
    }

    /// The tables that people read are written from these texts.
    #[test]
    fn the_runbook_says_the_same() {
        let page = ["RUNBOOK.md", "docs/findings.md"].map(|page| {
            let path = format!("{}/{page}", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).unwrap_or_default()
        });
        let page = page.concat();
        for known in all() {
            let (cell, text) = match known.kind {
                Kind::ExitCode => {
                    (format!("| {} |", known.name), format!("| {} | {}", known.data, known.next[0]))
                }
                Kind::ThrottleReason if known.name != Reason::Paused.as_str() => {
                    let next = crate::rotation::permits::sentence(&known.next[0]);
                    (format!("| `{}` |", known.name), format!("| {}. {next}", known.meaning))
                }
                Kind::Finding => {
                    (format!("| `{}` |", known.name), format!("| {} | {}", known.meaning, known.next[1]))
                }
                _ => continue,
            };
            let row = page.lines().find(|line| line.starts_with(&cell)).unwrap_or_default();
            assert!(row.contains(&text), "the pages on {}: {row:?} lacks {text:?}", known.name);
        }
    }

    #[test]
    fn a_name_that_is_none_is_not_repeated_and_the_nearest_is_named() {
        let hint = |name: &str| explain(name).map_err(|e| (e.exit, e.hint.unwrap_or_default()));
        assert_eq!(hint("replication"), Err((Exit::Usage, "Did you mean replication lag?".into())));
        let unknown = explain("xR7_kVp2-QmT9wLzB4nHc8YdJf3sGa6E").map_err(|e| format!("{e} {:?}", e.hint));
        assert!(unknown.is_err_and(|said| !said.contains("xR7")));
    }
}
