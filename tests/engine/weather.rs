//! Bad weather around a run: hostile session defaults, an old snapshot, maintenance of the table, a table locked
//! before the run begins, and a client clock that jumps.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, SOON, rekey, run_in_small_steps, total, until};

/// What a database administrator may have set for the role: none of it may matter.
const HOSTILE: &[(&str, &str)] = &[
    ("statement_timeout", "'250ms'"),
    ("lock_timeout", "'1ms'"),
    ("idle_in_transaction_session_timeout", "'20ms'"),
    ("idle_session_timeout", "'150ms'"),
    ("default_transaction_isolation", "'serializable'"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_deferrable", "on"),
    ("search_path", "'nowhere'"),
    ("bytea_output", "'escape'"),
    ("standard_conforming_strings", "off"),
    ("array_nulls", "off"),
    ("\"DateStyle\"", "'SQL, DMY'"),
    ("\"IntervalStyle\"", "'sql_standard'"),
    ("\"TimeZone\"", "'Asia/Kathmandu'"),
    ("work_mem", "'64kB'"),
    ("jit", "on"),
    ("jit_above_cost", "0"),
    ("enable_indexscan", "off"),
    ("enable_tidscan", "off"),
    ("enable_nestloop", "off"),
    ("plan_cache_mode", "'force_custom_plan'"),
    ("vacuum_freeze_min_age", "0"),
    ("client_min_messages", "'debug5'"),
];

/// The URL of a role that may run, with `settings` as the defaults of its sessions.
fn role_with(db: &Db, settings: &[(&str, &str)]) -> String {
    db.execute(&rekey(db, ["init", "--print-sql"]).exits(0).stdout);
    let role = format!("{}_weather", db.name);
    db.execute(&format!("CREATE ROLE {role} LOGIN; GRANT rekey_runner TO {role}"));
    for (name, value) in settings {
        db.execute(&format!("ALTER ROLE {role} SET {name} = {value}"));
    }
    db.url.replace("postgres@", &format!("{role}@"))
}

fn a_life_with(db: &Db, url: &str, rows: i64) {
    let mut judge = Judge::look(db, &[OLD]);
    for command in ["plan", "status"] {
        rekey(db, [command]).env("DATABASE_URL", url).exits(0);
    }
    rekey(db, ["run", "--dry-run"]).env("DATABASE_URL", url).exits(0);
    run_in_small_steps(db).env("DATABASE_URL", url).exits(0);
    judge.all_on(db, NEW);
    assert_eq!(total(db, "re_encrypted"), rows);
    let found = rekey(db, ["verify"]).env("DATABASE_URL", url).json(0);
    assert_eq!(found["identical"], rows, "{found:#}");
    rekey(db, ["rollback", "--yes"]).env("DATABASE_URL", url).exits(0);
    judge.all_on(db, OLD);
}

#[test]
fn hostile_defaults_of_a_role() {
    let db = Db::new();
    Load::rows(2000).into(&db);
    let url = role_with(&db, HOSTILE);
    // More than the shortest of those timeouts passes within one batch.
    db.slow_batches(Duration::from_millis(40));
    a_life_with(&db, &url, 2000);
}

/// A transaction's whole time is limited since PostgreSQL 17.
#[test]
fn a_hostile_transaction_timeout() {
    let Some(programs) = [18, 17].into_iter().find_map(crate::support::programs::Programs::of) else {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: 1 test, no PostgreSQL 17 or later (./scripts/test installs it)"
        );
        return;
    };
    let cluster = Cluster::of(&programs.bin, "");
    let db = Db::on(&cluster);
    Load::rows(1000).into(&db);
    let url = role_with(&db, &[("transaction_timeout", "'30ms'"), ("statement_timeout", "'30ms'")]);
    db.slow_batches(Duration::from_millis(60));
    a_life_with(&db, &url, 1000);
}

