//! The closing proof's statements: every row that something else wrote since the pass began, over one snapshot; and after a
//! walk over the whole table every other row that rekey did not write, so that none which the index of the primary key does
//! not lead to escapes.
//!
//! Ids and versions alone go through the join with rekey's own batches, so that a proof over many batches needs little
//! memory, and no disk. What is done about the rows is decided in `engine::closing`.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::{Statement as _, StoreError};
use super::index;
use super::ledger::Pass;
use super::pg_types::Xid;
use super::rows::{self, READ_ROWS, Read, Stretch, read_columns};
use super::statement::statements;
use super::table::user_triggers;
use crate::rotation::{Direction, PassKind, Tid};

const OP: &str = "prove that none is left";
const BEGIN: &str = "begin the closing proof";

/// Ids that are held at a time, 16 bytes each. Where more rows were written by others, all young rows are read as they come.
const LISTED: i64 = 1_000_000;

/// What the hash of one batch takes: its transaction id twice, and what the server keeps beside it.
const BATCH_BYTES: i64 = 80;

statements! {
    // Memory for the hash of all batches, up to 64 MB (twice that for hashes): beyond it, ids spill to disk, 40 bytes a row.
    // The proof may be long, and should not be: next to nothing comes back, so sharing the scan costs nothing. Transaction
    // ids can be hashed and not sorted: without a hash, each row would be compared with each batch.
    fn settings(rotation: Uuid, batch_bytes: i64) during BEGIN:
        "SELECT set_config('statement_timeout', '0', true), set_config('parallel_setup_cost', '0', true), \
         set_config('parallel_tuple_cost', '0', true), set_config('enable_nestloop', 'off', true), \
         set_config('work_mem', greatest(m.setting::bigint, least(65536, n.batches * $2 / 1024)) || 'kB', true) \
         FROM pg_catalog.pg_settings m, \
         (SELECT coalesce(sum(batch_seq), 0)::bigint AS batches FROM rekey.chunks WHERE rotation = $1) n \
         WHERE m.name = 'work_mem'";

    // A user trigger may have changed other rows, or other bytes, in rekey's transactions, even if it is gone by now: every
    // row that they touched is decrypted as well.
    fn has_triggers(rotation: Uuid) -> One<bool> during "look for triggers":
        concat!("SELECT ", user_triggers!(), " OR EXISTS (SELECT FROM rekey.chunks WHERE rotation = $1 AND beside_triggers)");

    // The fence (OFFSET 0) keeps `age()` above the join: it is not parallel-safe, and below it would keep the scan on one
    // core. The inner one keeps ciphertext out of the join. A proof row vouches only for what the very transaction that
    // wrote it wrote: in a ledger that was restored from a dump its recorded id is another database's, and may be an
    // application's here.
    fn foreign(horizon: Xid, rotation: Uuid, direction: Direction, old_too: bool, limit: i64) -> Query<Uuid> during OP:
        "SELECT s.id FROM (SELECT t.id, t.x FROM (SELECT id, xmin AS x FROM public.provider_connections \
         WHERE encrypted_credentials IS NOT NULL OFFSET 0) t WHERE NOT EXISTS (SELECT FROM rekey.proofs p \
         WHERE p.rotation = $2 AND p.direction = $3 AND p.xid::xid = t.x AND p.xmin = t.x) \
         OFFSET 0) s WHERE age(s.x) <= age($1) OR $4 LIMIT $5";

    fn young(horizon: Xid, max: i32, old_too: bool, from: Tid, before: Tid) -> Query<Read<'static>> during OP:
        concat!(
            "SELECT * FROM (SELECT ", read_columns!("$2"), " FROM public.provider_connections t \
             WHERE t.encrypted_credentials IS NOT NULL AND t.ctid >= $4 AND t.ctid < $5 OFFSET 0) s \
             WHERE age(s.xmin) <= age($1) OR $3"
        );

    fn blocks() -> One<i64> during "look at the heap":
        "SELECT pg_relation_size('public.provider_connections') / current_setting('block_size')::bigint";

    fn filenode() -> One<i64> during "look at the heap":
        "SELECT pg_relation_filenode('public.provider_connections')::bigint";
}

