//! `rekey.passes`: one walk over the table, its frontier, its horizon H, and how it ended.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::chunk;
use super::lease::CARVE;
use super::rotation::lock;
use crate::rotation::{Addressing, Direction, Extent, PassKind, PassOutcome, State};
use crate::store::error::{Statement, StoreError};
use crate::store::pg_types::{FullXid, Xid};
use crate::store::statement::{binds, row, statements};

/// A pass as recorded.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Its rotation.
    pub rotation: Uuid,
    /// Its number within the rotation, from 1.
    pub number: i32,
    /// Which way it moves rows.
    pub direction: Direction,
    /// What it walks over.
    pub kind: PassKind,
    /// H.
    pub horizon: FullXid,
    /// Heap the block numbers belong to.
    pub filenode: i64,
    /// Keys or blocks.
    pub addressing: Addressing,
    /// Rows of one chunk.
    pub chunk_rows: i64,
    /// Sweeps in a row before this pass.
    pub sweeps: i32,
    /// The planner's estimate of rows when it began.
    pub estimated_rows: i64,
    /// How it ended; none while it is under way.
    pub outcome: Option<PassOutcome>,
    /// Whether this is the first full pass of its direction, the one that counts rows it leaves alone.
    pub first: bool,
}

impl Pass {
    /// H as it compares with a row's xmin.
    pub fn horizon_xid(&self) -> Xid {
        self.horizon.short()
    }
}

/// How a new full pass should walk.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Keys or blocks.
    pub addressing: Addressing,
    /// Rows of a chunk.
    pub chunk_rows: i64,
    /// For progress.
    pub estimated_rows: i64,
}

/// What is not carved into chunks yet.
pub(super) struct Frontier {
    pub frontier_id: Option<Uuid>,
    pub frontier_block: Option<i64>,
    pub end_block: Option<i64>,
    pub carved_rows: i64,
}

row!(Pass {
    rotation,
    number,
    direction,
    kind,
    horizon,
    filenode,
    addressing,
    chunk_rows,
    sweeps,
    estimated_rows,
    outcome,
    first
});
row!(Extent { estimated, carved_rows, carved, blocks, blocks_done, rows_done });
row!(Frontier { frontier_id, frontier_block, end_block, carved_rows });
binds!(Pass { rotation, number });
binds!(Walk { addressing, chunk_rows, estimated_rows });

