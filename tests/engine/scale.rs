//! What must not grow with the table: memory, and the disk that a closing proof needs.

use crate::support::credentials::Ids;
use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, SOON, rekey, until};

/// kB, at the default settings.
const MEMORY: u64 = 160 * 1024;

/// Rows of 7 KB, fifty to a page, behind thousands of emptied pages: no mean says how many there are on a page.
#[test]
fn memory_is_bounded_whatever_the_tables_layout() {
    let db = Db::new();
    Load::rows(40_000).bytes(400).into(&db);
    Load::rows(16_000).bytes(7000).ids(Ids::V4).seed(2).into(&db);
    db.execute("DELETE FROM provider_connections WHERE octet_length(encrypted_credentials) < 2000");
    db.execute("ANALYZE provider_connections");
    let run = rekey(&db, ["run"]).start();
    run.ends_within_memory(0, MEMORY);
    let verify = rekey(&db, ["verify"]).start();
    verify.ends_within_memory(0, MEMORY);
}

/// What is read at a time is chosen by what was read before, and thousands of rows of 400 bytes say nothing of those of 7 KB
/// behind them.
#[test]
fn memory_is_bounded_where_small_rows_come_before_large_ones() {
    let db = Db::new();
    Load::rows(45_000).bytes(400).ids(Ids::V4).into(&db);
    Load::rows(9_000).bytes(7000).ids(Ids::V4).seed(2).into(&db);
    rekey(&db, ["run"]).start().ends_within_memory(0, MEMORY);
    assert_eq!(db.value::<String>("SELECT addressing FROM rekey.passes WHERE pass = 1"), "blocks");
    rekey(&db, ["verify"]).start().ends_within_memory(0, MEMORY);
}

/// Chunks that are done leave their entries in the index of open ones for as long as somebody holds a snapshot: no claim walks
/// over all of them.
#[test]
fn a_claim_costs_the_same_however_many_chunks_are_done_and_whoever_holds_a_snapshot() {
    let db = Db::new();
    Load::rows(6000).into(&db);
    rekey(&db, ["init"]).exits(0);
    let mut holder = db.hold();
    holder.execute(sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"));
    holder.execute(sqlx::query("SELECT FROM provider_connections LIMIT 1"));
    rekey(&db, ["run", "--workers", "1", "--chunk-rows", "20"]).exits(0);
    let chunks: i64 = db.value("SELECT count(*) FROM rekey.chunks");
    assert!(chunks >= 300, "{chunks}");
    // What a session has read is told when it ends.
    db.wait_alone();
    let read: i64 =
        db.value("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'chunks_open'");
    assert!(read < chunks * 60, "{read} index entries for {chunks} chunks");
    holder.rollback();
}

/// Each is printed as it comes, users are counted in passing, and the server does not look each row up by itself.
#[test]
fn a_list_of_all_who_are_affected_needs_no_memory() {
    let db = Db::new();
    Load::rows(300).into(&db);
    rekey(&db, ["run"]).exits(0);
    db.execute(
        "INSERT INTO provider_connections (id, user_id, provider_id, provider_slug, status, encrypted_credentials)
             SELECT gen_random_uuid(), user_id, provider_id, provider_slug, status, encrypted_credentials
             FROM provider_connections, generate_series(1, 500);
         INSERT INTO rekey.proofs (rotation, direction, chunk, seq, xid, lo, hi, ids, tags)
             SELECT r.id, 'forward', -1, n / 1000, pg_current_xact_id(), min(c.id::text)::uuid, max(c.id::text)::uuid, array_agg(c.id), ''
             FROM rekey.rotations r, (SELECT id, row_number() OVER () AS n FROM provider_connections) c GROUP BY r.id, n / 1000",
    );
    let users: i64 = db.value("SELECT count(DISTINCT user_id) FROM provider_connections");
    let list = rekey(&db, ["report", "--affected"]).start().ends_within_memory(0, 96 * 1024).json();
    assert_eq!(list["affected"].as_array().map(Vec::len), Some(300 * 501));
    assert_eq!(list["users"], users);
    let lines =
        rekey(&db, ["report", "--affected", "--format", "csv"]).start().ends_within_memory(0, 96 * 1024);
    assert_eq!(lines.stdout.lines().count(), 300 * 501 + 1);
}

/// A few hundred thousand batches, more than the server's `work_mem` holds: no ciphertext is spilled for their sake.
#[test]
fn a_closing_proof_over_many_batches_needs_no_disk() {
    let db = Db::new();
    Load::rows(20_000).bytes(500).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let holder = db.hold_last();
    let run = rekey(&db, ["run"]).start();
    until("all other rows to be moved", SOON, || {
        let put_off = "SELECT EXISTS (SELECT FROM rekey.chunks WHERE owner = 'put off')";
        db.try_value::<bool>(put_off).is_ok_and(|it_is| it_is).then_some(())
    });
    db.execute(
        "INSERT INTO rekey.proofs (rotation, direction, chunk, seq, xid, lo, hi, ids, tags)
             SELECT rotation, direction, -1, n, (3000000000 + n)::text::xid8, lo, hi, '{}', ''
             FROM (SELECT * FROM rekey.proofs LIMIT 1) one, generate_series(1, 200000) n;
         UPDATE rekey.chunks SET batch_seq = 200000 WHERE id = (SELECT min(id) FROM rekey.chunks WHERE state = 'done')",
    );
    let name = &db.name;
    db.execute(&format!(
        "ALTER DATABASE {name} SET work_mem = '256kB'; ALTER DATABASE {name} SET temp_file_limit = '1MB'"
    ));
    holder.rollback();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}
