//! Waiting costs next to nothing, and says for what.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::load::{Load, some_ids};
use crate::support::{
    Cluster, Db, Judge, NEW, OLD, Rekey, Running, SOON, rekey, run_in_small_steps, status, until,
};

fn run(db: &Db) -> Rekey {
    rekey(db, ["run", "--workers", "8"])
}

/// What `status` gives as the reason, once it gives one that begins like this.
fn reason(db: &Db, begins: &str) -> String {
    until("a reason to wait", SOON, || {
        let said = status(db)["throttle"].as_str().unwrap_or_default().to_owned();
        said.starts_with(begins).then_some(said)
    })
}

fn transactions(db: &Db) -> i64 {
    db.value("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
}

/// A database on a server that does nothing of its own accord, each table of which autovacuum would count as a transaction.
fn quiet() -> Db {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    Db::on(CLUSTER.get_or_init(|| Cluster::with("autovacuum = off")))
}

/// What the server is asked for, with everybody waiting, in transactions a second.
fn asked(db: &Db) -> f64 {
    // Each looks ever less often, and an idle session tells its server within ten seconds what it has done.
    std::thread::sleep(Duration::from_secs(12));
    let (before, since) = (transactions(db), Instant::now());
    std::thread::sleep(Duration::from_secs(12));
    (transactions(db) - before) as f64 / since.elapsed().as_secs_f64()
}

/// How long a run takes to end once nothing holds it up any more.
fn goes_on(run: Running, since: Instant) {
    run.wait().expect(0);
    assert!(since.elapsed() < Duration::from_secs(6), "it went on after {:?}", since.elapsed());
}

#[test]
fn for_a_row_that_somebody_holds() {
    let db = quiet();
    Load::rows(300).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let id = some_ids(&db, 1, 7)[0];
    let mut holder = db.hold();
    holder.execute(sqlx::query("SELECT FROM provider_connections WHERE id = $1 FOR UPDATE").bind(id));
    let pid = holder.pid();
    let run = run(&db).start();
    let said = reason(&db, "row held");
    let holds = format!("row {id} held by pid {pid} (");
    assert!(said.contains(&holds) && said.contains("idle in transaction for"), "{said}");
    let process = &status(&db)["processes"][0];
    assert_eq!((&process["reason"], &process["waits"]), (&"row held".into(), &true.into()), "{process}");
    // All of them wait, for as long as they like: a transaction now and then.
    let alone = asked(&db);
    assert!(alone < 5.0, "{alone} transactions a second while 8 workers wait");
    // Others wait as well, and none of them for long once there is work.
    let others = [(); 2].map(|()| self::run(&db).start());
    until("three processes", SOON, || (status(&db)["processes"].as_array()?.len() == 3).then_some(()));
    let together = asked(&db);
    assert!(together < 10.0, "{together} transactions a second while three processes wait");
    holder.rollback();
    let since = Instant::now();
    for run in others.into_iter().chain([run]) {
        goes_on(run, since);
    }
    judge.all_on(&db, NEW);
}

/// Rows that several transactions hold together look like rows that nobody holds.
#[test]
fn for_a_row_that_two_transactions_share() {
    let db = quiet();
    Load::rows(300).into(&db);
    let id = some_ids(&db, 1, 7)[0];
    let holders = [(); 2].map(|()| {
        let mut holder = db.hold();
        holder.execute(sqlx::query("SELECT FROM provider_connections WHERE id = $1 FOR SHARE").bind(id));
        holder
    });
    let run = run(&db).start();
    reason(&db, "row held");
    let asked = asked(&db);
    assert!(asked < 10.0, "{asked} transactions a second while 8 workers wait");
    for holder in holders {
        holder.rollback();
    }
    goes_on(run, Instant::now());
}

#[test]
fn for_a_prepared_transaction() {
    let cluster = Cluster::with("max_prepared_transactions = 2");
    let db = Db::on(&cluster);
    Load::rows(300).into(&db);
    db.execute(
        "BEGIN; UPDATE provider_connections SET alias = 'held' WHERE id = (SELECT min(id::text)::uuid FROM provider_connections);
         PREPARE TRANSACTION 'forgotten'",
    );
    let run = run(&db).start();
    let said = reason(&db, "prepared transaction");
    assert!(said.contains("held by prepared transaction forgotten"), "{said}");
    db.execute("ROLLBACK PREPARED 'forgotten'");
    run.wait().expect(0);
}

#[test]
fn for_the_table() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let run = run_in_small_steps(&db).start();
    db.wait_moved(300);
    let mut holder = db.hold();
    holder.execute(sqlx::query("SET lock_timeout = '20s'"));
    holder.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
    let pid = holder.pid();
    let said = reason(&db, "table locked");
    assert!(said.contains(&format!("table locked by pid {pid}")), "{said}");
    holder.rollback();
    run.wait().expect(0);
}

