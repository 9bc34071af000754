//! `rekey.passes`: one walk over the table, its frontier, its horizon H, and how it ended.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::rotation;
use crate::rotation::{Addressing, Direction, PassKind, PassOutcome};
use crate::store::error::{During, Statement, StoreError};
use crate::store::pg_types::{Word, Xid};

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
    /// H, full width.
    pub horizon: u64,
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
        Xid(self.horizon as u32)
    }
}

const SELECT: &str = "SELECT p.pass, p.direction, p.kind, p.horizon::text, p.filenode::bigint, p.addressing, p.chunk_rows, p.sweeps, \
     p.estimated_rows, p.outcome, NOT EXISTS (SELECT FROM rekey.passes e WHERE e.rotation = p.rotation \
     AND e.direction = p.direction AND e.kind = 'full' AND e.pass < p.pass) AND p.kind = 'full' AS first, p.rotation, \
     p.next_horizon::text FROM rekey.passes p WHERE p.rotation = $1 AND p.direction = $2 ORDER BY p.pass DESC LIMIT 1";

fn decode(row: &sqlx::postgres::PgRow) -> Result<Pass, sqlx::Error> {
    let number =
        |text: &str| text.parse().map_err(|e: std::num::ParseIntError| sqlx::Error::Decode(e.into()));
    Ok(Pass {
        number: row.try_get(0)?,
        direction: row.try_get::<Word<_>, _>(1)?.0,
        kind: row.try_get::<Word<_>, _>(2)?.0,
        horizon: number(row.try_get(3)?)?,
        filenode: row.try_get(4)?,
        addressing: row.try_get::<Word<_>, _>(5)?.0,
        chunk_rows: row.try_get(6)?,
        sweeps: row.try_get(7)?,
        estimated_rows: row.try_get(8)?,
        outcome: row.try_get::<Option<Word<_>>, _>(9)?.map(|word| word.0),
        first: row.try_get(10)?,
        rotation: row.try_get(11)?,
    })
}

/// The latest pass of a direction.
pub async fn latest(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Direction,
) -> Result<Option<Pass>, StoreError> {
    let row = sqlx::query(SELECT)
        .bind(rotation)
        .bind(direction.as_str())
        .fetch_optional(conn)
        .during("read the pass")
        .await?;
    row.map(|r| decode(&r)).transpose().during("read the pass")
}

