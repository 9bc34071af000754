//! `rekey.passes`: one walk over the table, its frontier, its horizon H, and how it ended.

use serde_json::json;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::rotation;
use crate::rotation::{Direction, State};
use crate::store::audit::{self, Actor};
use crate::store::error::{During, Statement, StoreError};
use crate::store::pg_types::Xid;

/// How a pass's chunks are addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// Primary-key ranges: ids follow the heap.
    Keys,
    /// Block ranges: they do not.
    Blocks,
}

impl Addressing {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Addressing::Keys => "keys",
            Addressing::Blocks => "blocks",
        }
    }
}

/// What a pass walks over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassKind {
    /// The whole table.
    Full,
    /// Known stragglers, or none: only the closing proof.
    Sweep,
}

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
    pub outcome: Option<String>,
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
    let bad = |e: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(e);
    Ok(Pass {
        number: row.try_get(0)?,
        direction: row.try_get::<String, _>(1)?.parse().map_err(|e: String| bad(e.into()))?,
        kind: if row.try_get::<&str, _>(2)? == "full" { PassKind::Full } else { PassKind::Sweep },
        horizon: row.try_get::<&str, _>(3)?.parse().map_err(|e: std::num::ParseIntError| bad(e.into()))?,
        filenode: row.try_get(4)?,
        addressing: if row.try_get::<&str, _>(5)? == "keys" { Addressing::Keys } else { Addressing::Blocks },
        chunk_rows: row.try_get(6)?,
        sweeps: row.try_get(7)?,
        estimated_rows: row.try_get(8)?,
        outcome: row.try_get(9)?,
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

/// Opens a full pass. H is taken here, before the first chunk is read and before the heap is measured.
pub async fn open_full(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Direction,
    walk: Walk,
    sweeps: i32,
) -> Result<(), StoreError> {
    let horizon: String = sqlx::query_scalar("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        .fetch_one(&mut *conn)
        .during("take the horizon")
        .await?;
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
    .bind(horizon)
    .bind(walk.chunk_rows)
    .bind(walk.estimated_rows)
    .bind(sweeps)
    .execute(conn)
    .during("open a pass")
    .await
    .map(drop)
}

/// When every chunk is done, adds the one that stands for the closing proof. True if something is left to do.
pub async fn add_proof(conn: &mut PgConnection, pass: &Pass) -> Result<(), StoreError> {
    // Idle workers ask some forty times a second: without a lock, as long as the answer is no.
    let not_yet: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM rekey.chunks WHERE rotation = $1 AND pass = $2 AND (state <> 'done' OR kind = 'proof'))",
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

/// How a closing proof came out.
pub enum Verdict {
    /// Nothing on the source key at one instant.
    Clean,
    /// These rows are; sweep them, then prove again.
    Stragglers(Vec<Uuid>),
    /// More than a list should hold, or the heap was rewritten under block ranges: walk the table again.
    WalkAgain(Walk),
    /// Writers would not stop.
    Unsettled,
}

/// Ends a pass with its proof's verdict, in one transaction with the proof chunk's checkpoint `lease_held`:
/// the caller has just updated the chunk under its lease in this transaction.
pub async fn conclude(
    conn: &mut PgConnection,
    pass: &Pass,
    next_horizon: u64,
    verdict: &Verdict,
    actor: &Actor,
) -> Result<(), StoreError> {
    let outcome = match verdict {
        Verdict::Clean => "clean",
        Verdict::Stragglers(_) | Verdict::WalkAgain(_) => "superseded",
        Verdict::Unsettled => "unsettled",
    };
    sqlx::query(
        "UPDATE rekey.passes SET outcome = $3, next_horizon = $4::xid8, ended_at = clock_timestamp() \
         WHERE rotation = $1 AND pass = $2",
    )
    .bind(pass.rotation)
    .bind(pass.number)
    .bind(outcome)
    .bind(next_horizon.to_string())
    .execute(&mut *conn)
    .during("end the pass")
    .await?;
    match verdict {
        Verdict::Clean => {
            let detail = json!({ "pass": pass.number, "closing_proof": "clean" });
            if pass.direction == Direction::Forward {
                rotation::advance(conn, pass.rotation, &[State::Migrating], State::Migrated, actor, detail)
                    .await?;
            }
        }
        Verdict::Stragglers(ids) => {
            let pause = f64::min(2.0, 0.05 * f64::from(1 << pass.sweeps.min(6)));
            let next: i32 = sqlx::query_scalar(
                "INSERT INTO rekey.passes (rotation, pass, direction, kind, addressing, horizon, filenode, carved, chunk_rows, \
                 estimated_rows, sweeps, not_before) SELECT $1, (SELECT max(pass) + 1 FROM rekey.passes WHERE rotation = $1), \
                 $2, 'sweep', $3, $4::xid8, $5::bigint::oid, true, $6, $7, $8, clock_timestamp() + make_interval(secs => $9) \
                 RETURNING pass",
            )
            .bind(pass.rotation)
            .bind(pass.direction.as_str())
            .bind(pass.addressing.as_str())
            .bind(next_horizon.to_string())
            .bind(pass.filenode)
            .bind(pass.chunk_rows)
            .bind(ids.len() as i64)
            .bind(pass.sweeps + 1)
            .bind(if pass.sweeps < 2 { 0.0 } else { pause })
            .fetch_one(&mut *conn)
            .during("open a sweep")
            .await?;
            for part in ids.chunks(1000) {
                sqlx::query(
                    "INSERT INTO rekey.chunks (rotation, pass, kind, ids) VALUES ($1, $2, 'ids', $3)",
                )
                .bind(pass.rotation)
                .bind(next)
                .bind(part)
                .execute(&mut *conn)
                .during("list the stragglers")
                .await?;
            }
        }
        Verdict::WalkAgain(walk) => {
            open_full(conn, pass.rotation, pass.direction, *walk, pass.sweeps + 1).await?
        }
        Verdict::Unsettled => {
            let detail = json!({ "pass": pass.number });
            audit::append(conn, Some(pass.rotation), "unsettled", actor, detail).await?;
        }
    }
    Ok(())
}
