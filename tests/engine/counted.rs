//! The totals are the truth: after kills, beside a writer that merely saves rows as they are, and over many bad rows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::load::{Load, ids, some_ids, store_raw};
use crate::support::{Db, Ids, Judge, NEW, OLD, SOON, rekey, run_in_small_steps, status, total, until};

/// Every row is in exactly one of the totals.
fn add_up(db: &Db, rows: i64) {
    let status = status(db);
    let sum: i64 = ["re_encrypted", "already_on_key", "null", "quarantined"]
        .iter()
        .map(|outcome| status["totals"][outcome].as_i64().unwrap())
        .sum();
    assert_eq!(sum, rows, "{status:#}");
}

/// The application saves rows that were moved already; then their chunk is read again by another process.
fn touched_behind_a_killed_run(load: Load) {
    let db = Db::new();
    load.into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(10));
    let mut judge = Judge::look(&db, &[OLD]);
    let rows: i64 = db.value("SELECT count(*) FROM provider_connections");
    for part in 1..=3 {
        let run =
            rekey(&db, ["run", "--chunk-rows", "2000", "--batch-rows", "50", "--lease-ttl", "2s"]).start();
        db.wait_moved(part * 300);
        run.kill();
        // The same values, another version of the row.
        db.execute("UPDATE provider_connections SET last_sync_at = last_sync_at");
    }
    db.fast_commits();
    rekey(&db, ["run", "--lease-ttl", "2s"]).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "already_on_key"), 0);
    assert_eq!(total(&db, "re_encrypted"), judge.openable() as i64);
    add_up(&db, rows);
}

#[test]
fn rows_touched_behind_a_killed_run() {
    touched_behind_a_killed_run(Load::rows(2000).nulls(10));
}

/// By blocks; a row without a credential that the application moves behind the pass is in none of the totals.
#[test]
fn rows_touched_behind_a_killed_run_with_scattered_ids() {
    touched_behind_a_killed_run(Load::rows(6000).ids(Ids::V4));
}

/// More than a page of them, all repaired but one.
#[test]
fn thousands_of_bad_rows() {
    let db = Db::new();
    Load::rows(6000).into(&db);
    db.execute(
        "CREATE TABLE kept AS SELECT id, encrypted_credentials AS was FROM provider_connections ORDER BY md5(id::text) LIMIT 2500;
         UPDATE provider_connections p SET encrypted_credentials = '\\x00' FROM kept k WHERE k.id = p.id",
    );
    rekey(&db, ["run"]).exits(5);
    let listed = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    assert_eq!(listed.as_array().map(Vec::len), Some(2500));
    add_up(&db, 6000);
    assert_eq!(rekey(&db, ["verify"]).json(5)["unreadable"], 2500);
    db.execute(
        "UPDATE provider_connections p SET encrypted_credentials = k.was FROM kept k WHERE k.id = p.id;
         UPDATE provider_connections SET encrypted_credentials = NULL WHERE id = (SELECT id FROM kept LIMIT 1)",
    );
    rekey(&db, ["quarantine", "retry"]).exits(0);
    assert_eq!(total(&db, "quarantined"), 0);
    assert_eq!(rekey(&db, ["quarantine", "list"]).json(0)["result"].as_array().map(Vec::len), Some(0));
    rekey(&db, ["verify"]).exits(0);
}

/// The first rows that a process meets are all bad, but the keys are right: others have moved rows with them.
#[test]
fn a_stretch_of_bad_rows_met_first_by_a_later_process() {
    let db = Db::new();
    Load::rows(1600).into(&db);
    let ids = ids(&db);
    for id in &ids[400..800] {
        store_raw(&db, *id, &id.as_bytes().repeat(3));
    }
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let mut judge = Judge::look(&db, &[OLD]);
    let steps = || rekey(&db, ["run", "--chunk-rows", "400", "--batch-rows", "20", "--workers", "1"]);
    let mut first = steps().start();
    db.wait_moved(40);
    first.signal(Signal::STOP);
    let mut second = steps().start();
    until("the second to finish all but the first's chunk", SOON, || {
        let left: i64 = db.value("SELECT count(*) FROM rekey.chunks WHERE state = 'open' AND kind = 'keys'");
        (left <= 1 && db.moved() > 800 || !second.running()).then_some(())
    });
    assert!(second.running(), "it waits for the first one's chunk:\n{}", second.wait());
    first.signal(Signal::CONT);
    db.fast_commits();
    assert!(first.running());
    first.wait().expect(5);
    second.wait().expect(5);
    judge.all_on(&db, NEW);
    add_up(&db, 1600);
}

