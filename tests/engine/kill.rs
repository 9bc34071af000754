//! SIGKILL, again and again, then one more run: the same as one clean run. And the signals that ask politely.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{
    Cluster, Db, Ids, Judge, NEW, OLD, Random, SOON, rekey, run_in_small_steps, state, total, until,
};
use rustix::process::Signal;

/// Kills runs at random moments until the table is nearly done, judging the whole table after each, then finishes.
fn killed_until_done(load: Load, seed: u64) {
    let db = Db::new();
    load.into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let mut judge = Judge::look(&db, &[OLD]);
    let rows = judge.openable() as i64;
    let mut random = Random::new(seed);
    let kills = 10;
    for kill in 1..=kills {
        let mut run = run_in_small_steps(&db).start();
        let target = (rows * kill / (kills + 2)).max(db.moved() + 1);
        until("the run to get on", SOON, || (db.moved() >= target || !run.running()).then_some(()));
        if !run.running() {
            // Near its end it may get there before it is killed.
            assert!(kill > kills / 2, "it should still be at work:\n{}", run.wait());
            run.wait().expect(0);
            break;
        }
        // Not at a commit's end only: anywhere.
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        run.kill();
        judge.none_lost(&db, &[OLD, NEW]);
    }
    db.fast_commits();
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), rows, "each row is counted once, however often it was tried");
    assert_eq!(total(&db, "quarantined"), 0);
    let verified = rekey(&db, ["verify"]).json(0);
    assert_eq!(verified["identical"], rows, "{verified:#}");
}

#[test]
fn killed_again_and_again() {
    killed_until_done(Load::rows(4000).mixed().nulls(5), 11);
}

#[test]
fn killed_again_and_again_with_scattered_ids() {
    killed_until_done(Load::rows(4000).ids(Ids::V4), 12);
}

/// Killed in the first milliseconds: while it connects, makes its schema, carves its first chunks.
#[test]
fn killed_while_it_starts() {
    let db = Db::new();
    Load::rows(600).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    for millis in (0..120).step_by(6) {
        let run = run_in_small_steps(&db).start();
        std::thread::sleep(Duration::from_millis(millis));
        run.kill();
        judge.none_lost(&db, &[OLD, NEW]);
    }
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 600);
}

fn asked_to_stop_by(signal: Signal) {
    let db = Db::new();
    Load::rows(10_000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let mut judge = Judge::look(&db, &[OLD]);
    let run = run_in_small_steps(&db).start();
    db.wait_moved(500);
    run.signal(signal);
    run.wait_for(Duration::from_secs(10)).expect(75);
    judge.none_lost(&db, &[OLD, NEW]);
    let moved = db.moved();
    assert!(moved < 10_000, "it stopped midway");
    assert_eq!(total(&db, "re_encrypted"), moved, "what is counted is what is committed");
    assert_eq!(state(&db), "migrating");
    // Its leases were given back: nobody waits for them to expire.
    db.fast_commits();
    let resumed = rekey(&db, ["run", "--lease-ttl", "30s"]).exits(0);
    assert!(resumed.took < Duration::from_secs(20), "{resumed}");
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 10_000);
}

#[test]
fn sigterm_saves_the_checkpoint() {
    asked_to_stop_by(Signal::TERM);
}

#[test]
fn sigint_saves_the_checkpoint() {
    asked_to_stop_by(Signal::INT);
}

/// Someone else holds every row locked: SIGTERM still ends the process within its 10 seconds.
#[test]
fn sigterm_while_the_table_is_locked() {
    let db = Db::new();
    Load::rows(600).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let mut holder = db.hold();
    holder.execute(sqlx::query("SELECT id FROM provider_connections FOR UPDATE"));
    let mut run = run_in_small_steps(&db).start();
    until("a blocked session or an end", SOON, || {
        let chunks = db.has_rekey_schema()
            && db.try_value::<i64>("SELECT count(*) FROM rekey.chunks").is_ok_and(|n| n > 0);
        (chunks || !run.running()).then_some(())
    });
    std::thread::sleep(Duration::from_millis(700));
    run.signal(Signal::TERM);
    run.wait_for(Duration::from_secs(10)).expect(75);
    holder.rollback();
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
}

#[test]
fn a_second_signal_stops_at_once() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(2000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(100));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut run = run_in_small_steps(&db).start();
    db.wait_moved(50);
    // The first one alone is waited for nine seconds in vain.
    cluster.freeze(true);
    run.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    assert!(run.running(), "{}", run.wait());
    // Two that come before it is scheduled are one.
    let ends = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("it to end at once", Duration::from_secs(7), || {
            run.signal(Signal::TERM);
            (!run.running()).then_some(())
        });
    }));
    cluster.freeze(false);
    ends.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    run.wait().expect(75);
    judge.none_lost(&db, &[OLD, NEW]);
    db.fast_commits();
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
}
