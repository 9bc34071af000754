//! Bad weather around a run: hostile session defaults, an old snapshot, maintenance of the table, a table locked
//! before the run begins, and a client clock that jumps.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::load::{Load, fresh_iv, some_ids};
use crate::support::proxy::{Loss, Proxy};
use crate::support::{
    Cipher, Cluster, Db, Judge, NEW, OLD, Rekey, Running, SOON, rekey, run_in_small_steps, total, until,
};

/// What a database administrator may have set for the role: none of it may matter.
const HOSTILE: &[(&str, &str)] = &[
    ("statement_timeout", "'250ms'"),
    ("lock_timeout", "'1ms'"),
    ("idle_in_transaction_session_timeout", "'5ms'"),
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

/// A role that may run, with `settings` as the defaults of its sessions. What rekey waits for locks is measured by the
/// server's deadlock_timeout, which is long here: the pauses of a loaded machine are nobody's lock.
fn role_with(db: &Db, settings: &[(&str, &str)]) -> String {
    db.execute(&rekey(db, ["init", "--print-sql"]).exits(0).stdout);
    let role = format!("{}_weather", db.name);
    db.execute(&format!("CREATE ROLE {role} LOGIN; GRANT rekey_runner TO {role}"));
    for (name, value) in settings {
        db.execute(&format!("ALTER ROLE {role} SET {name} = {value}"));
    }
    db.execute(&format!("ALTER DATABASE {} SET deadlock_timeout = '20s'", db.name));
    role
}

/// Every UPDATE of the table takes this much longer, before its first row.
fn dawdle(db: &Db, delay: Duration) {
    let seconds = delay.as_secs_f64();
    db.execute(&format!(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
         CREATE TRIGGER dawdle BEFORE UPDATE ON provider_connections FOR EACH STATEMENT EXECUTE FUNCTION dawdle()"
    ));
}

/// In small steps that stay what they are however long they take, beside a trigger that is let pass.
fn in_even_steps(command: Rekey) -> Rekey {
    let steps = ["--chunk-rows", "100", "--batch-rows", "50", "--lock-target", "10s"];
    command.args(steps).args(["--allow", "user-triggers"])
}

/// Runs a command to its end, and sees that it tried nothing a second time: no timeout ended a statement or a session,
/// no isolation refused a write.
fn at_the_first_try(command: Rekey, metrics: &Path) {
    let outcome = command.args(["--metrics-file", metrics.to_str().expect("UTF-8")]).exits(0);
    let told = std::fs::read_to_string(metrics).expect("the file is there");
    let retries: Vec<&str> = told.lines().filter(|line| line.starts_with("rekey_retries_total{")).collect();
    assert!(retries.is_empty(), "{retries:?} in\n{outcome}");
}

fn a_life_with(db: &Db, url: &str, rows: i64) {
    let mut judge = Judge::look(db, &[OLD]);
    let folder = tempfile::tempdir().expect("a folder");
    let metrics = folder.path().join("metrics");
    let here = |command: &[&str]| rekey(db, []).more(command).env("DATABASE_URL", url);
    here(&["plan", "--allow", "user-triggers"]).exits(0);
    here(&["status"]).exits(0);
    here(&["run", "--dry-run", "--allow", "user-triggers"]).exits(0);
    at_the_first_try(in_even_steps(here(&["run"])), &metrics);
    judge.all_on(db, NEW);
    assert_eq!(total(db, "re_encrypted"), rows);
    let found = here(&["verify"]).json(0);
    assert_eq!(found["identical"], rows, "{found:#}");
    at_the_first_try(in_even_steps(here(&["rollback", "--yes"])), &metrics);
    judge.all_on(db, OLD);
}

/// Each of those timeouts is shorter than something that a run does all the time: an UPDATE, the way to the server
/// between two statements of a transaction, a reader's rest while a chunk is written, a heartbeat's pause.
#[test]
fn hostile_defaults_of_a_role() {
    let db = Db::new();
    Load::rows(400).into(&db);
    let role = role_with(&db, HOSTILE);
    dawdle(&db, Duration::from_millis(300));
    let network = Proxy::before(&db, Loss::Delay(Duration::from_millis(5)), i64::MAX);
    a_life_with(&db, &network.url(&db).replace("postgres@", &format!("{role}@")), 400);
}

/// A row that the application holds and then writes: waited for, and what was read of it is looked at again. A lock
/// timeout of the role's would give it up at once; its isolation would be refused.
#[test]
fn a_row_that_is_being_written_under_hostile_defaults() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let role = role_with(&db, HOSTILE);
    let mut judge = Judge::look(&db, &[OLD]);
    let (id, text) = (some_ids(&db, 1, 13)[0], b"{\"access_token\":\"refreshed\"}");
    let mut application = db.hold();
    let sql = "UPDATE provider_connections SET encrypted_credentials = $2 WHERE id = $1";
    application.execute(sqlx::query(sql).bind(id).bind(Cipher::new(OLD).seal(fresh_iv(), text)));
    judge.expect(id, text);
    let pid = application.pid();
    std::thread::scope(|scope| {
        let folder = tempfile::tempdir().expect("a folder");
        let url = db.url.replace("postgres@", &format!("{role}@"));
        let run = rekey(&db, ["run"]).env("DATABASE_URL", url);
        let run = scope.spawn(move || at_the_first_try(run, &folder.path().join("metrics")));
        until("a batch to wait for the row", SOON, || db.is_waited_for(pid).then_some(()));
        let serializable = "SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'SIReadLock'
                            AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
        assert!(!db.value::<bool>(serializable), "what a serializable transaction reads is noted");
        application.commit();
        run.join().expect("the run ends well");
    });
    judge.all_on(&db, NEW);
    assert_eq!((total(&db, "re_encrypted"), total(&db, "lost_races")), (300, 1));
}

