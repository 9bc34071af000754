//! Ledgers that rekey 0.1.0 made (fixtures/ledger-0.1.0, dumped from its own binary in each of its states), carried on by
//! this one; and a ledger of a newer one, refused.
//!
//! A dump keeps rows and loses the transaction ids that tell rekey's own rows from others'. They are put back after loading,
//! as an update in place would leave them.

#[path = "support/mod.rs"]
mod support;

use serde_json::Value;
use support::{Db, NEW, OLD, Rekey, block_on, rekey};

/// A database with the ledger of 0.1.0 in one of its states.
fn ledger(state: &str) -> Db {
    let db = Db::new();
    let file = format!("{}/fixtures/ledger-0.1.0/{state}.sql", env!("CARGO_MANIFEST_DIR"));
    db.execute(&std::fs::read_to_string(file).unwrap());
    db.execute(
        "BEGIN;
         UPDATE rekey.passes SET horizon = pg_snapshot_xmin(pg_current_snapshot()),
             next_horizon = pg_snapshot_xmin(pg_current_snapshot());
         UPDATE provider_connections SET encrypted_credentials = encrypted_credentials
             WHERE id IN (SELECT unnest(ids) FROM rekey.proofs);
         UPDATE rekey.proofs SET xid = pg_current_xact_id();
         COMMIT",
    );
    db
}

/// With the key that the application reads by now.
fn with(db: &Db, key: &'static str, command: &[&str]) -> Rekey {
    rekey(db, []).more(command).env("ENCRYPTION_KEY", key)
}

fn state(db: &Db) -> String {
    db.value("SELECT state FROM rekey.rotations ORDER BY id DESC LIMIT 1")
}

fn accept_all(db: &Db) {
    for id in db.column::<uuid::Uuid>("SELECT row_id FROM rekey.quarantine") {
        let id = id.to_string();
        with(db, OLD, &["quarantine", "accept", &id, "--yes", "--reason", "lost for good"]).exits(0);
    }
}

/// The chain of events holds, those of 0.1.0 included.
fn chain_holds(db: &Db, key: &'static str) {
    let report: Value = with(db, key, &["report", "--format", "json"]).json(0);
    let text = report.to_string();
    assert!(text.contains("\"intact\":true"), "{text}");
}

#[test]
fn none_is_begun() {
    let db = ledger("none");
    with(&db, OLD, &["status"]).exits(4);
    with(&db, OLD, &["run"]).exits(5);
    chain_holds(&db, OLD);
}

#[test]
fn a_killed_run_is_resumed_verified_promoted_and_finalized() {
    let db = ledger("migrating");
    for command in [["status"], ["report"], ["verify"]] {
        let refused = with(&db, OLD, &command).exits(4);
        assert!(refused.stderr.contains("rekey init"), "{refused}");
    }
    let before: i64 = db.value("SELECT sum(cardinality(ids))::bigint FROM rekey.proofs");
    with(&db, OLD, &["run"]).exits(5);
    let moved: i64 = db.value("SELECT sum(re_encrypted)::bigint FROM rekey.chunks");
    let rows: i64 = db.value("SELECT count(encrypted_credentials) FROM provider_connections");
    assert!(before > 0 && moved == rows - 2, "{before} before, {moved} of {rows}");
    accept_all(&db);
    with(&db, OLD, &["verify"]).exits(0);
    with(&db, OLD, &["promote", "--external", "--yes"]).exits(7);
    with(&db, NEW, &["promote", "--external", "--yes", "--old-key", &old_key(&db)]).exits(0);
    with(&db, NEW, &["finalize", "--yes", "--old-key", &old_key(&db)]).exits(0);
    assert_eq!(state(&db), "finalized");
    chain_holds(&db, NEW);
}

/// The old key, for when the environment has the new one.
fn old_key(db: &Db) -> String {
    let path = std::env::temp_dir().join(format!("rekey-upgrade-{}-{}", std::process::id(), db.name));
    std::fs::write(&path, OLD).unwrap();
    format!("file:{}", path.display())
}

