//! Leases on `rekey.chunks`: claiming and carving, the only two ways to the right to write rows.
//!
//! A [`Lease`] cannot be made anywhere else: its fields are private. `rows::write` and the checkpoint ask for one.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::pass::Pass;
use crate::rotation::{Addressing, Bounds, ChunkSize, State};
use crate::store::error::{During, Statement, StoreError};
use crate::store::rows::next_key;

/// Who works: a process and one of its workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Unique per process.
    pub process: String,
    /// Index within it.
    pub worker: i32,
}

/// The right to write one chunk's rows, until someone takes it over.
#[derive(Clone, Debug)]
pub struct Lease {
    chunk: i64,
    owner: Owner,
    epoch: i32,
    bounds: Bounds,
    batch_seq: i64,
    pass: Pass,
    ttl: Duration,
    quarantine: bool,
}

impl Lease {
    /// The chunk.
    pub fn chunk(&self) -> i64 {
        self.chunk
    }

    /// Whose it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The fencing token: raised by every claim, and by every turn of the rotation.
    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// What it covers.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Batches committed when it was claimed, by anyone.
    pub fn batch_seq(&self) -> i64 {
        self.batch_seq
    }

    /// The pass it belongs to.
    pub fn pass(&self) -> &Pass {
        &self.pass
    }

    /// How long it lives without a sign of its owner.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Some rows of this rotation are quarantined: a batch may have entries to remove.
    pub(super) fn quarantine(&self) -> bool {
        self.quarantine
    }
}

/// Whether nobody holds the chunk `c`: its lease has run out, or ends so much later than it could that the database's clock
/// must have been set back since. No TTL is longer than an hour.
macro_rules! is_free {
    () => {
        "(c.owner IS NULL OR c.lease_until < clock_timestamp() OR c.lease_until > clock_timestamp() \
         + make_interval(secs => 2 * coalesce(c.lease_seconds, 1800)))"
    };
}
pub(super) use is_free;

const CLAIM: &str = concat!(
    "UPDATE rekey.chunks SET owner = $1, worker = $2, epoch = epoch + 1, started_at = coalesce(started_at, clock_timestamp()), \
     lease_until = clock_timestamp() + make_interval(secs => $3), lease_seconds = $3 \
     WHERE id = (SELECT c.id FROM rekey.chunks c JOIN rekey.rotations r ON r.id = c.rotation \
     JOIN rekey.passes p ON p.rotation = c.rotation AND p.pass = c.pass \
     WHERE c.rotation = $4 AND c.pass = $5 AND c.state = 'open' AND ",
    is_free!(),
    " AND r.desired = 'running' AND r.state = ANY($6) AND p.outcome IS NULL AND coalesce(p.not_before < clock_timestamp(), true) \
     ORDER BY c.id LIMIT 1 FOR UPDATE OF c SKIP LOCKED) AND state = 'open' \
     RETURNING id, epoch, kind, lo, hi, lo_block, hi_block, ids, batch_seq, \
     EXISTS (SELECT FROM rekey.quarantine q WHERE q.rotation = chunks.rotation)"
);

fn lease(row: &PgRow, pass: &Pass, owner: &Owner, ttl: Duration) -> Result<Lease, sqlx::Error> {
    let bounds = match row.try_get::<&str, _>(2)? {
        "keys" => Bounds::Keys { lo: row.try_get(3)?, hi: row.try_get(4)? },
        "blocks" => {
            let (lo, hi): (i64, i64) = (row.try_get(5)?, row.try_get(6)?);
            Bounds::Blocks { lo: lo as u32, hi: hi as u32 }
        }
        "ids" => Bounds::Ids(row.try_get(7)?),
        _ => Bounds::Proof,
    };
    Ok(Lease {
        chunk: row.try_get(0)?,
        owner: owner.clone(),
        epoch: row.try_get(1)?,
        bounds,
        batch_seq: row.try_get(8)?,
        pass: pass.clone(),
        ttl,
        quarantine: row.try_get(9)?,
    })
}

/// Leases a chunk that nobody holds, or whose lease has run out.
pub async fn claim(
    conn: &mut PgConnection,
    pass: &Pass,
    owner: &Owner,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    let states: Vec<&str> = State::workable(pass.direction).iter().map(|s| s.as_str()).collect();
    let row = sqlx::query(CLAIM)
        .bind(&owner.process)
        .bind(owner.worker)
        .bind(ttl.as_secs_f64())
        .bind(pass.rotation)
        .bind(pass.number)
        .bind(states)
        .fetch_optional(conn)
        .during("claim a chunk")
        .await?;
    row.map(|r| lease(&r, pass, owner, ttl)).transpose().during("claim a chunk")
}