statements! {
    /// The latest pass of a direction.
    pub fn latest(rotation: Uuid, direction: Direction) -> Optional<Pass> during READ:
        "SELECT p.rotation, p.pass AS number, p.direction, p.kind, p.horizon, p.filenode::bigint AS filenode, p.addressing, \
         p.chunk_rows, p.sweeps, p.estimated_rows, p.outcome, NOT EXISTS (SELECT FROM rekey.passes e WHERE e.rotation = p.rotation \
         AND e.direction = p.direction AND e.kind = 'full' AND e.pass < p.pass) AND p.kind = 'full' AS first \
         FROM rekey.passes p WHERE p.rotation = $1 AND p.direction = $2 ORDER BY p.pass DESC LIMIT 1";

    // The proof that ended a clean pass vouches for everything older than the horizon taken before it; one that ended
    // unsettled vouches only for what is older than its own.
    fn insert_sweep_after(pass: &Pass) during "open a sweep":
        "INSERT INTO rekey.passes (rotation, pass, direction, kind, addressing, horizon, filenode, carved, chunk_rows, estimated_rows) \
         SELECT rotation, (SELECT max(pass) + 1 FROM rekey.passes WHERE rotation = $1), direction, 'sweep', addressing, \
         CASE WHEN outcome = 'clean' THEN coalesce(next_horizon, horizon) ELSE horizon END, filenode, true, chunk_rows, estimated_rows \
         FROM rekey.passes WHERE rotation = $1 AND pass = $2";

    fn insert_sweep_of(pass: &Pass, horizon: FullXid, rows: i64, pause: f64) -> One<i32> during "open a sweep":
        "INSERT INTO rekey.passes (rotation, pass, direction, kind, addressing, horizon, filenode, carved, chunk_rows, \
         estimated_rows, sweeps, not_before) SELECT rotation, (SELECT max(pass) + 1 FROM rekey.passes WHERE rotation = $1), \
         direction, 'sweep', addressing, $3, filenode, true, chunk_rows, $4, sweeps + 1, \
         clock_timestamp() + make_interval(secs => $5) FROM rekey.passes WHERE rotation = $1 AND pass = $2 RETURNING pass";

    fn insert_full(rotation: Uuid, direction: Direction, walk: &Walk, horizon: FullXid, sweeps: i32) during "open a pass":
        "INSERT INTO rekey.passes (rotation, pass, direction, kind, addressing, chunk_rows, estimated_rows, horizon, filenode, \
         frontier_block, end_block, sweeps) \
         SELECT $1, (SELECT coalesce(max(pass), 0) + 1 FROM rekey.passes WHERE rotation = $1), $2, 'full', $3, $4, $5, $6, \
         pg_relation_filenode('public.provider_connections'), 0, \
         pg_relation_size('public.provider_connections') / current_setting('block_size')::bigint, $7";

    // Where chunks are carved by keys, none is looked at.
    /// What a pass knows of the table's size so far.
    pub fn extent(pass: &Pass) -> One<Extent> during "read how far the pass is":
        "SELECT p.estimated_rows AS estimated, p.carved_rows, p.carved, coalesce(p.end_block, 0) AS blocks, \
         coalesce(sum(c.hi_block - c.lo_block), 0)::bigint AS blocks_done, \
         coalesce(sum(c.re_encrypted + c.already_on_key + c.null_rows), 0)::bigint AS rows_done \
         FROM rekey.passes p LEFT JOIN rekey.chunks c ON p.addressing = 'blocks' AND c.rotation = p.rotation AND c.pass = p.pass \
         AND c.state = 'done' WHERE p.rotation = $1 AND p.pass = $2 GROUP BY p.rotation, p.pass";

    /// H of the rotation's first pass, if that can still be told: rows older than it were there before rekey came.
    pub fn first_horizon(rotation: Uuid) -> Optional<FullXid> during "read the first horizon":
        "SELECT horizon FROM rekey.passes WHERE rotation = $1 AND NOT EXISTS \
         (SELECT FROM rekey.proofs WHERE rotation = $1 AND xmin <> xid::xid) ORDER BY pass LIMIT 1";

    // A verify since the pass ended met rows on the wrong key, or rows that no id leads to. A sweep looks only at what was
    // written since.
    fn verify_found_more(pass: &Pass) -> One<bool> during "look at the last verify":
        "SELECT EXISTS (SELECT FROM rekey.rotations r JOIN rekey.passes p ON p.rotation = r.id WHERE p.rotation = $1 AND p.pass = $2 \
         AND r.verified_clean = false AND r.verified_at > p.ended_at AND (coalesce((r.verify_result->>'wrong_key')::bigint, 0) > 0 \
         OR coalesce((r.verify_result->>'unseen')::bigint, 0) > 0))";

    /// An H for now: every transaction before it has ended.
    pub fn take_horizon() -> One<FullXid> during "take the horizon":
        "SELECT pg_snapshot_xmin(pg_current_snapshot())";

    // Whatever has been handed out here meanwhile: proofs of the walk that H belongs to, which are not what wrote them.
    fn reaches(pass: &Pass, horizon: FullXid) -> One<bool> during "measure the horizon's age":
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric - $3::xid8::text::numeric BETWEEN 0 AND 2000000000 AND NOT EXISTS \
         (SELECT FROM rekey.proofs p JOIN rekey.chunks c ON c.id = p.chunk WHERE p.rotation = $1 AND p.xmin <> p.xid::xid \
         AND c.pass >= (SELECT max(pass) FROM rekey.passes WHERE rotation = $1 AND kind = 'full' AND pass <= $2))";

    pub(super) fn lock_frontier(pass: &Pass, states: &[State]) -> Optional<Frontier> during CARVE:
        "SELECT p.frontier_id, p.frontier_block, p.end_block, p.carved_rows FROM rekey.passes p \
         JOIN rekey.rotations r ON r.id = p.rotation WHERE p.rotation = $1 AND p.pass = $2 AND NOT p.carved \
         AND p.outcome IS NULL AND r.desired = 'running' AND r.state = ANY($3) FOR NO KEY UPDATE OF p";

    pub(super) fn move_frontier(pass: &Pass, id: Option<Uuid>, block: Option<i64>, carved: bool, rows: i64) during CARVE:
        "UPDATE rekey.passes SET frontier_id = $3, frontier_block = coalesce($4, frontier_block), carved = $5, \
         carved_rows = carved_rows + $6 WHERE rotation = $1 AND pass = $2";

    fn lock_carved(pass: &Pass) -> Optional<bool> during "look at the pass":
        "SELECT carved FROM rekey.passes WHERE rotation = $1 AND pass = $2 AND outcome IS NULL FOR NO KEY UPDATE";

    fn lock(pass: &Pass) during "conclude the pass":
        "SELECT FROM rekey.passes WHERE rotation = $1 AND pass = $2 FOR NO KEY UPDATE";

    /// Ends a pass. The caller has just updated its proof's chunk under its lease, in this transaction.
    pub fn end(pass: &Pass, outcome: PassOutcome, next_horizon: FullXid) during "end the pass":
        "UPDATE rekey.passes SET outcome = $3, next_horizon = $4, ended_at = clock_timestamp() \
         WHERE rotation = $1 AND pass = $2";

    pub(super) fn lock_open(rotation: Uuid) during FENCE:
        "SELECT FROM rekey.passes WHERE rotation = $1 AND outcome IS NULL FOR NO KEY UPDATE";

    pub(super) fn cancel_open(rotation: Uuid) during FENCE:
        "UPDATE rekey.passes SET outcome = 'cancelled', ended_at = clock_timestamp() WHERE rotation = $1 AND outcome IS NULL";
}