/// A transaction's whole time is limited since PostgreSQL 17.
#[test]
fn a_hostile_transaction_timeout() {
    let Some(programs) = [18, 17].into_iter().find_map(crate::support::programs::Programs::of) else {
        crate::support::skipped(format_args!(
            "1 test, no PostgreSQL 17 or later (./scripts/test installs it)"
        ));
        return;
    };
    let cluster = Cluster::of(&programs.bin, "");
    let db = Db::on(&cluster);
    Load::rows(400).into(&db);
    let role = role_with(&db, &[("transaction_timeout", "'250ms'"), ("statement_timeout", "'250ms'")]);
    dawdle(&db, Duration::from_millis(500));
    a_life_with(&db, &db.url.replace("postgres@", &format!("{role}@")), 400);
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
    Load::rows(12_000).into(&db);
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
    assert_eq!(total(&db, "re_encrypted"), 12_000);
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
    let pid = holder.pid();
    let mut run = run_in_small_steps(&db).start();
    // Longer than any lock_timeout of ours, by far.
    std::thread::sleep(Duration::from_secs(15));
    assert!(run.running(), "{}", run.wait());
    assert!(!db.has_rekey_schema(), "it has not got beyond its first look");
    until("the next look", SOON, || db.is_waited_for(pid).then_some(()));
    holder.rollback();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}

/// Nor is it waited for any longer than for a database that is away.
#[test]
fn a_table_locked_for_longer_than_anybody_waits() {
    let db = Db::new();
    Load::rows(100).into(&db);
    for command in [&["plan"][..], &["run"], &["run", "--dry-run"]] {
        let mut holder = db.hold();
        holder.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
        let patient = rekey(&db, ["--retry-for", "3s"]).more(command);
        let outcome = patient.start().wait_for(Duration::from_secs(20)).expect(69);
        assert!(outcome.took >= Duration::from_secs(3), "{outcome}");
        assert!(outcome.stderr.contains("lock timeout"), "{outcome}");
        holder.rollback();
        assert!(!db.has_rekey_schema(), "{outcome}");
    }
}

