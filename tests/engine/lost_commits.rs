//! Commits that the server had answered and lost all the same: with a crash, or with a primary that died before its
//! standby had them. Transaction ids are used again after that, by the application. And commits that nobody answers,
//! because a synchronous standby is gone.

mod reused;

use std::time::Duration;

use rustix::process::Signal;

use crate::support::load::{Load, some_ids, store};
use crate::support::proxy::Proxy;
use crate::support::{
    Cluster, Db, Judge, NEW, OLD, Rekey, Running, SOON, Stop, rekey, run_in_small_steps, total, until,
};

/// The next transaction id that the server will hand out.
fn next_transaction(db: &Db) -> i64 {
    db.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
}

/// Token refreshes, one transaction each, until the id `until_id` is used up: rows that were moved and lost, rows that
/// a frozen worker has read, rows it has not.
fn refresh_past(db: &Db, judge: &mut Judge, until_id: i64) -> usize {
    let ids = some_ids(db, 400, 7);
    let mut writes = 0;
    while next_transaction(db) <= until_id + 20 {
        let id = ids[writes % ids.len()];
        let plaintext = format!("{{\"access_token\":\"refreshed after the crash {writes}\"}}");
        store(db, id, OLD, plaintext.as_bytes());
        judge.expect(id, plaintext.as_bytes());
        writes += 1;
        assert!(writes < 5000, "ids are not handed out");
    }
    writes
}

/// Rows that lie on the new key and were not counted, or the other way round.
fn uncounted(db: &Db) -> i64 {
    let moved: i64 = db.value("SELECT coalesce(sum(cardinality(ids)), 0)::bigint FROM rekey.proofs");
    let counted: i64 = db.value("SELECT coalesce(sum(re_encrypted), 0)::bigint FROM rekey.chunks");
    moved - counted
}

/// A run that has read many rows that it has not written yet.
fn in_large_chunks(db: &Db) -> Rekey {
    rekey(db, ["run", "--chunk-rows", "1500", "--batch-rows", "20", "--lease-ttl", "3s"]).args(UNHINDERED)
}

/// A standby that is cut off holds up no run.
const UNHINDERED: [&str; 2] = ["--ignore-replica", "walreceiver"];

/// A worker is frozen with rows it has read; the server dies with commits that were not on disk; the application writes
/// under the same transaction ids; the worker wakes up.
#[test]
fn a_crash_hands_transaction_ids_out_again() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    db.execute("ALTER SYSTEM SET wal_writer_delay = '10s'");
    // Else the WAL writer is woken by what is written.
    db.execute("ALTER SYSTEM SET wal_writer_flush_after = '1GB'");
    db.execute("SELECT pg_reload_conf()");
    Load::rows(3000).nulls(3).into(&db);
    db.mark();
    let mut judge = Judge::look(&db, &[OLD]);
    let mut reused = 0;
    // Commits that do not wait for the disk take no time.
    let run = in_large_chunks(&db).args(["--max-rate", "800", "--retry-for", "5m"]).start();
    for part in 1..=3 {
        db.wait_moved(part * 300);
        run.signal(Signal::STOP);
        // The last commits before the crash, which none that waits for the disk comes after.
        let write =
            "BEGIN; UPDATE judge.mark SET iv = iv WHERE id = (SELECT id FROM judge.mark LIMIT 1); COMMIT;";
        db.execute(&format!("SET synchronous_commit = off; {}; RESET synchronous_commit", write.repeat(30)));
        let before = next_transaction(&db);
        cluster.stop(Stop::Kill);
        cluster.boot();
        judge.none_lost(&db, &[OLD, NEW]);
        assert_eq!(uncounted(&db), 0, "rows and counters are lost together");
        if next_transaction(&db) < before {
            reused += 1;
        }
        refresh_past(&db, &mut judge, before);
        run.signal(Signal::CONT);
    }
    assert!(reused > 0, "no crash handed transaction ids out again: this tests nothing");
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(uncounted(&db), 0);
    assert_eq!(rekey(&db, ["verify"]).json(0)["clean"], true);
}

/// A primary with a standby that follows it asynchronously, and an address that can be turned from one to the other.
struct Pair {
    primary_server: Cluster,
    standby_server: Cluster,
    primary: Db,
    standby: Db,
    address: Proxy,
}