/// Of several workers one tries again, whether they can read meanwhile or not.
#[test]
fn for_the_table_with_many_workers() {
    for mode in ["ACCESS EXCLUSIVE", "SHARE"] {
        let db = quiet();
        Load::rows(20_000).into(&db);
        let mut holder = db.hold();
        holder.execute(sqlx::query("SET lock_timeout = '20s'"));
        let lock = format!("LOCK TABLE provider_connections IN {mode} MODE");
        db.mark();
        db.slow_batches(Duration::from_millis(20));
        let run = rekey(&db, ["run", "--workers", "8", "--chunk-rows", "2000"]).start();
        db.wait_moved(300);
        holder.execute(sqlx::query(sqlx::AssertSqlSafe(lock)));
        reason(&db, "table locked");
        let asked = asked(&db);
        // One for each worker would be two hundred.
        assert!(asked < 25.0, "{mode}: {asked} transactions a second while 8 workers wait");
        db.fast_commits();
        holder.rollback();
        run.wait().expect(0);
    }
}

#[test]
fn for_the_lease_of_a_process_that_died() {
    let db = Db::new();
    Load::rows(2000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(30));
    let slow = ["run", "--workers", "1", "--chunk-rows", "2000", "--batch-rows", "50", "--lease-ttl", "12s"];
    let killed = rekey(&db, slow).start();
    db.wait_moved(100);
    killed.kill();
    db.fast_commits();
    let run = rekey(&db, slow).start();
    let said = reason(&db, "waiting for the lease of");
    assert!(said.contains(" silent ") && said.contains("the lease expires in"), "{said}");
    run.wait().expect(0);
}

#[test]
fn for_a_lease_with_many_workers() {
    let db = quiet();
    Load::rows(2000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(30));
    let slow = ["run", "--workers", "1", "--chunk-rows", "2000", "--batch-rows", "50", "--lease-ttl", "5m"];
    let killed = rekey(&db, slow).start();
    db.wait_moved(100);
    killed.kill();
    db.fast_commits();
    let run = run(&db).start();
    reason(&db, "waiting for the lease of");
    let asked = asked(&db);
    assert!(asked < 5.0, "{asked} transactions a second while 8 workers wait");
    db.execute("UPDATE rekey.chunks SET lease_until = clock_timestamp() WHERE state = 'open'");
    run.wait().expect(0);
}

/// After the database's clock was set back, or a failover to a slow one.
#[test]
fn not_for_a_lease_that_ends_later_than_any_could() {
    let db = Db::new();
    Load::rows(2000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(30));
    let killed = run_in_small_steps(&db).start();
    db.wait_moved(100);
    killed.kill();
    db.fast_commits();
    db.execute(
        "UPDATE rekey.chunks SET lease_until = lease_until + interval '50 minutes' WHERE state = 'open'",
    );
    run_in_small_steps(&db).start().wait_for(Duration::from_secs(40)).expect(0);
}
