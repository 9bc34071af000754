//! Who may move a rotation from state to state, and what every command says to the states it does not fit.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, SOON, rekey, run_in_small_steps, state, status, total, until};
use rustix::process::Signal;

fn under_way(rows: u64) -> (Db, Judge) {
    let db = Db::new();
    Load::rows(rows).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(50));
    let judge = Judge::look(&db, &[OLD]);
    (db, judge)
}

/// Waits until nothing has moved for a while.
fn wait_still(db: &Db) -> i64 {
    let mut last = (db.moved(), std::time::Instant::now());
    until("the workers to pause", SOON, || {
        let now = db.moved();
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(1500)).then_some(now)
    })
}

#[test]
fn paused_and_resumed() {
    let (db, mut judge) = under_way(4000);
    let mut run = run_in_small_steps(&db).start();
    db.wait_moved(500);
    rekey(&db, ["pause"]).exits(0);
    let moved = wait_still(&db);
    assert!(moved < 4000);
    assert!(run.running(), "a paused run waits");
    assert_eq!(status(&db)["rotation"]["desired"], "paused");
    rekey(&db, ["resume"]).exits(0);
    db.fast_commits();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 4000);
}

#[test]
fn a_paused_run_still_ends_on_sigterm() {
    let (db, _) = under_way(8000);
    let run = run_in_small_steps(&db).start();
    db.wait_moved(300);
    rekey(&db, ["pause"]).exits(0);
    wait_still(&db);
    run.signal(Signal::TERM);
    run.wait_for(Duration::from_secs(10)).expect(75);
    // A run started while paused waits, too.
    let mut late = run_in_small_steps(&db).start();
    let moved = wait_still(&db);
    assert!(late.running() && moved < 8000);
    rekey(&db, ["resume"]).exits(0);
    late.wait().expect(0);
}

#[test]
fn aborted_then_resumed() {
    let (db, mut judge) = under_way(8000);
    let runs = [run_in_small_steps(&db).start(), run_in_small_steps(&db).start()];
    db.wait_moved(500);
    let at_work = "SELECT count(*) FROM rekey.processes";
    until("both to be at work", SOON, || (db.value::<i64>(at_work) == 2).then_some(()));
    rekey(&db, ["abort"]).exits(0);
    let moved = db.moved();
    for run in runs {
        run.wait_for(Duration::from_secs(15)).expect(9);
    }
    assert_eq!(db.moved(), moved, "nothing is committed once abort has returned");
    judge.none_lost(&db, &[OLD, NEW]);
    run_in_small_steps(&db).exits(7);
    // The rotation is active: a third key is no way out of it.
    rekey(&db, ["run"]).env("NEW_ENCRYPTION_KEY", crate::support::OTHER).exits(7);
    rekey(&db, ["resume"]).exits(0);
    db.fast_commits();
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 8000);
}

