//! Several processes on one table: joined, killed, frozen past their lease and thawed.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, SOON, block_on, rekey, run_in_small_steps, total, until};
use rustix::process::Signal;

/// Waits until so many processes say that they are at work.
pub fn wait_for_processes(db: &Db, number: i64) {
    until(&format!("{number} processes to be at work"), SOON, || {
        // There is no such table at first.
        let there = db.try_value::<i64>("SELECT count(*) FROM rekey.processes");
        there.is_ok_and(|there| there == number).then_some(())
    });
}

#[test]
fn processes_started_in_the_same_moment_share_one_rotation() {
    let db = Db::new();
    Load::rows(6000).nulls(5).into(&db);
    db.slow_batches(Duration::from_millis(3));
    let mut judge = Judge::look(&db, &[OLD]);
    assert!(!db.has_rekey_schema(), "one of them makes it");
    let runs: Vec<_> = (0..8)
        .map(|_| rekey(&db, ["run", "--chunk-rows", "400", "--batch-rows", "50", "--workers", "1"]).start())
        .collect();
    for run in runs {
        run.wait().expect(0);
    }
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), judge.openable() as i64);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.rotations"), 1);
    rekey(&db, ["verify"]).exits(0);
}

/// The pods of a Job that rolls back: one turns the rotation and one ends it, and all of them end with 0.
#[test]
fn rollbacks_started_in_the_same_moment_share_the_work() {
    let db = Db::new();
    Load::rows(3000).nulls(5).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    db.slow_batches(Duration::from_millis(3));
    let small = ["--yes", "--chunk-rows", "200", "--batch-rows", "50", "--workers", "1", "--lease-ttl", "3s"];
    let all: Vec<_> = (0..4).map(|_| rekey(&db, ["rollback"]).args(small).start()).collect();
    for one in all {
        one.wait().expect(0);
    }
    judge.all_on(&db, OLD);
    assert_eq!(db.value::<String>("SELECT state FROM rekey.rotations"), "rolled_back");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.events WHERE action = 'rolling_back'"), 1);
}

/// The frozen process wakes up when its chunks are long done by others: its batch must not be committed.
#[test]
fn one_is_killed_and_one_is_frozen_past_its_lease() {
    let db = Db::new();
    Load::rows(12_000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let mut judge = Judge::look(&db, &[OLD]);
    let killed = run_in_small_steps(&db).start();
    let frozen = run_in_small_steps(&db).start();
    let living = run_in_small_steps(&db).start();
    wait_for_processes(&db, 3);
    db.wait_moved(1200);
    frozen.signal(Signal::STOP);
    killed.kill();
    judge.none_lost(&db, &[OLD, NEW]);
    living.wait().expect(0);
    // The living one did everything, the frozen one's share too.
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 12_000);
    let content = db.content();
    frozen.signal(Signal::CONT);
    let outcome = frozen.wait();
    assert!(matches!(outcome.code(), Some(0)), "thawed, it finds the work done:\n{outcome}");
    assert_eq!(db.content(), content, "thawed, it commits nothing");
    assert_eq!(total(&db, "re_encrypted"), 12_000);
}

/// Frozen again and again for longer than its lease, with another process beside it the whole time.
#[test]
fn frozen_and_thawed_while_others_go_on() {
    let db = Db::new();
    Load::rows(4000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut sleeper = run_in_small_steps(&db).args(["--workers", "1"]).start();
    let mut other = run_in_small_steps(&db).args(["--workers", "1"]).start();
    wait_for_processes(&db, 2);
    for _ in 0..3 {
        let target = db.moved() + 300;
        until("both to get on", SOON, || (db.moved() >= target || !sleeper.running()).then_some(()));
        sleeper.signal(Signal::STOP);
        // Past the lease of 3 s: this wait is the point of the test.
        std::thread::sleep(Duration::from_millis(4200));
        sleeper.signal(Signal::CONT);
        judge.none_lost(&db, &[OLD, NEW]);
        if !other.running() {
            break;
        }
    }
    sleeper.wait().expect(0);
    other.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 4000);
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn a_second_process_may_join_midway_and_leave_again() {
    let db = Db::new();
    Load::rows(12_000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(30));
    let mut judge = Judge::look(&db, &[OLD]);
    let first = run_in_small_steps(&db).start();
    db.wait_moved(500);
    let guest = run_in_small_steps(&db).start();
    wait_for_processes(&db, 2);
    db.wait_moved(1500);
    guest.signal(Signal::TERM);
    guest.wait_for(Duration::from_secs(10)).expect(75);
    first.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 12_000);
}

/// Pods that start together write their events one after the other, however long the link makes each take.
#[test]
fn the_head_of_the_audit_chain_is_waited_for() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["init"]).exits(0);
    let mut other = block_on(db.pool().begin()).expect("a transaction");
    block_on(sqlx::raw_sql("SELECT FROM rekey.chain FOR UPDATE").execute(&mut *other)).expect("the head");
    let run = rekey(&db, ["run"]).start();
    // Longer than a session's lock_timeout.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event_type = 'Lock' AND query_start < clock_timestamp() - interval '1 s'";
    until("it to wait", SOON, || (db.value::<i64>(waits) > 0).then_some(()));
    block_on(other.rollback()).expect("the head is free");
    run.wait().expect(0);
}
