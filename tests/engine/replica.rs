//! A hot standby of a real primary: what reads works there, what writes refuses, and a dry run leaves no trace.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, Running, SOON, Stop, rekey, run_in_small_steps, until};

/// A primary and its standby.
pub struct Pair {
    pub primary: Db,
    pub standby: Db,
    pub servers: (Cluster, Cluster),
}

/// A primary with `rows` rows and a standby that has them all.
pub fn pair(rows: u64) -> Pair {
    let primary_server = Cluster::start();
    let primary = Db::on(&primary_server);
    // Its transactions would be taken for ours.
    primary.execute("ALTER SYSTEM SET autovacuum = off");
    primary.execute("SELECT pg_reload_conf()");
    Load::rows(rows).nulls(5).into(&primary);
    let standby_server = primary_server.standby();
    let standby = Db::existing(&standby_server, &primary.name);
    let pair = Pair { primary, standby, servers: (primary_server, standby_server) };
    pair.catch_up();
    // It may be read from before it has said how far it is.
    let told = "SELECT count(replay_lsn) FROM pg_stat_replication";
    until("the primary to hear of it", SOON, || (pair.primary.value::<i64>(told) == 1).then_some(()));
    pair
}

impl Pair {
    fn catch_up(&self) {
        let target: String = self.primary.value("SELECT pg_current_wal_lsn()::text");
        until("the standby to catch up", SOON, || {
            let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn");
            self.standby.try_value::<bool>(&sql).is_ok_and(|caught_up| caught_up).then_some(())
        });
    }

    /// The next transaction id that the primary will hand out.
    fn next_transaction(&self) -> String {
        self.primary.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    }
}

#[test]
fn a_dry_run_on_a_hot_standby_assigns_no_transaction() {
    let pair = pair(2500);
    let before = pair.next_transaction();
    let outcome = rekey(&pair.standby, ["run", "--dry-run"]).exits(0);
    outcome.says_none_of(&[OLD]);
    assert_eq!(pair.next_transaction(), before);
    rekey(&pair.standby, ["plan"]).exits(0);
    rekey(&pair.standby, ["status"]).exits(0);

    // On the primary itself, too, it leaves no trace.
    rekey(&pair.primary, ["run", "--dry-run"]).exits(0);
    assert_eq!(pair.next_transaction(), before);
    assert!(!pair.primary.has_rekey_schema());
}

