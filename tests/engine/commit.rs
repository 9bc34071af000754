//! COMMITs whose answer never comes: in or not in, each row is moved once and counted once.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::proxy::{Loss, Proxy};
use crate::support::{Db, Ids, Judge, NEW, OLD, rekey, run_in_small_steps, state, total};

/// Loses one in nine COMMITs of a run, and then of a rollback.
fn lost(loss: Loss, load: Load) {
    let (db, mut judge) = lost_at_times(loss, load, 9, 5);
    let rows = judge.openable() as i64;
    let proxy = Proxy::before(&db, loss, 9);
    let steps = ["--chunk-rows", "400", "--batch-rows", "50", "--lease-ttl", "3s"];
    let back = || rekey(&db, ["rollback", "--yes"]).args(steps).env("DATABASE_URL", proxy.url(&db)).run();
    let mut outcome = back();
    // The turn's COMMIT, or that of the end: whether it is in is found out by the next process.
    for _ in 0..2 {
        if outcome.code() == Some(69) {
            outcome = back();
        }
    }
    let outcome = outcome.expect(0);
    assert!(proxy.lost() >= 4, "only {} COMMITs were lost by\n{outcome}", proxy.lost());
    judge.all_on(&db, OLD);
    assert_eq!(state(&db), "rolled_back");
    assert_eq!(counted(&db, "backward", "re_encrypted"), rows, "{outcome}");
    assert_eq!(
        counted(&db, "backward", "already_on_key"),
        0,
        "a row of ours is not somebody else's:\n{outcome}"
    );
    assert_eq!(counted(&db, "backward", "lost_races"), 0, "nobody else wrote:\n{outcome}");
}

/// Loses one in `every` COMMITs of a run, and at least `least` of them.
fn lost_at_times(loss: Loss, load: Load, every: i64, least: usize) -> (Db, Judge) {
    let db = Db::new();
    let rows = load.shape.rows as i64;
    load.into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let proxy = Proxy::before(&db, loss, every);
    let outcome = run_in_small_steps(&db).env("DATABASE_URL", proxy.url(&db)).exits(0);
    assert!(proxy.lost() >= least, "only {} COMMITs were lost by\n{outcome}", proxy.lost());
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), rows, "{} COMMITs were lost by\n{outcome}", proxy.lost());
    assert_eq!(
        counted(&db, "forward", "already_on_key"),
        0,
        "a row of ours is not somebody else's:\n{outcome}"
    );
    assert_eq!(counted(&db, "forward", "lost_races"), 0, "nobody else wrote:\n{outcome}");
    let found = rekey(&db, ["verify"]).json(0);
    assert_eq!(found["identical"], rows, "{found:#}");
    (db, judge)
}

/// A counter, summed over the chunks of one direction.
fn counted(db: &Db, direction: &str, counter: &str) -> i64 {
    db.value(&format!(
        "SELECT sum(c.{counter})::bigint FROM rekey.chunks c JOIN rekey.passes p USING (rotation, pass)
         WHERE p.direction = '{direction}'"
    ))
}

#[test]
fn the_answer_is_lost() {
    lost(Loss::Answer, Load::rows(3000));
}

#[test]
fn the_answer_is_lost_with_scattered_ids() {
    lost(Loss::Answer, Load::rows(3000).ids(Ids::V4));
}

#[test]
fn the_request_is_lost() {
    lost(Loss::Request, Load::rows(3000));
}

/// The old backend commits when the worker has long reconnected: the chunk's lock is waited for, then it is known.
#[test]
fn the_old_backend_is_still_at_it() {
    lost(Loss::Late(Duration::from_millis(700)), Load::rows(1500));
}

#[test]
fn the_connection_ends_within_the_answer() {
    lost(Loss::HalfAnswer, Load::rows(3000));
}

#[test]
fn the_connection_ends_within_the_request() {
    lost(Loss::HalfRequest, Load::rows(3000));
}

/// Nobody says that the connection is gone: it is given up once the answer is overdue.
#[test]
fn silence_after_the_commit() {
    lost_at_times(Loss::SilentAnswer, Load::rows(1500), 30, 1);
}

/// The transaction stays open in a backend that hears nothing, and its locks with it, until the server ends it.
#[test]
fn silence_before_the_commit() {
    lost_at_times(Loss::SilentRequest, Load::rows(1500), 30, 1);
}

#[test]
fn a_slow_network() {
    lost_at_times(Loss::Delay(Duration::from_millis(4)), Load::rows(1500), 9, 0);
}