/// libfaketime, which Debian's package of that name has.
fn faketime() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let library =
        found.map(|entry| entry.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
    if library.is_none() {
        crate::support::skipped(format_args!("1 test, libfaketime is missing (./scripts/test installs it)"));
    }
    library
}

/// Leases, deadlines and the audit trail go by the database's clock: what a client believes does not matter.
#[test]
fn the_clients_clock_jumps() {
    let Some(library) = faketime() else { return };
    let db = Db::new();
    Load::rows(12_000).into(&db);
    db.mark();
    let mut judge = Judge::look(&db, &[OLD]);
    let folder = tempfile::tempdir().expect("a folder");
    let clock = folder.path().join("clock");
    let set = |offset: &str| std::fs::write(&clock, offset).expect("a clock");
    set("+0");
    // So slow that rows are left at the last jump, however long the judge takes on a busy machine: 200 s in all.
    let started = |rate| run_in_small_steps(&db).args(["--workers", "1", "--max-rate", rate]);
    let mut jumping = started("40")
        .args(["--deadline", "1h"])
        .env("DATABASE_URL", format!("{}?application_name=jumping", db.url))
        .env("LD_PRELOAD", library.as_os_str())
        .env("FAKETIME_TIMESTAMP_FILE", clock.as_os_str())
        .env("FAKETIME_NO_CACHE", "1")
        // No administrator and no NTP moves that one.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start();
    let mut honest = started("20").start();
    // Past what it prepares: a command that loses its connection there ends with 69.
    crate::processes::wait_for_processes(&db, 2);
    wait_for_its_batches(&db, &mut jumping, "-infinity");
    let jumps = [("+3d", 3), ("-10y", -3650), ("+0", 0), ("+20y", 7300)];
    for (offset, _) in jumps {
        set(offset);
        loses_its_connections(&db, &mut jumping);
        db.wait_moved(db.moved() + 20);
        assert_eq!((jumping.running(), honest.running()), (true, true), "after {offset}");
        judge.none_lost(&db, &[OLD, NEW]);
    }
    // The rest at its own pace.
    run_in_small_steps(&db).exits(0);
    let said = jumping.wait().expect(0).stderr;
    honest.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 12_000);
    let now = jiff::Timestamp::now();
    for (offset, days) in jumps {
        let off = |at: &jiff::Timestamp| at.duration_since(now).as_secs() - days * 24 * 60 * 60;
        assert!(times(&said).any(|at| off(&at).abs() < 60 * 60), "nobody believed {offset}:\n{said}");
    }
    // Nothing of that clock is in the ledger.
    let strange: i64 = db.value(
        "SELECT count(*) FROM rekey.events WHERE at NOT BETWEEN clock_timestamp() - interval '1 h' AND clock_timestamp()",
    );
    assert_eq!(strange, 0);
    rekey(&db, ["verify"]).exits(0);
}

/// Ends the sessions of the process whose clock jumps, which says so, and waits until it is at work again.
fn loses_its_connections(db: &Db, jumping: &mut Running) {
    let now: String = db.value("SELECT clock_timestamp()::text");
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jumping'");
    wait_for_its_batches(db, jumping, &now);
}

/// Waits until that process has a batch under way, or behind it, on a connection made after `since`.
fn wait_for_its_batches(db: &Db, jumping: &mut Running, since: &str) {
    let writes = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'jumping' AND backend_start > '{since}'
         AND query ~ '^(BEGIN|COMMIT|WITH p AS|UPDATE public)')"
    );
    until("its worker to write", SOON, || {
        assert!(jumping.running(), "it ended, with {} rows moved: {}", db.moved(), jumping.last_words());
        db.value::<bool>(&writes).then_some(())
    });
}

/// When a process said what it said, by its own clock.
fn times(said: &str) -> impl Iterator<Item = jiff::Timestamp> {
    said.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["timestamp"].as_str()?.parse().ok()
    })
}