#[test]
fn what_writes_refuses_a_standby_and_verify_works_there() {
    let pair = pair(800);
    rekey(&pair.standby, ["run"]).exits(4);
    rekey(&pair.primary, ["run"]).exits(0);
    pair.catch_up();
    let found = rekey(&pair.standby, ["verify"]).json(0);
    assert_eq!(found["clean"], true, "{found:#}");
    assert_eq!(rekey(&pair.standby, ["status"]).json(0)["rotation"]["state"], "migrated");
    for command in [
        &["run"][..],
        &["rollback", "--yes"],
        &["promote", "--external", "--yes"],
        &["quarantine", "retry"],
        &["quarantine", "accept", "00000000-0000-7000-8000-000000000001", "--yes", "--reason", "none"],
        &["pause"],
        &["resume"],
        &["abort"],
        &["init"],
        &["plan", "--rehearse", "10"],
    ] {
        rekey(&pair.standby, []).more(command).exits(4);
    }
    rekey(&pair.primary, ["promote", "--external", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
    pair.catch_up();
    rekey(&pair.standby, ["finalize", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(4);
    rekey(&pair.primary, ["finalize", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
}

/// What a standby reads is cancelled where it stands in the way of what it replays: asked again.
#[test]
fn statements_that_a_standby_cancels() {
    let pair = pair(400);
    let (primary, standby) = (&pair.primary, &pair.standby);
    standby.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0");
    standby.execute("SELECT pg_reload_conf()");
    let cancelled = || -> i64 {
        standby.value("SELECT confl_lock FROM pg_stat_database_conflicts WHERE datname = current_database()")
    };
    for command in [&["run", "--dry-run"][..], &["verify"]] {
        if command == ["verify"] {
            rekey(primary, ["run"]).exits(0);
            pair.catch_up();
        }
        let (before, stop) = (cancelled(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    primary.execute("BEGIN; LOCK TABLE provider_connections; COMMIT");
                    std::thread::sleep(Duration::from_millis(120));
                }
            });
            let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                until("a statement to be cancelled", SOON, || {
                    let outcome = rekey(standby, []).more(command).run();
                    // A session that the standby ends before the work has begun is not made again.
                    assert!(matches!(outcome.code(), Some(0 | 69)), "{outcome}");
                    (outcome.code() == Some(0) && cancelled() > before).then_some(())
                });
            }));
            stop.store(true, Ordering::Relaxed);
            tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}

/// A port that leads to one server and the other in turn, as a name of several standbys does.
fn alternating(ports: [u16; 2]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for (client, server) in listener.incoming().flatten().zip(ports.into_iter().cycle()) {
            let server = TcpStream::connect(("127.0.0.1", server)).expect("the server listens");
            let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle");
            let (mut from, mut to) = (clone(&client), clone(&server));
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            let (mut from, mut to) = (server, client);
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

/// What one of two standbys has replayed, the other may not have: a verify stays with the one that it began on.
#[test]
fn a_verify_over_a_name_of_several_standbys() {
    let pair = pair(800);
    let other_server = pair.servers.0.standby();
    let other = Db::existing(&other_server, &pair.primary.name);
    other.execute("SELECT pg_wal_replay_pause()");
    // One of them never catches up.
    rekey(&pair.primary, ["run", "--max-replica-lag", "off", "--max-replica-lag-bytes", "off"]).exits(0);
    pair.catch_up();
    let port = alternating([pair.standby.port(), other.port()]);
    let url = pair.standby.url.replace(&format!(":{}/", pair.standby.port()), &format!(":{port}/"));
    let found = rekey(&pair.standby, ["verify"]).env("DATABASE_URL", url).json(0);
    let number = |name: &str| found[name].as_i64().expect("a number");
    assert_eq!((number("identical") + number("null"), number("rows")), (800, 800), "{found:#}");
}

/// The standby is promoted in the middle: what was replicated is there, and the next run goes on from it.
#[test]
fn a_run_goes_on_where_the_promoted_standby_stands() {
    let pair = pair(2000);
    pair.primary.mark();
    pair.primary.slow_batches(Duration::from_millis(20));
    let mut judge = Judge::look(&pair.primary, &[OLD]);
    let run = run_in_small_steps(&pair.primary).start();
    pair.primary.wait_moved(700);
    pair.servers.0.stop(Stop::Immediate);
    run.kill();
    pair.standby.execute("SELECT pg_promote(true, 60)");
    judge.none_lost(&pair.standby, &[OLD, NEW]);
    pair.standby.fast_commits();
    run_in_small_steps(&pair.standby).exits(0);
    judge.all_on(&pair.standby, NEW);
    rekey(&pair.standby, ["verify"]).exits(0);
}

/// A primary that comes back as a standby while a run is at work on it, and a run that has been refused a write.
fn demoted_under_a_run(patience: &'static str) -> (Cluster, Db, Judge, Running) {
    let server = Cluster::start();
    let db = Db::on(&server);
    Load::rows(6000).into(&db);
    let judge = Judge::look(&db, &[OLD]);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    // The one of its shutdown is short then.
    db.execute("CHECKPOINT");
    let run = run_in_small_steps(&db).args(["--retry-for", patience]).start();
    db.wait_moved(300);
    db.fast_commits();
    server.stop(Stop::Fast);
    server.demote();
    server.boot();
    until("a write to be refused", SOON, || {
        server.log().contains("in a read-only transaction").then_some(())
    });
    (server, db, judge, run)
}

#[test]
fn a_server_that_became_a_standby_is_waited_for_until_it_is_the_primary_again() {
    let (_server, db, mut judge, run) = demoted_under_a_run("60s");
    judge.none_lost(&db, &[OLD, NEW]);
    db.execute("SELECT pg_promote(true, 60)");
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn a_server_that_stays_a_standby_is_69() {
    let (_server, db, mut judge, run) = demoted_under_a_run("10s");
    run.wait().expect(69);
    judge.none_lost(&db, &[OLD, NEW]);
    db.execute("SELECT pg_promote(true, 60)");
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
}