const READ: &str = "read the pass";
pub(super) const FENCE: &str = "fence the workers";

/// The pass under way is not there any more: this is another database than the one it was opened in.
pub fn vanished() -> StoreError {
    StoreError::Sql { op: READ, source: sqlx::Error::RowNotFound }
}

/// Joins the pass under way, or opens the next one: a sweep where an earlier pass of this direction ended and no verify has
/// found more since, a full pass otherwise. Created under the rotation's lock, and re-read. `None` where rows are not to be moved that way: the
/// rotation was turned, or another one has begun since it ended.
pub async fn open_or_join(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Direction,
    walk: Walk,
) -> Result<Option<Pass>, StoreError> {
    let mut tx = conn.begin().during("begin").await?;
    lock::lock(&mut tx).await?;
    if !lock::is_workable(&mut tx, rotation, direction).await? {
        return Ok(None);
    }
    match latest(&mut tx, rotation, direction).await? {
        Some(pass) if pass.outcome.is_none() => return Ok(Some(pass)),
        Some(pass)
            if horizon_is_usable(&mut tx, &pass).await? && !verify_found_more(&mut tx, &pass).await? =>
        {
            insert_sweep_after(&mut tx, &pass).await?;
        }
        _ => open_full(&mut tx, rotation, direction, walk, 0).await?,
    }
    let pass = latest(&mut tx, rotation, direction).await?;
    tx.commit().during("open a pass").await?;
    pass.map(Some).ok_or(StoreError::Sql { op: "open a pass", source: sqlx::Error::RowNotFound })
}

/// Whether rows can still be told older or younger than H by their xmin: exact while H is less than 2^31 transactions
/// old. In a database that was dumped and loaded into another server H says nothing.
pub async fn horizon_is_usable(conn: &mut PgConnection, pass: &Pass) -> Result<bool, StoreError> {
    reaches(conn, pass, pass.horizon).await
}

/// Opens a full pass. H is taken here, before the first chunk is read and before the heap is measured.
pub async fn open_full(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Direction,
    walk: Walk,
    sweeps: i32,
) -> Result<(), StoreError> {
    let horizon = take_horizon(conn).await?;
    insert_full(conn, rotation, direction, &walk, horizon, sweeps).await
}

/// When every chunk is done, adds the one that stands for the closing proof.
pub async fn add_proof(conn: &mut PgConnection, pass: &Pass) -> Result<(), StoreError> {
    // Whoever waits asks about once a second: without a lock, and by the index of what is open, as long as the answer is no.
    if chunk::are_open_in(conn, pass).await? {
        return Ok(());
    }
    let mut tx = conn.begin().during("begin").await?;
    if lock_carved(&mut tx, pass).await? == Some(true) {
        chunk::insert_proof(&mut tx, pass).await?;
    }
    tx.commit().during("open the closing proof").await
}

/// Locks what concluding a pass touches, in the order that fencing locks it: rotation, pass, then chunk and audit chain.
/// Call inside a transaction of the caller's.
pub async fn lock_to_conclude(conn: &mut PgConnection, pass: &Pass) -> Result<(), StoreError> {
    lock::be_patient(conn).await?;
    lock::lock_row(conn, pass.rotation).await?;
    lock(conn, pass).await
}

/// Opens a sweep over these rows after a pass that has just ended, to begin after a pause.
pub async fn open_sweep(
    conn: &mut PgConnection,
    pass: &Pass,
    horizon: FullXid,
    rows: &[Uuid],
    pause: Duration,
) -> Result<(), StoreError> {
    let next = insert_sweep_of(conn, pass, horizon, rows.len() as i64, pause.as_secs_f64()).await?;
    for part in rows.chunks(1000) {
        chunk::insert_ids(conn, pass.rotation, next, part).await?;
    }
    Ok(())
}
