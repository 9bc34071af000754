//! The advice is typed: what `next` offers first, in `status` and in what each command prints, is never refused.
//!
//! `src/rotation/permits/tests.rs` shows the same of the table; here it is the binary that reads where everything stands.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::load::{Load, some_ids, store, store_raw};
use crate::support::{Db, NEW, OLD, Outcome, Rekey, rekey};

/// A database, and a dotenv file that the application reads its key from.
struct Scene {
    db: Db,
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let db = Db::new();
        Load::rows(600).into(&db);
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join(".env"), format!("ENCRYPTION_KEY={OLD}\n")).expect("a file");
        Scene { db, dir }
    }

    fn rekey(&self, command: &[&str]) -> Rekey {
        let old = format!("dotenv:{}#ENCRYPTION_KEY", self.dir.path().join(".env").display());
        let command = rekey(&self.db, []).more(command).without("ENCRYPTION_KEY");
        command.env("REKEY_OLD_KEY", old).env("REKEY_LEASE_TTL", "3s")
    }

    fn done(&self, commands: &[&str]) {
        for command in commands {
            let words: Vec<&str> = command.split(' ').collect();
            self.rekey(&words).exits(0);
        }
    }

    /// What this command advises.
    fn advice_of(&self, command: &str, code: i32) -> Option<Value> {
        let words: Vec<&str> = command.split(' ').collect();
        Some(self.rekey(&words).json(code))
    }

    /// A command that was killed in its midst. Its lease is over, unless that is what matters.
    fn killed(&self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        self.db.mark();
        self.db.slow_batches(Duration::from_millis(40));
        let hold = self.db.hold_last();
        let running = self.rekey(&words).args(["--chunk-rows", "100", "--batch-rows", "20"]).start();
        self.db.wait_moved(60);
        running.kill();
        self.db.wait_alone();
        hold.rollback();
        self.db.fast_commits();
        self.db.execute(
            "DELETE FROM rekey.processes;
             UPDATE rekey.chunks SET lease_until = clock_timestamp() WHERE owner IS NOT NULL",
        );
    }

    fn sql(&self, change: &str) {
        self.db.execute(&format!("UPDATE rekey.rotations SET {change}"));
    }

    /// The process died after it had written this state, and before it touched anything outside.
    fn left_in(&self, state: &str) {
        self.sql(&format!(
            "state = '{state}', promoting_at = clock_timestamp(), target_source = coalesce(target_source, old_source)"
        ));
        // With its event, or it would not count.
        self.db.execute(&format!(
            "SELECT rekey.append_event(id, action, 'killed', NULL, jsonb_build_object('target', target_source)) \
             FROM rekey.rotations, unnest(ARRAY['promoting', nullif('{state}', 'promoting')]) action WHERE action IS NOT NULL"
        ));
    }

    fn bad_row(&self) -> String {
        let id = some_ids(&self.db, 1, 3)[0];
        store_raw(&self.db, id, b"no key opens these bytes, which is what makes a quarantine");
        id.to_string()
    }

    /// Types a command as an operator at a terminal does: asked whether to go on, the answer is yes.
    fn types(&self, command: &str) -> Outcome {
        let mut words: Vec<&str> = command.split(' ').skip(1).collect();
        let asks = ["promote", "finalize", "rollback"].contains(&words[0]);
        if asks && !words.contains(&"--yes") {
            words.push("--yes");
        }
        self.rekey(&words).run()
    }
}

/// The first command of the advice.
fn first(printed: &Value) -> String {
    let steps = printed["next"].as_array().unwrap_or_else(|| panic!("no steps in {printed:#}"));
    let mut commands = steps.iter().filter_map(Value::as_str).filter(|step| step.starts_with("rekey "));
    commands.next().unwrap_or_else(|| panic!("nothing to type in {printed:#}")).to_owned()
}

/// Brings a scene about, and types what `status` offers there, and what the last command itself offered; a scene of its
/// own for each where they differ.
fn followed(expected: &str, prepare: impl Fn(&Scene) -> Option<Value>) {
    let scene = Scene::new();
    let own = prepare(&scene).map(|printed| first(&printed));
    let status = first(&scene.rekey(&["status"]).without("NEW_ENCRYPTION_KEY").json(0));
    let tell = |command: &str, outcome: Outcome| {
        let refused = outcome.code().is_none_or(|code| [1, 2, 4, 7, 8, 9].contains(&code));
        assert!(!refused, "`{command}` was offered, and refused:\n{outcome}");
    };
    tell(&status, scene.types(&status));
    match own {
        Some(own) => {
            assert_eq!(own, expected, "status says {status}");
            if own != status {
                let scene = Scene::new();
                prepare(&scene);
                tell(&own, scene.types(&own));
            }
        }
        None => assert_eq!(status, expected),
    }
}

