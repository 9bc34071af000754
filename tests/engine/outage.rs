//! The database goes away: it is waited for, or the process ends with 69, and the next run finishes.

use std::time::Duration;

use crate::support::load::{Load, some_ids};
use crate::support::{
    Cluster, Db, Judge, NEW, OLD, SOON, Stop, block_on, rekey, rekey_without_database, run_in_small_steps,
    total, until,
};

/// Stops the server in the midst of a run and starts it again at once; the run carries on by itself.
fn carries_on_after(how: Stop) {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(8000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(30));
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
    assert_eq!(total(&db, "re_encrypted"), 8000);
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
    Load::rows(8000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(30));
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
    assert_eq!(total(&db, "re_encrypted"), 8000);
}

/// It is there, accepts connections, and answers nothing: timeouts everywhere, or this hangs.
#[test]
fn the_server_freezes() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(8000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(30));
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
    Load::rows(8000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(30));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut run = run_in_small_steps(&db).start();
    for part in 1..=5 {
        db.wait_moved(part * 400);
        assert!(run.running(), "{}", run.wait());
        db.terminate_other_sessions();
    }
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 8000);
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

/// Patience is for faults without progress between them: two hours of work may meet two of them.
#[test]
fn faults_far_apart_are_not_added_up() {
    let db = Db::new();
    Load::rows(4000).into(&db);
    db.mark();
    let mut judge = Judge::look(&db, &[OLD]);
    // One segment, and longer than the patience.
    let run = rekey(&db, ["run", "--workers", "1", "--retry-for", "1s", "--max-rate", "800"]).start();
    for moved in [400, 2400] {
        db.wait_moved(moved);
        db.terminate_other_sessions();
    }
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}

/// The connection that is to record the result has been idle for as long as the table took.
#[test]
fn a_verify_outlives_its_idle_connection() {
    let db = Db::new();
    Load::rows(200).into(&db);
    rekey(&db, ["run"]).exits(0);
    let mut lock = block_on(db.pool().begin()).expect("a transaction");
    block_on(sqlx::raw_sql("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE").execute(&mut *lock))
        .expect("a lock");
    let verify = rekey(&db, ["verify"]).start();
    until("its readers to wait", SOON, || (db.waiting_for_the_table() > 0).then_some(()));
    db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name <> 'judge' AND state = 'idle'",
    );
    block_on(lock.rollback()).expect("the lock goes");
    verify.wait().expect(0);
}

/// Two workers who take turns at a row that fails every time are no progress.
#[test]
fn a_fault_that_comes_again_and_again_ends_the_run() {
    let db = Db::new();
    Load::rows(200).into(&db);
    let id = some_ids(&db, 1, 7)[0];
    db.execute(&format!(
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.id = '{id}' THEN RAISE EXCEPTION 'not now' USING ERRCODE = 'query_canceled'; END IF;
             RETURN NEW; END $$;
         CREATE TRIGGER fails BEFORE UPDATE ON provider_connections FOR EACH ROW EXECUTE FUNCTION fails()"
    ));
    let mut judge = Judge::look(&db, &[OLD]);
    let run = rekey(&db, ["run", "--workers", "2", "--retry-for", "2s", "--allow", "user-triggers"]).start();
    run.wait_for(Duration::from_secs(30)).expect(69);
    db.execute("DROP TRIGGER fails ON provider_connections");
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
}
