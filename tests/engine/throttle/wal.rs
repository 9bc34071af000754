//! WAL that piles up: an archive that fails, a slot that nobody reads, checkpoints that come too often.

use super::{gentle, held_up, throttled};
use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, SOON, Stop, rekey, until};

/// A server that archives its WAL with `true`.
fn archiving() -> (Cluster, Db) {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    db.execute("ALTER SYSTEM SET archive_mode = on");
    archive_with(&db, "true");
    cluster.stop(Stop::Fast);
    cluster.boot();
    Load::rows(4000).into(&db);
    db.mark();
    switch(&db, 1);
    until("a segment to be archived", SOON, || archived(&db).then_some(()));
    (cluster, db)
}

fn archive_with(db: &Db, command: &str) {
    db.execute(&format!("ALTER SYSTEM SET archive_command = '{command}'"));
    db.execute("SELECT pg_reload_conf()");
    // The archiver hears of work sooner than of settings. (Disabled, it is shown as such.)
    let arrived = format!(
        "SELECT current_setting('archive_mode') = 'off' OR current_setting('archive_command') = '{command}'"
    );
    until("the setting to arrive", SOON, || db.value::<bool>(&arrived).then_some(()));
}

/// Fills `segments` of WAL.
fn switch(db: &Db, segments: u32) {
    for _ in 0..segments {
        db.execute("SELECT pg_logical_emit_message(true, 'fill', 'a segment')");
        db.execute("SELECT pg_switch_wal()");
    }
}

fn archived(db: &Db) -> bool {
    db.value("SELECT archived_count > 0 FROM pg_stat_archiver")
}

fn fails(db: &Db) {
    let failing = "SELECT last_failed_time > coalesce(last_archived_time, '-infinity') FROM pg_stat_archiver";
    until("archiving to fail", SOON, || {
        db.try_value::<bool>(failing).is_ok_and(|failing| failing).then_some(())
    });
}

#[test]
fn an_archive_that_fails_slows_the_run_and_its_backlog_stops_it() {
    let (_cluster, db) = archiving();
    let mut judge = Judge::look(&db, &[OLD]);
    archive_with(&db, "false");
    switch(&db, 2);
    fails(&db);
    let mut run = gentle(&db).args(["--max-archive-backlog", "80MB"]).start();
    let said = throttled(&db, &mut run, "WAL archive backlog");
    assert!(said.contains("archive_command fails") && said.ends_with("; slowed down"), "{said}");
    db.wait_moved(1);
    switch(&db, 5);
    held_up(&db, &mut run, "WAL archive backlog");
    archive_with(&db, "true");
    switch(&db, 1);
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}

#[test]
fn a_failing_archive_whose_backlog_is_at_the_limit_is_refused() {
    let (_cluster, db) = archiving();
    archive_with(&db, "false");
    switch(&db, 3);
    fails(&db);
    let outcome = rekey(&db, ["run", "--max-archive-backlog", "32MB"]).exits(4);
    assert!(outcome.stderr.contains("wal-archive: WAL archiving fails"), "{outcome}");
    assert!(!db.has_rekey_schema());
    rekey(&db, ["run", "--max-archive-backlog", "32MB", "--allow", "wal-archive"]).exits(0);
}

#[test]
fn a_slot_that_nobody_reads_is_waited_for_or_refused() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(4000).into(&db);
    db.mark();
    let mut judge = Judge::look(&db, &[OLD]);
    // A new slot keeps WAL from the last checkpoint on.
    db.execute("CHECKPOINT");
    db.execute("SELECT pg_create_physical_replication_slot('forgotten', true)");
    let mut run = gentle(&db).args(["--max-slot-wal", "2MB"]).start();
    held_up(&db, &mut run, "slot retains WAL");
    let refused = rekey(&db, ["run", "--max-slot-wal", "1MB"]).exits(4);
    assert!(refused.stderr.contains("slots: Inactive slot forgotten retains"), "{refused}");
    db.execute("SELECT pg_drop_replication_slot('forgotten')");
    run.wait().expect(0);
    judge.all_on(&db, NEW);

    db.execute("SELECT pg_create_physical_replication_slot('forgotten', true)");
    rekey(&db, ["rollback", "--yes", "--max-slot-wal", "1kB", "--allow", "slots"]).exits(0);
    judge.all_on(&db, OLD);
}

#[test]
fn checkpoints_that_come_too_often_slow_the_run() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(6000).into(&db);
    db.mark();
    let mut judge = Judge::look(&db, &[OLD]);
    // The next one is short.
    db.execute("CHECKPOINT");
    let mut run = gentle(&db).args(["--max-checkpoints", "1"]).start();
    db.wait_moved(100);
    db.execute("CHECKPOINT");
    let said = throttled(&db, &mut run, "checkpoint pressure");
    assert!(said.ends_with("; slowed down"), "{said}");
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}