#[test]
fn before_and_after_a_run() {
    followed("rekey plan", |_| None);
    followed("rekey run --dry-run", |scene| scene.advice_of("plan", 0));
    followed("rekey run", |scene| scene.advice_of("run --dry-run", 0));
    followed("rekey run --dry-run", |scene| {
        scene.bad_row();
        scene.advice_of("run --dry-run", 5)
    });
    followed("rekey verify", |scene| scene.advice_of("run", 0));
    followed("rekey promote", |scene| {
        scene.done(&["run"]);
        scene.advice_of("verify", 0)
    });
    // Neither is a run offered where rows are done.
    for command in ["plan", "run --dry-run"] {
        followed("rekey verify", |scene| {
            scene.done(&["run"]);
            scene.advice_of(command, 0)
        });
    }
    followed("rekey run", |scene| {
        scene.done(&["run"]);
        store(&scene.db, some_ids(&scene.db, 1, 1)[0], OLD, b"{}");
        scene.advice_of("verify", 6)
    });
}

#[test]
fn cut_short_paused_aborted_or_late() {
    followed("rekey run", |scene| {
        scene.killed("run");
        None
    });
    followed("rekey resume", |scene| {
        scene.killed("run");
        scene.advice_of("pause", 0)
    });
    followed("rekey resume", |scene| {
        scene.killed("run");
        scene.done(&["abort"]);
        None
    });
    followed("rekey run --deadline 2h", |scene| {
        scene.killed("run");
        scene.advice_of("run --deadline 2020-01-01T00:00:00Z", 9)
    });
    followed("rekey rollback --yes", |scene| {
        scene.done(&["run"]);
        scene.killed("rollback --yes");
        None
    });
    followed("rekey rollback --yes --deadline 2h", |scene| {
        scene.done(&["run"]);
        scene.killed("rollback --yes");
        scene.advice_of("rollback --yes --deadline 2020-01-01T00:00:00Z", 9)
    });
}

#[test]
fn while_workers_run() {
    let scene = Scene::new();
    scene.db.mark();
    scene.db.slow_batches(Duration::from_millis(40));
    let running = scene.rekey(&["run", "--chunk-rows", "100", "--batch-rows", "20"]).start();
    scene.db.wait_moved(60);
    let offered = first(&scene.rekey(&["status"]).json(0));
    assert_eq!(offered, "rekey status --watch");
    scene.db.fast_commits();
    scene.types(&offered).expect(0);
    running.wait().expect(0);
}

#[test]
fn quarantined_rows() {
    followed("rekey quarantine list", |scene| {
        scene.bad_row();
        scene.advice_of("run", 5)
    });
    followed("rekey verify", |scene| {
        let id = scene.bad_row();
        scene.rekey(&["run"]).exits(5);
        scene.rekey(&["quarantine", "accept", &id, "--yes", "--reason", "a test's"]).exits(0);
        None
    });
}

#[test]
fn promoted_and_finalized() {
    const PROMOTED: [&str; 2] = ["run", "promote --yes"];
    followed("rekey promote --yes", |scene| {
        scene.done(&["run"]);
        scene.left_in("promoting");
        None
    });
    followed("rekey verify", |scene| {
        scene.done(&["run"]);
        scene.advice_of("promote --yes", 0)
    });
    followed("rekey finalize", |scene| {
        scene.done(&PROMOTED);
        scene.advice_of("verify", 0)
    });
    followed("rekey verify", |scene| {
        scene.done(&PROMOTED);
        scene.sql(
            "state_since = state_since - interval '4 days', verified_at = verified_at - interval '4 days'",
        );
        None
    });
    followed("rekey finalize --yes", |scene| {
        scene.done(&PROMOTED);
        scene.left_in("finalizing");
        None
    });
    followed("rekey report", |scene| {
        scene.done(&PROMOTED);
        scene.advice_of("finalize --yes", 0)
    });
}

#[test]
fn rolled_back() {
    followed("rekey rollback --yes", |scene| {
        scene.done(&["run", "promote --yes", "rollback --yes"]);
        scene.left_in("unpromoting");
        None
    });
    followed("rekey verify", |scene| {
        scene.done(&["run", "promote --yes"]);
        scene.advice_of("rollback --yes", 0)
    });
    followed("rekey report", |scene| {
        scene.done(&["run", "rollback --yes"]);
        scene.advice_of("verify", 0)
    });
}

/// A key that the new one is for is in the environment of whoever runs rekey, and in the file once it is promoted.
#[test]
fn the_advice_is_followed_from_the_first_look_to_the_report() {
    let scene = Scene::new();
    let mut typed = Vec::new();
    let offered = || first(&scene.rekey(&["status"]).json(0));
    let mut next = offered();
    while next != "rekey report" {
        let printed = scene.types(&format!("{next} --output json")).expect(0).json();
        typed.push(next);
        assert!(typed.len() < 12, "{typed:#?}");
        next = if printed["next"].is_array() { first(&printed) } else { offered() };
    }
    let way = ["plan", "run --dry-run", "run", "verify", "promote", "verify", "finalize"];
    assert_eq!(typed, way.map(|command| format!("rekey {command}")));
    let file = fs::read_to_string(scene.dir.path().join(".env")).expect("a file");
    assert_eq!(file, format!("ENCRYPTION_KEY={NEW}\n"));
}