/// Whoever aborted after the rows were done must be heard before the application is given another key.
#[test]
fn aborted_then_not_promoted() {
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["abort"]).exits(0);
    rekey(&db, ["promote", "--external", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(7);
    assert_eq!(state(&db), "migrated");
    rekey(&db, ["resume"]).exits(0);
    rekey(&db, ["promote", "--external", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
    rekey(&db, ["abort"]).exits(0);
    rekey(&db, ["finalize", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(7);
}

#[test]
fn aborted_then_rolled_back() {
    let (db, mut judge) = under_way(8000);
    let run = run_in_small_steps(&db).start();
    db.wait_moved(500);
    rekey(&db, ["abort"]).exits(0);
    run.wait_for(Duration::from_secs(15)).expect(9);
    db.fast_commits();
    rekey(&db, ["rollback", "--yes"]).exits(0);
    judge.all_on(&db, OLD);
}

#[test]
fn past_its_deadline() {
    let (db, mut judge) = under_way(4000);
    let run = run_in_small_steps(&db).args(["--deadline", "2s"]).start();
    run.wait_for(Duration::from_secs(20)).expect(9);
    judge.none_lost(&db, &[OLD, NEW]);
    let moved = db.moved();
    assert!(moved > 0 && moved < 4000, "{moved} rows in 2 s");
    // It is stored with the rotation: another pod ends at once, too.
    run_in_small_steps(&db).exits(9);
    db.fast_commits();
    run_in_small_steps(&db).args(["--deadline", "5m"]).exits(0);
    judge.all_on(&db, NEW);
}

#[test]
fn resume_lifts_a_deadline() {
    let (db, mut judge) = under_way(3000);
    run_in_small_steps(&db).args(["--deadline", "1s"]).exits(9);
    run_in_small_steps(&db).exits(9);
    rekey(&db, ["resume"]).exits(0);
    db.fast_commits();
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
}

#[test]
fn a_state_is_refused_before_a_key_is_asked_for() {
    let db = Db::new();
    Load::rows(50).into(&db);
    let keyless =
        |command: &'static str| rekey(&db, [command]).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY");
    for command in ["pause", "resume", "abort", "verify"] {
        keyless(command).exits(7);
    }
    keyless("rollback").args(["--yes"]).exits(7);
    assert!(!db.has_rekey_schema());
    keyless("status").exits(0);
    assert!(!db.has_rekey_schema());
}

#[test]
fn status_before_any_rotation_says_so() {
    let db = Db::new();
    Load::rows(50).into(&db);
    let status = rekey(&db, ["status"]).json(0);
    assert!(status["rotation"].is_null(), "{status:#}");
}

/// Where it is, which key the application reads since when, and whether there is a way back.
#[test]
fn status_says_where_it_is_and_what_can_be_undone() {
    let elsewhere = Db::new();
    elsewhere.execute("DROP TABLE provider_connections");
    assert_eq!(status(&elsewhere)["server"]["has_table"], false);
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["run", "--operator", "maria"]).exits(0);
    let migrated = status(&db);
    assert!(migrated["server"]["database"].as_str().is_some_and(|at| at.ends_with(&db.name)), "{migrated:#}");
    let (old, new) = (&migrated["rotation"]["old_fingerprint"], &migrated["rotation"]["new_fingerprint"]);
    let key = &migrated["current_key"];
    assert_eq!((&key["role"], &key["fingerprint"]), (&"old".into(), old), "{migrated:#}");
    assert!(key["promoted"].is_null() && migrated["rollback_possible"] == true, "{migrated:#}");
    let promote = ["promote", "--external", "--yes", "--operator", "maria"];
    rekey(&db, promote).env("ENCRYPTION_KEY", NEW).exits(0);
    let promoted = status(&db);
    let key = &promoted["current_key"];
    assert_eq!((&key["role"], &key["fingerprint"]), (&"new".into(), new), "{promoted:#}");
    assert_eq!((&key["promoted"]["operator"], &key["due_in_days"]), (&"maria".into(), &90.into()));
    rekey(&db, ["finalize", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
    assert_eq!(status(&db)["rollback_possible"], false);
}

/// A killed process is told apart, and what it said last is no rate. Three of them fit a terminal of 80 columns and 24 lines.
#[test]
fn status_tells_the_dead_from_the_living() {
    let (db, _) = under_way(8000);
    let mut runs: Vec<_> =
        (0..3).map(|_| rekey(&db, ["run", "--chunk-rows", "400", "--batch-rows", "50"]).start()).collect();
    let all = || status(&db)["processes"].as_array().map_or(0, Vec::len);
    until("three processes", SOON, || (all() == 3).then_some(()));
    let screen = rekey(&db, ["status"]).exits(0).stdout;
    let lines: usize = screen.lines().map(|line| line.chars().count().div_ceil(80).max(1)).sum();
    assert!(lines < 24, "{lines} lines: {screen}");
    runs.drain(..).for_each(|run| drop(run.kill()));
    until("them to be silent", SOON, || {
        let screen = rekey(&db, ["status"]).exits(0).stdout;
        (screen.matches("dead or frozen").count() == 3).then_some(())
    });
    let now = status(&db);
    let progress = &now["progress"];
    assert!(progress["rows_per_second"] == 0.0 && progress["eta_seconds"].is_null(), "{progress}");
    assert_eq!(all(), 3, "silent, and still there");
    assert_eq!(now["next"][0], "rekey run");
}

#[test]
fn init_twice_and_by_several_at_once() {
    let db = Db::new();
    Load::rows(50).into(&db);
    let inits: Vec<_> = (0..4).map(|_| rekey(&db, ["init"]).start()).collect();
    for init in inits {
        init.wait().expect(0);
    }
    rekey(&db, ["init"]).exits(0);
    assert!(db.has_rekey_schema());
    let ours: i64 =
        db.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE '%sqlx%'");
    assert_eq!(ours, 0);
    rekey(&db, ["run"]).exits(0);
}

#[test]
fn every_change_of_state_is_an_event() {
    let (db, _) = under_way(600);
    db.fast_commits();
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["verify"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    let events: i64 = db.value("SELECT count(*) FROM rekey.events");
    assert!(events >= 4, "{events} events");
    assert_eq!(state(&db), "rolled_back");
}

/// A pod that replaces another one brings the Job's deadline along: the window stays as the first one opened it.
#[test]
fn a_standing_deadline_opens_a_window_and_moves_none() {
    let db = Db::new();
    Load::rows(50).into(&db);
    let end = || db.value::<f64>("SELECT extract(epoch FROM deadline)::float8 FROM rekey.rotations");
    let pod = |hours: &str| rekey(&db, ["run"]).env("REKEY_DEADLINE", hours);
    pod("1h").exits(0);
    let first = end();
    pod("3h").exits(0);
    assert_eq!(end(), first);
    rekey(&db, ["run", "--deadline", "3h"]).exits(0);
    assert!(end() > first + 3600.0);
    // The way back is a window of its own.
    rekey(&db, ["run", "--deadline", "5m"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).env("REKEY_DEADLINE", "1h").exits(0);
}

/// A deadline is the rotation's: whoever brings another one along moves it for every process, and each says by whom.
#[test]
fn a_deadline_that_is_moved_is_announced_with_its_author() {
    let (db, _) = under_way(4000);
    let first = run_in_small_steps(&db).args(["--deadline", "3h"]).start();
    db.wait_moved(200);
    let late = run_in_small_steps(&db).args(["--deadline", "1h", "--operator", "maria"]).start();
    let moved = "SELECT count(*) FROM rekey.events WHERE action = 'deadline'";
    until("the deadline to be moved", SOON, || (db.value::<i64>(moved) == 2).then_some(()));
    let said = "SELECT operator || ' ' || (detail->>'now' < detail->>'was') FROM rekey.events \
                WHERE action = 'deadline' ORDER BY seq DESC LIMIT 1";
    assert_eq!(db.value::<String>(said), "maria true");
    db.wait_moved(db.moved() + 400);
    db.fast_commits();
    let late = late.wait().expect(0);
    assert!(late.stderr.contains("earlier"), "{late}");
    let first = first.wait().expect(0);
    assert!(first.stderr.contains("maria"), "{first}");
}

/// Until such a deadline no row could be moved.
#[test]
fn a_deadline_before_the_window_opens_is_refused() {
    let db = Db::new();
    Load::rows(20).into(&db);
    let hours: String = db.value(
        "SELECT to_char(now() AT TIME ZONE 'UTC' + interval '3 hours', 'HH24:MI') || '-' || \
         to_char(now() AT TIME ZONE 'UTC' + interval '4 hours', 'HH24:MI')",
    );
    rekey(&db, ["run", "--window", &hours, "--deadline", "1h"]).exits(2);
    assert!(!db.has_rekey_schema());
}

#[test]
fn a_dry_run_past_its_deadline() {
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["run", "--dry-run", "--deadline", "2020-01-01T00:00:00Z"]).exits(9);
    rekey(&db, ["run", "--dry-run", "--deadline", "1h"]).exits(0);
}

/// The server's clock was set back since the last rotation ended.
#[test]
fn a_rotation_that_seems_older_than_the_one_before() {
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    db.execute("UPDATE rekey.rotations SET created_at = created_at + interval '1 hour'");
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    assert_eq!(state(&db), "rolled_back");
    rekey(&db, ["verify"]).exits(0);
}