/// Nothing can be pruned while it is open, so waves gain nothing; that costs time and nothing else.
#[test]
fn an_old_snapshot_held_all_the_time() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let mut other = db.hold();
    other.execute(sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"));
    other.execute(sqlx::query(
        "CREATE TEMP TABLE before AS SELECT id, encrypted_credentials c FROM provider_connections",
    ));
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
    // To that session nothing has happened yet.
    other.execute(sqlx::query(
        "SELECT 1 / (count(*) = 0)::int FROM provider_connections p JOIN before b USING (id) WHERE p.encrypted_credentials <> b.c",
    ));
    other.rollback();
}

/// Each takes the table away for a moment, and rewrites it or its indexes.
#[test]
fn maintenance_during_a_run_by_keys() {
    let db = Db::new();
    Load::rows(6000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut run = run_in_small_steps(&db).start();
    for (moved, statement) in [
        (600, "REINDEX TABLE provider_connections"),
        (1400, "VACUUM FULL provider_connections"),
        (2200, "REINDEX TABLE CONCURRENTLY provider_connections"),
        (3000, "CLUSTER provider_connections USING provider_connections_pkey"),
        (3800, "VACUUM (FREEZE) provider_connections"),
    ] {
        db.wait_moved(moved);
        db.execute(statement);
        assert!(run.running(), "it ended before {statement}: {}", run.wait());
        judge.none_lost(&db, &[OLD, NEW]);
    }
    db.fast_commits();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 6000);
    rekey(&db, ["verify"]).exits(0);
}

/// A run that meets a locked table at its first look waits for it as it would later.
#[test]
fn a_table_locked_before_the_run_begins() {
    let db = Db::new();
    Load::rows(800).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let mut holder = db.hold();
    holder.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
    let mut run = run_in_small_steps(&db).start();
    // Longer than any lock_timeout of ours, by far.
    std::thread::sleep(Duration::from_secs(4));
    assert!(run.running(), "{}", run.wait());
    holder.rollback();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}

/// libfaketime, which Debian's package of that name has.
fn faketime() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let library =
        found.map(|entry| entry.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
    if library.is_none() {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: 1 test, libfaketime is missing (./scripts/test installs it)"
        );
    }
    library
}

/// Leases, deadlines and the audit trail go by the database's clock: what a client believes does not matter.
#[test]
fn the_clients_clock_jumps() {
    let Some(library) = faketime() else { return };
    let db = Db::new();
    Load::rows(5000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(30));
    let mut judge = Judge::look(&db, &[OLD]);
    let folder = tempfile::tempdir().expect("a folder");
    let clock = folder.path().join("clock");
    let set = |offset: &str| std::fs::write(&clock, offset).expect("a clock");
    set("+0");
    let started = || {
        run_in_small_steps(&db)
            .args(["--workers", "1", "--deadline", "1h"])
            .env("LD_PRELOAD", library.as_os_str())
            .env("FAKETIME_TIMESTAMP_FILE", clock.as_os_str())
            .env("FAKETIME_NO_CACHE", "1")
            // No administrator and no NTP moves that one.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .start()
    };
    let mut jumping = started();
    let mut honest = run_in_small_steps(&db).args(["--workers", "1"]).start();
    for (moved, offset) in [(500, "+3d"), (1200, "-10y"), (1900, "+0"), (2600, "+20y")] {
        db.wait_moved(moved);
        set(offset);
        let offsets = until("both to go on", SOON, || {
            (db.moved() >= moved + 300).then(|| (jumping.running(), honest.running()))
        });
        assert_eq!(offsets, (true, true), "after {offset}");
        judge.none_lost(&db, &[OLD, NEW]);
    }
    db.fast_commits();
    jumping.wait().expect(0);
    honest.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 5000);
    // Nothing of that clock is in the ledger.
    let strange: i64 = db.value(
        "SELECT count(*) FROM rekey.events WHERE at NOT BETWEEN clock_timestamp() - interval '1 h' AND clock_timestamp()",
    );
    assert_eq!(strange, 0);
    rekey(&db, ["verify"]).exits(0);
}