/// The pass under way is not there any more: this is another database than the one it was opened in.
pub fn vanished() -> StoreError {
    StoreError::Sql { op: "read the pass", source: sqlx::Error::RowNotFound }
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

/// Joins the pass under way, or opens the next one: a sweep where an earlier pass of this direction ended, a full
/// pass otherwise. Created under the rotation's lock, and re-read. `None` where rows are not to be moved that way: the
/// rotation was turned, or another one has begun since it ended.
pub async fn open_or_join(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Direction,
    walk: Walk,
) -> Result<Option<Pass>, StoreError> {
    let mut tx = conn.begin().during("begin").await?;
    rotation::lock(&mut tx).await?;
    if !rotation::is_workable(&mut tx, rotation, direction).await? {
        return Ok(None);
    }
    let last = latest(&mut tx, rotation, direction).await?;
    match last {
        Some(pass) if pass.outcome.is_none() => return Ok(Some(pass)),
        // The proof that ended a clean pass vouches for everything older than the horizon taken before it; one
        // that ended unsettled vouches only for what is older than its own.
        Some(pass) if horizon_is_usable(&mut tx, &pass).await? => {
            sqlx::query(
                "INSERT INTO rekey.passes (rotation, pass, direction, kind, addressing, horizon, filenode, carved, chunk_rows, estimated_rows) \
                 SELECT rotation, (SELECT max(pass) + 1 FROM rekey.passes WHERE rotation = $1), direction, 'sweep', addressing, \
                 CASE WHEN outcome = 'clean' THEN coalesce(next_horizon, horizon) ELSE horizon END, filenode, true, chunk_rows, estimated_rows \
                 FROM rekey.passes WHERE rotation = $1 AND pass = $2",
            )
            .bind(rotation)
            .bind(pass.number)
            .execute(&mut *tx)
            .during("open a sweep")
            .await?;
        }
        _ => open_full(&mut tx, rotation, direction, walk, 0).await?,
    }
    let pass = latest(&mut tx, rotation, direction).await?;
    tx.commit().during("open a pass").await?;
    pass.map(Some).ok_or(StoreError::Sql { op: "open a pass", source: sqlx::Error::RowNotFound })
}

/// H of the rotation's first pass, if that can still be told: rows older than it were there before rekey came.
pub async fn first_horizon(conn: &mut PgConnection, rotation: Uuid) -> Result<Option<u64>, StoreError> {
    let text: Option<String> = sqlx::query_scalar(
        "SELECT horizon::text FROM rekey.passes WHERE rotation = $1 AND NOT EXISTS \
         (SELECT FROM rekey.proofs WHERE rotation = $1 AND xmin <> xid::xid) ORDER BY pass LIMIT 1",
    )
    .bind(rotation)
    .fetch_optional(conn)
    .during("read the first horizon")
    .await?;
    Ok(text.and_then(|t| t.parse().ok()))
}

/// Whether rows can still be told older or younger than H by their xmin: exact while H is less than 2^31 transactions
/// old. In a database that was dumped and loaded into another server H says nothing.
pub async fn horizon_is_usable(conn: &mut PgConnection, pass: &Pass) -> Result<bool, StoreError> {
    // Whatever has been handed out here meanwhile: proofs of the walk that H belongs to, which are not what wrote them.
    sqlx::query_scalar(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric - $1::numeric BETWEEN 0 AND 2000000000 AND NOT EXISTS \
         (SELECT FROM rekey.proofs p JOIN rekey.chunks c ON c.id = p.chunk WHERE p.rotation = $2 AND p.xmin <> p.xid::xid \
         AND c.pass >= (SELECT max(pass) FROM rekey.passes WHERE rotation = $2 AND kind = 'full' AND pass <= $3))",
    )
    .bind(pass.horizon.to_string())
    .bind(pass.rotation)
    .bind(pass.number)
    .fetch_one(conn)
    .during("measure the horizon's age")
    .await
}

/// An H for now: every transaction before it has ended.
pub async fn take_horizon(conn: &mut PgConnection) -> Result<u64, StoreError> {
    let horizon: String = sqlx::query_scalar("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        .fetch_one(conn)
        .during("take the horizon")
        .await?;
    horizon.parse().map_err(|_| StoreError::Sql {
        op: "take the horizon",
        source: sqlx::Error::Decode("not a number".into()),
    })
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
    sqlx::query(
        "INSERT INTO rekey.passes (rotation, pass, direction, kind, addressing, horizon, filenode, frontier_block, end_block, \
         chunk_rows, estimated_rows, sweeps) \
         SELECT $1, (SELECT coalesce(max(pass), 0) + 1 FROM rekey.passes WHERE rotation = $1), $2, 'full', $3, $4::xid8, \
         pg_relation_filenode('public.provider_connections'), 0, \
         pg_relation_size('public.provider_connections') / current_setting('block_size')::bigint, $5, $6, $7",
    )
    .bind(rotation)
    .bind(direction.as_str())
    .bind(walk.addressing.as_str())
    .bind(horizon.to_string())
    .bind(walk.chunk_rows)
    .bind(walk.estimated_rows)
    .bind(sweeps)
    .execute(conn)
    .during("open a pass")
    .await
    .map(drop)
}

/// When every chunk is done, adds the one that stands for the closing proof.
pub async fn add_proof(conn: &mut PgConnection, pass: &Pass) -> Result<(), StoreError> {
    // Whoever waits asks about once a second: without a lock, and by the index of what is open, as long as the answer is no.
    let not_yet: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM rekey.chunks WHERE rotation = $1 AND pass = $2 AND state = 'open')",
    )
    .bind(pass.rotation)
    .bind(pass.number)
    .fetch_one(&mut *conn)
    .during("look for work that is left")
    .await?;
    if not_yet {
        return Ok(());
    }
    let mut tx = conn.begin().during("begin").await?;
    let carved: Option<bool> = sqlx::query_scalar(
        "SELECT carved FROM rekey.passes WHERE rotation = $1 AND pass = $2 AND outcome IS NULL FOR NO KEY UPDATE",
    )
    .bind(pass.rotation)
    .bind(pass.number)
    .fetch_optional(&mut *tx)
    .during("look at the pass")
    .await?;
    if carved == Some(true) {
        sqlx::query(
            "INSERT INTO rekey.chunks (rotation, pass, kind) SELECT $1, $2, 'proof' WHERE NOT EXISTS \
             (SELECT FROM rekey.chunks WHERE rotation = $1 AND pass = $2 AND (state <> 'done' OR kind = 'proof'))",
        )
        .bind(pass.rotation)
        .bind(pass.number)
        .execute(&mut *tx)
        .during("open the closing proof")
        .await?;
    }
    tx.commit().during("open the closing proof").await
}