impl Pair {
    fn new(rows: u64) -> Pair {
        Pair::with("", Load::rows(rows).nulls(3))
    }

    fn with(settings: &str, load: Load) -> Pair {
        let primary_server = Cluster::with(settings);
        let primary = Db::on(&primary_server);
        load.into(&primary);
        primary.mark();
        let standby_server = primary_server.standby();
        let standby = Db::existing(&standby_server, &primary.name);
        let address = Proxy::faithful(&primary);
        let pair = Pair { primary_server, standby_server, primary, standby, address };
        pair.catch_up();
        pair
    }

    fn catch_up(&self) {
        let target: String = self.primary.value("SELECT pg_current_wal_flush_lsn()::text");
        until("the standby to catch up", SOON, || {
            let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn");
            self.standby.try_value::<bool>(&sql).is_ok_and(|caught_up| caught_up).then_some(())
        });
    }

    /// From now on the standby gets nothing any more.
    fn cut(&self) {
        self.standby.execute("ALTER SYSTEM SET primary_conninfo = ''");
        self.standby.execute("SELECT pg_reload_conf()");
        until("the stream to end", SOON, || {
            (self.standby.value::<i64>("SELECT count(*) FROM pg_stat_wal_receiver") == 0).then_some(())
        });
    }

    /// The primary dies, the standby takes over, and the address leads to it.
    fn fail_over(&self) {
        self.primary_server.stop(Stop::Immediate);
        self.standby.execute("SELECT pg_promote(true, 60)");
        self.address.turn_to(&self.standby);
    }
}

/// What was committed after the stream ended is gone with the primary: rows, proofs and checkpoints. The run that was
/// under way goes on at the new primary as if nothing had been.
#[test]
fn a_standby_without_the_last_transactions_takes_over() {
    let pair = Pair::new(8000);
    pair.primary.slow_batches(Duration::from_millis(20));
    let mut judge = Judge::look(&pair.primary, &[OLD]);
    let mut run = in_large_chunks(&pair.primary).env("DATABASE_URL", pair.address.url(&pair.primary)).start();
    pair.primary.wait_moved(400);
    pair.catch_up();
    pair.cut();
    let moved_there = pair.standby.moved();
    pair.primary.wait_moved(moved_there + 300);
    assert!(run.running(), "{}", run.wait());
    run.signal(Signal::STOP);
    let lost = next_transaction(&pair.primary);
    pair.fail_over();
    judge.none_lost(&pair.standby, &[OLD, NEW]);
    assert_eq!(uncounted(&pair.standby), 0);
    assert!(next_transaction(&pair.standby) < lost, "transactions were lost");
    pair.standby.fast_commits();
    refresh_past(&pair.standby, &mut judge, lost);
    run.signal(Signal::CONT);
    run.wait().expect(0);
    judge.all_on(&pair.standby, NEW);
    assert_eq!(uncounted(&pair.standby), 0);
    assert_eq!(rekey(&pair.standby, ["verify"]).json(0)["clean"], true);
}

/// The new primary has never heard of the rotation: the run says so, nothing is lost, and the next one starts it anew.
#[test]
fn a_standby_without_the_rotation_takes_over() {
    let pair = Pair::new(8000);
    pair.primary.slow_batches(Duration::from_millis(20));
    let mut judge = Judge::look(&pair.primary, &[OLD]);
    pair.cut();
    let mut run = run_in_small_steps(&pair.primary)
        .args(UNHINDERED)
        .env("DATABASE_URL", pair.address.url(&pair.primary))
        .start();
    pair.primary.wait_moved(300);
    assert!(run.running(), "{}", run.wait());
    pair.fail_over();
    run.wait().expect(69);
    judge.all_on(&pair.standby, OLD);
    run_in_small_steps(&pair.standby).exits(0);
    judge.all_on(&pair.standby, NEW);
    assert_eq!(total(&pair.standby, "re_encrypted"), judge.openable() as i64);
}

/// A run whose COMMITs wait for a synchronous standby that is gone. `more` are further arguments of its.
fn waiting_for_a_dead_standby(pair: &Pair, more: &[&str]) -> Running {
    let primary = &pair.primary;
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.execute("SELECT pg_reload_conf()");
    until("the setting to arrive", SOON, || {
        (primary.value::<String>("SHOW synchronous_standby_names") == "*").then_some(())
    });
    let run = in_large_chunks(primary).args(["--max-rate", "800"]).more(more).start();
    primary.wait_moved(300);
    pair.standby_server.stop(Stop::Immediate);
    until("a COMMIT that waits for the standby", SOON, || (commits_waiting(primary) > 0).then_some(()));
    run
}

