//! The database goes away: it is waited for, or the process ends with 69, and the next run finishes.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{
    Cluster, Db, Judge, NEW, OLD, Stop, rekey, rekey_without_database, run_in_small_steps, total,
};

/// Stops the server in the midst of a run and starts it again at once; the run carries on by itself.
fn carries_on_after(how: Stop) {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(3000).into(&db);
    db.mark();
    db.slow_commits(Duration::from_millis(5));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut run = run_in_small_steps(&db).start();
    for part in 1..=2 {
        db.wait_moved(part * 800);
        assert!(run.running(), "{}", run.wait());
        cluster.stop(how);
        cluster.boot();
        judge.none_lost(&db, &[OLD, NEW]);
    }
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 3000);
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn a_fast_restart() {
    carries_on_after(Stop::Fast);
}

#[test]
fn an_immediate_restart() {
    carries_on_after(Stop::Immediate);
}

#[test]
fn the_server_is_killed() {
    carries_on_after(Stop::Kill);
}

#[test]
fn the_server_stays_away() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(2000).into(&db);
    db.mark();
    db.slow_commits(Duration::from_millis(5));
    let mut judge = Judge::look(&db, &[OLD]);
    let run = run_in_small_steps(&db).args(["--retry-for", "4s"]).start();
    db.wait_moved(600);
    cluster.stop(Stop::Immediate);
    run.wait_for(Duration::from_secs(30)).expect(69);
    cluster.boot();
    judge.none_lost(&db, &[OLD, NEW]);
    db.fast_commits();
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 2000);
}

/// It is there, accepts connections, and answers nothing: timeouts everywhere, or this hangs.
#[test]
fn the_server_freezes() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(2000).into(&db);
    db.mark();
    db.slow_commits(Duration::from_millis(5));
    let mut judge = Judge::look(&db, &[OLD]);
    let run = run_in_small_steps(&db).args(["--retry-for", "5s"]).start();
    db.wait_moved(600);
    cluster.freeze(true);
    let outcome = run.wait_for(Duration::from_secs(75));
    cluster.freeze(false);
    let outcome = outcome.expect(69);
    outcome.says_none_of(&[OLD, NEW]);
    judge.none_lost(&db, &[OLD, NEW]);
    db.fast_commits();
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
}

/// The sessions are killed one by one, again and again, as an administrator or a proxy does.
#[test]
fn sessions_are_terminated_again_and_again() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    db.mark();
    db.slow_commits(Duration::from_millis(6));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut run = run_in_small_steps(&db).start();
    for part in 1..=5 {
        db.wait_moved(part * 400);
        assert!(run.running(), "{}", run.wait());
        db.terminate_other_sessions();
    }
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 3000);
}

#[test]
fn a_server_that_was_never_there() {
    let outcome = rekey_without_database(["run", "--retry-for", "2s"])
        .env("DATABASE_URL", "postgres://someone:a-password-nobody-shows@127.0.0.1:1/dashtam")
        .env("ENCRYPTION_KEY", OLD)
        .env("NEW_ENCRYPTION_KEY", NEW)
        .start()
        .wait_for(Duration::from_secs(20))
        .expect(69);
    outcome.says_none_of(&[OLD, NEW, "a-password-nobody-shows"]);
}