/// Blocks of a statement that reads young rows as they come: what is put aside of them is in memory together.
const BLOCKS: u32 = 2048;

/// Takes the rows of a closing proof.
pub trait Taker: Send {
    /// Why it gives up.
    type Error: From<StoreError> + Send;

    /// Takes a row, and says whether it may have to be moved.
    fn take(&mut self, row: Read<'_>) -> Result<bool, Self::Error>;

    /// Between two statements: deals with some of what was put aside, so that it does not grow with the table, and says
    /// whether there is more.
    fn rest(&mut self) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// Hands on each row that something else wrote since the pass's horizon, and after a walk over the whole table the older ones
/// that rekey left alone; values longer than `max` bytes are left out. What has to be moved is moved by id: where the index
/// does not lead to one of these, or to one that was left alone, that is the end. Returns the file that the heap is in.
pub async fn read_foreign<T: Taker>(
    conn: &mut PgConnection,
    pass: &Pass,
    max: i32,
    taker: &mut T,
) -> Result<i64, T::Error> {
    // One snapshot for all of it: that none is on the source key is said of one instant.
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").during(BEGIN).await?;
    settings(&mut tx, pass.rotation, BATCH_BYTES).await?;
    let (horizon, old_too) = (pass.horizon_xid(), pass.kind == PassKind::Full);
    let mut ids = Vec::new();
    let by_id = !has_triggers(&mut tx, pass.rotation).await? && {
        let foreign = foreign(horizon, pass.rotation, pass.direction, old_too, LISTED + 1).however_long();
        foreign
            .each(&mut tx, |id| {
                ids.push(id);
                Ok::<(), StoreError>(())
            })
            .await?;
        ids.len() as i64 <= LISTED
    };
    if by_id {
        index::only_by_index(&mut tx).await?;
        for ids in ids.chunks(READ_ROWS as usize) {
            let mut found = Vec::with_capacity(ids.len());
            let stretch = Stretch::Ids { ids: ids.to_vec(), max };
            rows::read_once(&mut tx, &stretch, |row| {
                found.push(row.id);
                taker.take(row).map(drop)
            })
            .await?;
            // In one snapshot, what is there by place is there by id.
            index::refuse(&mut tx, &index::missing(ids, found)).await?;
            while taker.rest().await? {
                // The server ends a transaction that is idle for long.
                filenode(&mut tx).await?;
            }
        }
    } else {
        drop(ids);
        // Keeps to places, too.
        index::only_by_index(&mut tx).await?;
        let (blocks, mut from) = (blocks(&mut tx).await?, 0u32);
        loop {
            // The last one has no end: whatever was measured, none is missed.
            let next = from.saturating_add(BLOCKS);
            let before = if i64::from(next) < blocks { next } else { u32::MAX };
            let place = |block| Tid { block, offset: 0 };
            let mut moves = Vec::new();
            let read = young(horizon, max, old_too, place(from), place(before));
            let reading = read.however_long().each(&mut tx, |row| {
                let id = row.id;
                if taker.take(row)? {
                    moves.push(id);
                }
                Ok::<(), T::Error>(())
            });
            reading.await?;
            index::require(&mut tx, &moves).await?;
            while taker.rest().await? {
                // The server ends a transaction that is idle for long.
                filenode(&mut tx).await?;
            }
            if before == u32::MAX {
                break;
            }
            from = next;
        }
    }
    // The statement's lock on the table is still held: the heap has not been rewritten since.
    let filenode = filenode(&mut tx).await?;
    tx.commit().during("end the closing proof").await?;
    Ok(filenode)
}