/// Dumped and loaded into another server, whose transaction ids are lower: the horizon lies in the future, and tells
/// nothing about who wrote since.
#[test]
fn a_horizon_of_another_server() {
    let db = Db::new();
    Load::rows(500).into(&db);
    let id = some_ids(&db, 1, 3)[0];
    let stale: Vec<u8> =
        db.value(&format!("SELECT encrypted_credentials FROM provider_connections WHERE id = '{id}'"));
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    db.execute("UPDATE rekey.passes SET horizon = '1000000000', next_horizon = '1000000000'");
    store_raw(&db, id, &stale);
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
}

/// Each process tells how far it went, however short it was; the total is counted by then, not estimated.
#[test]
fn the_last_line_of_progress() {
    let db = Db::new();
    Load::rows(300).nulls(10).into(&db);
    db.execute("UPDATE pg_class SET reltuples = 5000 WHERE relname = 'provider_connections'");
    let outcome = rekey(&db, ["run"]).exits(0);
    let lines: Vec<serde_json::Value> =
        outcome.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let last = lines.iter().rfind(|line| line["message"] == "progress").expect("a line of progress");
    assert_eq!((&last["rows_done"], &last["rows_total"]), (&300.into(), &300.into()), "{last:#}");
}

/// The planner may be wrong by a third, or know nothing. The total says that it is an estimate, is never less than what was
/// done, and comes closer to the truth with each chunk.
#[test]
fn the_total_is_an_estimate_and_corrected() {
    for (ids, tuples) in [(Ids::V7, 1.3), (Ids::V7, 0.7), (Ids::V7, -1.0), (Ids::V4, 1.3), (Ids::V4, 0.7)] {
        let db = Db::new();
        Load::rows(3000).ids(ids).into(&db);
        db.execute("ANALYZE provider_connections");
        db.execute(&match tuples {
            ..0.0 => "UPDATE pg_class SET reltuples = -1 WHERE relname = 'provider_connections'".to_owned(),
            _ => format!(
                "UPDATE pg_class SET reltuples = reltuples * {tuples} WHERE relname = 'provider_connections'"
            ),
        });
        db.slow_batches(Duration::from_millis(20));
        let mut run = run_in_small_steps(&db).start();
        let mut seen = Vec::new();
        while run.running() {
            let p = status(&db)["progress"].clone();
            if p["pass"] == 1 && p["outcome"].is_null() {
                assert_eq!(p["estimated"], true, "{p:#}");
                seen.push((p["rows_done"].as_i64().unwrap(), p["rows_total"].as_i64().unwrap()));
            }
        }
        run.wait().expect(0);
        let what = format!("{ids:?}, {tuples}: {seen:?}");
        assert!(seen.iter().all(|(done, total)| done <= total), "{what}");
        let (done, total) = *seen.last().expect("a look in time");
        assert!(done > 1500, "{what}");
        // The last chunk by keys may have fewer rows than it was carved for.
        let off = (total - 3000).abs();
        assert!(off <= 400.max((3000 - done) / 2), "{what}");
        let p = status(&db)["progress"].clone();
        assert_eq!(
            (&p["rows_done"], &p["rows_total"], &p["estimated"]),
            (&3000.into(), &3000.into(), &false.into())
        );
    }
}

/// Saved by the application again and again while the run is at it: never counted as anybody else's.
#[test]
fn rows_touched_all_through_a_run() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(5));
    let mut judge = Judge::look(&db, &[OLD]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                db.execute(
                    "UPDATE provider_connections SET last_sync_at = last_sync_at WHERE id IN
                     (SELECT id FROM provider_connections ORDER BY random() LIMIT 5 FOR UPDATE SKIP LOCKED)",
                );
            }
        });
        let ended = run_in_small_steps(&db).run();
        over.store(true, Ordering::Relaxed);
        ended.expect(0);
    });
    judge.all_on(&db, NEW);
    add_up(&db, 3000);
}
