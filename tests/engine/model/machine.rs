//! What is true after each step: the rows by the model, and the rotation's state by the table of who may move it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use super::Step;
use crate::support::judge::{count_on, stored};
use crate::support::load::{Load, fresh_iv, ids, insert, store, store_raw};
use crate::support::{
    Cipher, Cluster, Db, Judge, NEW, OLD, Outcome, Rekey, Running, SOON, Stop, rekey, until,
};
use rustix::process::Signal;

const ROWS: u64 = 200;

/// A rotation's state and what the operator wants; nothing before the first one.
type Seen = Option<(String, String)>;

/// The database, the processes at work on it, and what must be true.
pub struct Machine<'a> {
    cluster: &'a Cluster,
    db: Db,
    /// Holds the dotenv file that the application reads its key from.
    folder: tempfile::TempDir,
    judge: Judge,
    /// Every row as it was loaded, for stale saves and repairs.
    loaded: Vec<(Uuid, Vec<u8>)>,
    /// Ids that exist.
    rows: Vec<Uuid>,
    damaged: Vec<Uuid>,
    running: Vec<Running>,
    seen: Seen,
    /// Whether anything but rekey ever wrote a row, and whether anything ever went back.
    interfered: bool,
    /// Whether the server ever ended a session of a run's.
    dropped: bool,
}