/// Carves the next chunk off the frontier and leases it; `None` when the whole table is carved.
pub async fn carve(
    conn: &mut PgConnection,
    pass: &Pass,
    owner: &Owner,
    ttl: Duration,
    rows_per_page: f64,
) -> Result<Option<Lease>, StoreError> {
    const OP: &str = "carve a chunk";
    let states: Vec<&str> = State::workable(pass.direction).iter().map(|s| s.as_str()).collect();
    let mut tx = conn.begin().during(OP).await?;
    let frontier = sqlx::query(
        "SELECT p.frontier_id, p.frontier_block, p.end_block, p.carved_rows FROM rekey.passes p JOIN rekey.rotations r ON r.id = p.rotation \
         WHERE p.rotation = $1 AND p.pass = $2 AND NOT p.carved AND p.outcome IS NULL AND r.desired = 'running' AND r.state = ANY($3) \
         FOR NO KEY UPDATE OF p",
    )
    .bind(pass.rotation)
    .bind(pass.number)
    .bind(states)
    .fetch_optional(&mut *tx)
    .during(OP)
    .await?;
    let Some(frontier) = frontier else { return Ok(None) };
    let rows = ChunkSize::taper(pass.chunk_rows, pass.estimated_rows - frontier.get::<i64, _>(3));
    let next = match pass.addressing {
        Addressing::Keys => {
            let lo: Option<Uuid> = frontier.get(0);
            let hi = next_key(&mut tx, lo, rows).during(OP).await?;
            Carved { kind: "keys", keys: (lo, hi), blocks: None, last: hi.is_none() }
        }
        Addressing::Blocks => {
            let (lo, end): (i64, i64) = (frontier.get(1), frontier.get(2));
            let blocks = (rows as f64 / rows_per_page.max(1.0)).ceil().max(1.0) as i64;
            let hi = (lo + blocks).min(end);
            Carved { kind: "blocks", keys: (None, None), blocks: Some((lo, hi)), last: hi >= end }
        }
    };
    // The table has no blocks at all: there is no chunk to be had.
    let empty = next.blocks.is_some_and(|(lo, hi)| lo >= hi);
    let row = if empty { None } else { next.insert(&mut tx, pass, owner, ttl).await.during(OP)? };
    if row.is_none() && !empty {
        return Ok(None);
    }
    sqlx::query(
        "UPDATE rekey.passes SET frontier_id = $3, frontier_block = coalesce($4, frontier_block), carved = $5, \
         carved_rows = carved_rows + $6 WHERE rotation = $1 AND pass = $2",
    )
    .bind(pass.rotation)
    .bind(pass.number)
    .bind(next.keys.1)
    .bind(next.blocks.map(|(_, hi)| hi))
    .bind(next.last)
    .bind(rows)
    .execute(&mut *tx)
    .during(OP)
    .await?;
    tx.commit().during(OP).await?;
    row.map(|row| lease(&row, pass, owner, ttl)).transpose().during(OP)
}

/// A chunk as it is cut off the frontier.
struct Carved {
    kind: &'static str,
    keys: (Option<Uuid>, Option<Uuid>),
    blocks: Option<(i64, i64)>,
    /// Nothing is left behind it.
    last: bool,
}

impl Carved {
    /// Inserts it, leased. Asks again whether work is wanted: whoever aborts may have held the pass while the first
    /// answer waited for it.
    async fn insert(
        &self,
        conn: &mut PgConnection,
        pass: &Pass,
        owner: &Owner,
        ttl: Duration,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        sqlx::query(
            "INSERT INTO rekey.chunks (rotation, pass, kind, lo, hi, lo_block, hi_block, owner, worker, epoch, started_at, \
             lease_until, lease_seconds) SELECT $1, $2, $3, $4::uuid, $5::uuid, $6::bigint, $7::bigint, $8, $9, 1, clock_timestamp(), \
             clock_timestamp() + make_interval(secs => $10), $10 FROM rekey.rotations WHERE id = $1 AND desired = 'running' \
             RETURNING id, epoch, kind, lo, hi, lo_block, hi_block, ids, batch_seq, \
             EXISTS (SELECT FROM rekey.quarantine q WHERE q.rotation = chunks.rotation)",
        )
        .bind(pass.rotation)
        .bind(pass.number)
        .bind(self.kind)
        .bind(self.keys.0)
        .bind(self.keys.1)
        .bind(self.blocks.map(|(lo, _)| lo))
        .bind(self.blocks.map(|(_, hi)| hi))
        .bind(&owner.process)
        .bind(owner.worker)
        .bind(ttl.as_secs_f64())
        .fetch_optional(conn)
        .await
    }
}
