//! SIGTERM ends every command within its ten seconds: whatever it waits for, and whatever the database does.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::load::Load;
use crate::support::{
    Cluster, Db, Judge, NEW, OLD, Running, SOON, rekey, rekey_without_database, run_in_small_steps, until,
};

/// After nine seconds a process gives up what hangs; the rest is what a busy machine adds.
const LIMIT: Duration = Duration::from_secs(20);

fn ends_on_sigterm(mut process: Running) {
    assert!(process.running(), "it should be waiting:\n{}", process.wait());
    process.signal(Signal::TERM);
    process.wait_for(LIMIT).expect(75);
}

/// A server that takes connections and says nothing.
#[test]
fn while_it_connects() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://someone@{}/somewhere", silent.local_addr().unwrap());
    let commands: [&[&str]; 17] = [
        &["run"],
        &["run", "--dry-run"],
        &["plan"],
        &["verify"],
        &["rollback", "--yes"],
        &["status"],
        &["status", "--watch"],
        &["init"],
        &["pause"],
        &["quarantine", "list"],
        &["promote", "--yes"],
        &["finalize", "--yes"],
        &["report"],
        &["resume"],
        &["abort"],
        &["quarantine", "retry"],
        &["quarantine", "accept", "00000000-0000-7000-8000-000000000001", "--yes", "--reason", "none"],
    ];
    let started: Vec<Running> = commands
        .iter()
        .map(|command| {
            rekey_without_database([])
                .more(command)
                .env("DATABASE_URL", &url)
                .env("ENCRYPTION_KEY", OLD)
                .env("NEW_ENCRYPTION_KEY", NEW)
                .start()
        })
        .collect();
    // Each has connected once.
    for _ in commands {
        std::mem::forget(silent.accept().unwrap());
    }
    for process in &started {
        process.signal(Signal::TERM);
    }
    for process in started {
        process.wait_for(LIMIT).expect(75);
    }
}

/// DDL holds the table before the first row is looked at.
#[test]
fn while_the_table_is_locked_before_the_start() {
    let db = Db::new();
    Load::rows(300).into(&db);
    rekey(&db, ["run"]).exits(0);
    for command in [&["run"][..], &["run", "--dry-run"], &["plan"], &["verify"], &["rollback", "--yes"]] {
        let mut holder = db.hold();
        holder.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
        let process = rekey(&db, []).more(command).start();
        until("a blocked session", SOON, || (db.waiting_for_the_table() > 0).then_some(()));
        ends_on_sigterm(process);
        holder.rollback();
        // A session whose client is gone waits for its lock all the same: the next round must not take it for its own.
        until("the sessions to end", SOON, || {
            let left: i64 = db.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'judge'",
            );
            (left == 0).then_some(())
        });
    }
}

/// It is there, and answers nothing any more.
#[test]
fn while_the_server_is_frozen() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(6000).into(&db);
    db.mark();
    let mut judge = Judge::look(&db, &[OLD]);
    let verify = || rekey(&db, ["verify", "--workers", "1"]);
    let rollback = || rekey(&db, ["rollback", "--yes", "--batch-rows", "20"]);
    for (command, rows) in [(run_in_small_steps(&db), 2000), (rollback(), 100)] {
        db.slow_batches(Duration::from_millis(20));
        db.mark();
        let process = command.start();
        db.wait_moved(rows);
        cluster.freeze(true);
        process.signal(Signal::TERM);
        let ended = process.wait_for(LIMIT);
        cluster.freeze(false);
        ended.expect(75);
        judge.none_lost(&db, &[OLD, NEW]);
    }
    db.fast_commits();
    cluster.freeze(true);
    let process = verify().start();
    std::thread::sleep(Duration::from_millis(300));
    process.signal(Signal::TERM);
    let ended = process.wait_for(LIMIT);
    cluster.freeze(false);
    ended.expect(75);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    judge.all_on(&db, OLD);
}