#[test]
fn a_killed_run_is_rolled_back() {
    let db = ledger("migrating");
    with(&db, OLD, &["rollback", "--yes"]).exits(5);
    accept_all(&db);
    with(&db, OLD, &["rollback", "--yes"]).exits(0);
    assert_eq!(state(&db), "rolled_back");
    with(&db, OLD, &["verify"]).exits(0);
    chain_holds(&db, OLD);
}

#[test]
fn an_aborted_run_is_resumed() {
    let db = ledger("aborted");
    with(&db, OLD, &["init"]).exits(0);
    with(&db, OLD, &["run"]).exits(7);
    with(&db, OLD, &["resume"]).exits(0);
    with(&db, OLD, &["run"]).exits(5);
    chain_holds(&db, OLD);
}

#[test]
fn what_is_migrated_is_swept_and_verified() {
    let db = ledger("migrated");
    with(&db, OLD, &["init"]).exits(0);
    with(&db, OLD, &["verify"]).exits(5);
    with(&db, OLD, &["run"]).exits(5);
    accept_all(&db);
    with(&db, OLD, &["verify"]).exits(0);
    chain_holds(&db, OLD);
}

#[test]
fn a_promotion_is_finished_or_taken_back() {
    let db = ledger("promoting");
    with(&db, OLD, &["init"]).exits(0);
    with(&db, NEW, &["promote", "--external", "--yes", "--old-key", &old_key(&db)]).exits(0);
    assert_eq!(state(&db), "promoted");
    let db = ledger("promoting");
    with(&db, OLD, &["rollback", "--yes"]).exits(0);
    assert_eq!(state(&db), "rolled_back");
}

#[test]
fn what_is_promoted_is_finalized_or_rolled_back() {
    let db = ledger("promoted");
    with(&db, NEW, &["init"]).exits(0);
    with(&db, NEW, &["finalize", "--yes", "--old-key", &old_key(&db)]).exits(0);
    assert_eq!(state(&db), "finalized");
    let db = ledger("promoted");
    with(&db, OLD, &["rollback", "--yes"]).exits(0);
    assert_eq!(state(&db), "rolled_back");
    chain_holds(&db, OLD);
}

#[test]
fn a_killed_rollback_and_a_killed_finalize_are_finished() {
    let db = ledger("rolling_back");
    with(&db, OLD, &["rollback", "--yes"]).exits(0);
    assert_eq!(state(&db), "rolled_back");
    let db = ledger("finalizing");
    with(&db, NEW, &["init"]).exits(0);
    with(&db, NEW, &["finalize", "--yes"]).exits(0);
    assert_eq!(state(&db), "finalized");
    let db = ledger("finalized");
    with(&db, NEW, &["init"]).exits(0);
    chain_holds(&db, NEW);
}

#[test]
fn the_server_refuses_an_older_rekey_its_chunks() {
    let db = ledger("migrating");
    with(&db, OLD, &["init"]).exits(0);
    // The statement of 0.1.0, whose sessions do not say what they know.
    let claim =
        "UPDATE rekey.chunks SET owner = 'pod of 0.1.0', worker = 0, epoch = epoch + 1 WHERE state = 'open'";
    let refused = block_on(sqlx::raw_sql(claim).execute(db.pool())).unwrap_err();
    let refused = refused.as_database_error().unwrap();
    assert_eq!(refused.code().as_deref(), Some("42501"), "{refused}");
    assert!(refused.message().contains("needs rekey 0.2.0 or later"), "{refused}");
}

#[test]
fn an_older_rekey_refuses_a_newer_ledger() {
    let db = ledger("migrating");
    with(&db, OLD, &["init"]).exits(0);
    db.execute(
        "INSERT INTO rekey._sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', true, '\\x00', 0);
         COMMENT ON TABLE rekey.rotations IS 'needs rekey 9.8.7 or later'",
    );
    for command in [&["run"][..], &["status"], &["verify"], &["rollback", "--yes"], &["init"], &["report"]] {
        let refused = with(&db, OLD, command).exits(4);
        assert!(refused.stderr.contains("needs rekey 9.8.7 or later"), "{refused}");
    }
}