/// Locks what concluding a pass touches, in the order that fencing locks it: rotation, pass, then chunk and audit chain.
/// Call inside a transaction of the caller's.
pub async fn lock_to_conclude(conn: &mut PgConnection, pass: &Pass) -> Result<(), StoreError> {
    const OP: &str = "conclude the pass";
    // Nothing of the application's is locked here, and what was found took long to find.
    sqlx::query("SET LOCAL lock_timeout = '10s'").execute(&mut *conn).during(OP).await?;
    sqlx::query("SELECT FROM rekey.rotations WHERE id = $1 FOR NO KEY UPDATE")
        .bind(pass.rotation)
        .execute(&mut *conn)
        .during(OP)
        .await?;
    sqlx::query("SELECT FROM rekey.passes WHERE rotation = $1 AND pass = $2 FOR NO KEY UPDATE")
        .bind(pass.rotation)
        .bind(pass.number)
        .execute(conn)
        .during(OP)
        .await
        .map(drop)
}

/// Ends a pass. The caller has just updated its proof's chunk under its lease, in this transaction.
pub async fn end(
    conn: &mut PgConnection,
    pass: &Pass,
    outcome: PassOutcome,
    next_horizon: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE rekey.passes SET outcome = $3, next_horizon = $4::xid8, ended_at = clock_timestamp() \
         WHERE rotation = $1 AND pass = $2",
    )
    .bind(pass.rotation)
    .bind(pass.number)
    .bind(outcome.as_str())
    .bind(next_horizon.to_string())
    .execute(conn)
    .during("end the pass")
    .await
    .map(drop)
}

/// Opens a sweep over these rows after a pass that has just ended, to begin after a pause.
pub async fn open_sweep(
    conn: &mut PgConnection,
    pass: &Pass,
    horizon: u64,
    rows: &[Uuid],
    pause: Duration,
) -> Result<(), StoreError> {
    let next: i32 = sqlx::query_scalar(
        "INSERT INTO rekey.passes (rotation, pass, direction, kind, addressing, horizon, filenode, carved, chunk_rows, \
         estimated_rows, sweeps, not_before) SELECT $1, (SELECT max(pass) + 1 FROM rekey.passes WHERE rotation = $1), \
         $2, 'sweep', $3, $4::xid8, $5::bigint::oid, true, $6, $7, $8, clock_timestamp() + make_interval(secs => $9) \
         RETURNING pass",
    )
    .bind(pass.rotation)
    .bind(pass.direction.as_str())
    .bind(pass.addressing.as_str())
    .bind(horizon.to_string())
    .bind(pass.filenode)
    .bind(pass.chunk_rows)
    .bind(rows.len() as i64)
    .bind(pass.sweeps + 1)
    .bind(pause.as_secs_f64())
    .fetch_one(&mut *conn)
    .during("open a sweep")
    .await?;
    for part in rows.chunks(1000) {
        sqlx::query("INSERT INTO rekey.chunks (rotation, pass, kind, ids) VALUES ($1, $2, 'ids', $3)")
            .bind(pass.rotation)
            .bind(next)
            .bind(part)
            .execute(&mut *conn)
            .during("list the stragglers")
            .await?;
    }
    Ok(())
}