impl Machine<'_> {
    pub fn new(cluster: &Cluster) -> Machine<'_> {
        let db = Db::on(cluster);
        Load::rows(ROWS).nulls(4).into(&db);
        let judge = Judge::look(&db, &[OLD]);
        let rows = ids(&db);
        let loaded = rows.iter().filter_map(|&id| Some((id, stored(&db, id)?))).collect();
        let (damaged, running) = (Vec::new(), Vec::new());
        let folder = tempfile::tempdir().expect("a folder");
        let (seen, interfered, dropped) = (None, false, false);
        let machine =
            Machine { cluster, db, folder, judge, loaded, rows, damaged, running, seen, interfered, dropped };
        fs::write(machine.dotenv(), with_key(OLD)).expect("a dotenv file");
        machine
    }

    /// Does a step, then compares everything with the model.
    pub fn take(&mut self, n: usize, step: Step) {
        let busy = !self.running.is_empty();
        self.act(step);
        self.judge.none_lost(&self.db, &[OLD, NEW]);
        let now = self.look();
        let may = self.may_have_become(&now, step, busy);
        assert!(may, "step {n}, {step:?}: {:?} became {now:?}", self.seen);
        self.application_reads_the_right_key(&now);
        self.seen = now;
        self.reap();
    }

    fn act(&mut self, step: Step) {
        let active = self.seen.as_ref().is_some_and(|(state, _)| state != "rolled_back");
        let aborted = self.seen.as_ref().is_some_and(|(_, desired)| desired == "aborted");
        // What a run in the background has done to the state by now is not known.
        let quiet = self.running.is_empty();
        match step {
            Step::Start { .. } if self.running.len() > 2 => {}
            Step::Start { workers, batch } => {
                let (workers, batch) = (workers.to_string(), batch.to_string());
                let run = self.small_steps("run").args(["--workers", &workers, "--batch-rows", &batch]);
                self.running.push(run.start());
            }
            Step::Kill { after } => {
                std::thread::sleep(Duration::from_millis(after.into()));
                if let Some(run) = self.running.pop() {
                    run.kill();
                }
                // What it had asked for last may still be done.
                if self.running.is_empty() {
                    self.db.wait_alone();
                }
            }
            Step::Term => {
                if let Some(run) = self.running.pop() {
                    run.signal(Signal::TERM);
                    self.may_end(run.wait_for(Duration::from_secs(10)), true);
                }
            }
            // A run started while paused waits.
            Step::Finish if self.paused() => self.act(Step::Start { workers: 1, batch: 20 }),
            Step::Finish => {
                let outcome = self.small_steps("run").run();
                if quiet {
                    let state = self.seen.as_ref().map_or("", |(state, _)| state);
                    let expected = match state {
                        // A rollback that was killed counts as alive until its lease is over.
                        "rolling_back" | "unpromoting" => vec![7, 8],
                        _ if aborted && active => vec![7],
                        _ => vec![self.or_quarantined()],
                    };
                    let code = outcome.code().unwrap_or(-1);
                    assert!(expected.contains(&code), "not {expected:?}: {outcome}");
                }
            }
            Step::Pause => self.control("pause", quiet, active && !aborted),
            Step::Resume => self.control("resume", quiet, active),
            Step::Abort => self.control("abort", quiet, active),
            Step::Rollback => {
                let outcome = self.small_steps("rollback").args(["--yes"]).run();
                if quiet {
                    let expected = if self.seen.is_none() { 7 } else { self.or_quarantined() };
                    assert_eq!(outcome.code(), Some(expected), "{outcome}");
                }
                self.interfered = true;
            }
            Step::RollbackKilled { after } => {
                let url = format!("{}?application_name=back", self.db.url);
                let back = self.small_steps("rollback").args(["--yes"]).env("DATABASE_URL", url).start();
                std::thread::sleep(Duration::from_millis(u64::from(after) * 2));
                back.kill();
                let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'back'";
                until("its sessions to end", SOON, || (self.db.value::<i64>(sessions) == 0).then_some(()));
                self.interfered = true;
            }
            Step::Verify => self.verify(quiet),
            Step::Promote => self.promote(quiet),
            Step::Crash => {
                self.cluster.stop(Stop::Immediate);
                self.cluster.boot();
                self.dropped = true;
            }
            Step::DropConnections => {
                self.db.terminate_other_sessions();
                self.dropped = true;
            }
            Step::Rewrite => self.db.execute("VACUUM FULL provider_connections"),
            _ => self.application(step),
        }
    }

    /// What the application, or somebody with psql, does to a row.
    fn application(&mut self, step: Step) {
        self.interfered = true;
        let key = |new| if new { NEW } else { OLD };
        let text = format!(r#"{{"access_token":"{}"}}"#, Uuid::new_v4());
        match step {
            Step::Refresh { row, new_key } => {
                let id = self.row(row);
                // The model first: a run in the background must find the row it will be judged by.
                store(&self.db, id, key(new_key), text.as_bytes());
                self.judge.expect(id, text.as_bytes());
                self.damaged.retain(|damaged| *damaged != id);
            }
            Step::StaleSave { row } => {
                let (id, value) = self.loaded[usize::from(row) % self.loaded.len()].clone();
                if self.rows.contains(&id) {
                    self.restore(id, &value);
                }
            }
            Step::Touch { row } => {
                let id = self.row(row);
                self.judge.expect_touched(id);
                self.db.execute(&format!(
                    "UPDATE provider_connections SET last_sync_at = now(), updated_at = now() WHERE id = '{id}'"
                ));
            }
            Step::Insert { new_key } => {
                let id = Uuid::now_v7();
                insert(&self.db, id, key(new_key), text.as_bytes());
                self.judge.expect(id, text.as_bytes());
                self.rows.push(id);
            }
            Step::Delete { row } => {
                let id = self.row(row);
                self.db.execute(&format!("DELETE FROM provider_connections WHERE id = '{id}'"));
                self.judge.expect_gone(id);
                self.rows.retain(|row| *row != id);
                self.damaged.retain(|damaged| *damaged != id);
            }
            Step::Disconnect { row } => {
                let id = self.row(row);
                self.db.execute(&format!(
                    "UPDATE provider_connections SET encrypted_credentials = NULL WHERE id = '{id}'"
                ));
                self.judge.expect_null(id);
                self.damaged.retain(|damaged| *damaged != id);
            }
            Step::Damage { row } => {
                let (id, _) = self.loaded[usize::from(row) % self.loaded.len()];
                if self.rows.contains(&id) {
                    let bytes = [&fresh_iv()[..], &[row; 40]].concat();
                    store_raw(&self.db, id, &bytes);
                    self.judge.expect_raw(id, &bytes);
                    self.damaged.push(id);
                }
            }
            Step::Repair => {
                for id in std::mem::take(&mut self.damaged) {
                    let row = self.loaded.iter().find(|(loaded, _)| *loaded == id).expect("it was loaded");
                    self.restore(id, &row.1.clone());
                }
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn restore(&mut self, id: Uuid, value: &[u8]) {
        store_raw(&self.db, id, value);
        self.judge.expect(id, &Cipher::new(OLD).open(value).expect("as it was loaded"));
        self.damaged.retain(|damaged| *damaged != id);
    }

    /// Everybody stops; then one more run, or rollback where that was begun, must end it all; then everything goes back.
    pub fn settle(mut self) {
        for run in std::mem::take(&mut self.running) {
            run.signal(Signal::TERM);
            self.may_end(run.wait_for(Duration::from_secs(10)), true);
        }
        self.seen = self.look();
        let (state, desired) = self.seen.clone().unwrap_or_default();
        if desired != "running" && !desired.is_empty() && state != "rolled_back" {
            self.rekey("resume").exits(0);
        }
        let back = ["rolling_back", "unpromoting"].contains(&state.as_str());
        let mut command = if back { "rollback" } else { "run" };
        for key in if command == "run" { vec![NEW, OLD] } else { vec![OLD] } {
            let yes: &[&str] = if command == "rollback" { &["--yes"] } else { &[] };
            self.small_steps(command).more(yes).start().wait_for(SOON).expect(self.or_quarantined());
            self.judge.all_on(&self.db, key);
            self.rekey("verify").exits(self.or_quarantined());
            if command == "run" && !self.interfered {
                let moved = crate::support::total(&self.db, "re_encrypted");
                assert_eq!(moved, self.judge.openable() as i64, "each row is counted once");
            }
            command = "rollback";
        }
        // Where no row is damaged, a rotation after it goes on to its end.
        if self.damaged.is_empty() {
            assert_eq!(self.key_read(), OLD);
            self.small_steps("run").exits(0);
            self.rekey("promote").args(["--yes"]).exits(0);
            self.rekey("finalize").args(["--yes"]).exits(0);
            self.judge.all_on(&self.db, NEW);
            assert_eq!(self.key_read(), NEW);
            self.small_steps("rollback").args(["--yes"]).exits(7);
        }
        self.db.discard();
    }

    fn rekey(&self, command: &str) -> Rekey {
        let old = format!("dotenv:{}#ENCRYPTION_KEY", self.dotenv().display());
        rekey(&self.db, [command]).without("ENCRYPTION_KEY").env("REKEY_OLD_KEY", old)
    }

    fn small_steps(&self, command: &str) -> Rekey {
        self.rekey(command).args(["--chunk-rows", "40", "--lease-ttl", "2s"])
    }

    fn control(&self, command: &str, quiet: bool, allowed: bool) {
        let outcome = self.rekey(command).run();
        let code = outcome.code();
        if quiet {
            assert_eq!(code, Some(if allowed { 0 } else { 7 }), "{outcome}");
        }
        assert!(matches!(code, Some(0 | 7)), "{outcome}");
    }

    /// With nobody at work the table stands still, and what verify must say can be counted.
    fn verify(&self, quiet: bool) {
        let outcome = self.rekey("verify").run();
        assert!(matches!(outcome.code(), Some(0 | 5 | 6 | 7)), "{outcome}");
        if !quiet {
            return;
        }
        let expected = match &self.seen {
            None => 7,
            Some((state, _)) => {
                let back = state.starts_with("roll") || state == "unpromoting";
                self.verdict(if back { OLD } else { NEW })
            }
        };
        assert_eq!(outcome.code(), Some(expected), "{outcome}");
    }

    fn promote(&self, quiet: bool) {
        if quiet {
            // What a killed process had asked for may still be done, and its lock be held.
            self.db.wait_alone();
        }
        let promote = || self.rekey("promote").args(["--yes"]).run();
        if !quiet {
            let outcome = promote();
            return assert!(matches!(outcome.code(), Some(0 | 5..=8)), "{outcome}");
        }
        let expected = match self.look().as_ref().map(|(state, desired)| (&**state, &**desired)) {
            Some(("migrated" | "promoted", "running" | "paused")) => vec![self.verdict(NEW)],
            // A rollback that was killed counts as alive until its lease is over.
            Some(("rolling_back" | "unpromoting", _)) => vec![7, 8],
            _ => vec![7],
        };
        let outcome = promote();
        assert!(expected.contains(&outcome.code().unwrap_or(-1)), "not {expected:?}: {outcome}");
    }

    /// What is to be said of a table that stands still, where rows should be on `key`.
    fn verdict(&self, key: &str) -> i32 {
        if count_on(&self.db, key) == self.judge.openable() { self.or_quarantined() } else { 6 }
    }

    fn dotenv(&self) -> PathBuf {
        self.folder.path().join("env")
    }

    /// The key that the application reads.
    fn key_read(&self) -> &'static str {
        let text = fs::read_to_string(self.dotenv()).expect("the dotenv file is there");
        let key = [OLD, NEW].into_iter().find(|key| text == with_key(key));
        key.unwrap_or_else(|| panic!("neither key, or something else: {text}"))
    }

    /// A promoted rotation's new key, or the old one; while rows go back, either.
    fn application_reads_the_right_key(&self, now: &Seen) {
        let (state, read) = (now.as_ref().map_or("none", |(state, _)| state), self.key_read());
        let may = match state {
            "rolling_back" | "unpromoting" => true,
            "promoted" => read == NEW,
            _ => read == OLD,
        };
        assert!(
            may,
            "{state}, and the application reads the {} key",
            if read == NEW { "new" } else { "old" }
        );
    }

    /// The exit code of what reaches its goal, but for damaged rows.
    fn or_quarantined(&self) -> i32 {
        if self.damaged.is_empty() { 0 } else { 5 }
    }

    fn paused(&self) -> bool {
        self.look().is_some_and(|(state, desired)| desired == "paused" && state != "rolled_back")
    }

    fn row(&self, number: u8) -> Uuid {
        self.rows[usize::from(number) % self.rows.len()]
    }

    fn look(&self) -> Seen {
        let there: bool = self.db.value("SELECT to_regclass('rekey.rotations') IS NOT NULL");
        let sql = "SELECT state || ' ' || desired FROM rekey.rotations ORDER BY created_at DESC LIMIT 1";
        let words: Vec<String> = if there { self.db.column(sql) } else { Vec::new() };
        let (state, desired) = words.first()?.split_once(' ')?;
        Some((state.to_owned(), desired.to_owned()))
    }

    /// docs/lifecycle.md's table of who may move a rotation, as far as these steps go.
    fn may_have_become(&self, now: &Seen, step: Step, busy: bool) -> bool {
        let word = |seen: &Seen| seen.as_ref().map_or("none", |(state, _)| state.as_str()).to_owned();
        let ran = busy || !self.running.is_empty() || matches!(step, Step::Finish);
        let turned = matches!(step, Step::Rollback | Step::RollbackKilled { .. });
        let promoted = matches!(step, Step::Promote);
        let (from, to) = (word(&self.seen), word(now));
        let moves = match (&*from, &*to) {
            _ if from == to => true,
            ("none" | "migrating", "migrating" | "migrated") => ran,
            ("none", "rolling_back" | "unpromoting" | "rolled_back") => ran && turned,
            ("rolled_back", "migrating" | "migrated") => ran,
            ("migrated", "promoted") => promoted,
            ("none" | "migrating" | "rolled_back", "promoted") => promoted && ran,
            ("migrating" | "migrated" | "promoted", "rolling_back" | "unpromoting" | "rolled_back") => turned,
            ("rolling_back", "unpromoting" | "rolled_back") | ("unpromoting", "rolled_back") => turned,
            _ => false,
        };
        let wanted =
            |seen: &Seen| seen.as_ref().map_or("running", |(_, desired)| desired.as_str()).to_owned();
        let steered = matches!(step, Step::Pause | Step::Resume | Step::Abort);
        moves && (steered || turned || to != from || wanted(&self.seen) == wanted(now))
    }

    /// Takes leave of runs that have ended by themselves.
    fn reap(&mut self) {
        for mut run in std::mem::take(&mut self.running) {
            if run.running() {
                self.running.push(run);
            } else {
                self.may_end(run.wait(), false);
            }
        }
    }

    /// How a run beside other things may end: done, quarantined, in the wrong state, busy, stopped; and unreachable,
    /// where its session was ended before it began to work, or in its summary. Not by a bug, not by a refusal that these
    /// steps give no reason for.
    fn may_end(&self, outcome: Outcome, signalled: bool) {
        let may = match outcome.code() {
            Some(0 | 5..=9) => true,
            Some(69) => self.dropped,
            Some(75) => signalled,
            _ => false,
        };
        assert!(may, "{outcome}");
    }
}

fn with_key(key: &str) -> String {
    format!("ENCRYPTION_KEY={key}\n")
}