/// COMMITs that wait for a standby; those of one statement alone, like a heartbeat's, are not among them.
fn commits_waiting(db: &Db) -> i64 {
    db.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'")
}

/// Asked to stop meanwhile, the run does not wait for the standby. Its last COMMITs are in on this server once that is
/// back, and are counted once.
#[test]
fn a_synchronous_standby_dies() {
    let pair = Pair::new(1500);
    let mut judge = Judge::look(&pair.primary, &[OLD]);
    let run = waiting_for_a_dead_standby(&pair, &[]);
    run.signal(Signal::TERM);
    run.wait_for(Duration::from_secs(25)).expect(75);
    assert!(commits_waiting(&pair.primary) > 0, "the standby is still away");
    judge.none_lost(&pair.primary, &[OLD, NEW]);
    assert_eq!(uncounted(&pair.primary), 0);
    pair.standby_server.boot();
    pair.primary.wait_alone();
    judge.none_lost(&pair.primary, &[OLD, NEW]);
    assert_eq!(uncounted(&pair.primary), 0);
    all_moved_and_counted_once(&pair.primary, &mut judge, run_in_small_steps(&pair.primary).start());
}

/// The answer is given up, the connection with it, and both workers come back to find out whether the batch is in.
#[test]
fn a_commit_waits_for_a_standby_longer_than_anybody_waits_for_an_answer() {
    let pair = Pair::new(1500);
    let mut judge = Judge::look(&pair.primary, &[OLD]);
    let folder = tempfile::tempdir().expect("a folder");
    let metrics = folder.path().join("metrics");
    let run = waiting_for_a_dead_standby(&pair, &["--metrics-file", metrics.to_str().expect("UTF-8")]);
    // 6.35 s with a lease of 3 s (`answer_limit` in src/store/connect.rs).
    let long = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'
                AND clock_timestamp() - query_start > interval '8 s')";
    until("a COMMIT that has waited for 8 s", SOON, || pair.primary.value::<bool>(long).then_some(()));
    judge.none_lost(&pair.primary, &[OLD, NEW]);
    assert_eq!(uncounted(&pair.primary), 0);
    pair.standby_server.boot();
    all_moved_and_counted_once(&pair.primary, &mut judge, run);
    let metrics = std::fs::read_to_string(&metrics).expect("the file is there");
    assert!(metrics.contains("rekey_retries_total{sqlstate=\"connection\""), "{metrics}");
}

fn all_moved_and_counted_once(db: &Db, judge: &mut Judge, run: Running) {
    run.wait().expect(0);
    judge.all_on(db, NEW);
    assert_eq!(total(db, "re_encrypted"), judge.openable() as i64);
    assert_eq!(total(db, "lost_races"), 0, "nobody else wrote");
    assert_eq!(uncounted(db), 0);
    rekey(db, ["verify"]).exits(0);
}

/// A row of the application's, saved under the old key after the run.
fn straggler(db: &Db, judge: &mut Judge) {
    let id = some_ids(db, 1, 11)[0];
    store(db, id, OLD, b"{\"access_token\":\"saved after the run\"}");
    judge.expect(id, b"{\"access_token\":\"saved after the run\"}");
}

/// A ledger restored from a dump has the transaction ids of another database: they vouch for nothing here.
#[test]
fn a_proof_from_another_database_vouches_for_nobody() {
    let db = Db::new();
    Load::rows(500).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    run_in_small_steps(&db).exits(0);
    straggler(&db, &mut judge);
    db.execute(
        "UPDATE rekey.proofs SET xid = (SELECT max(xmin::text::bigint) FROM provider_connections)::text::xid8
         WHERE id = (SELECT min(id) FROM rekey.proofs)",
    );
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
}

/// Nor has its horizon been reached yet.
#[test]
fn a_horizon_from_another_database_is_none() {
    let db = Db::new();
    Load::rows(500).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    run_in_small_steps(&db).exits(0);
    straggler(&db, &mut judge);
    let far = "(pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000)::text::xid8";
    db.execute(&format!("UPDATE rekey.passes SET horizon = {far}, next_horizon = {far}"));
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
}
