//! `rekey.chunks`: carving, leasing, and the checkpoint that fences a worker whose lease was taken over.
//!
//! Whoever writes rows needs a [`Lease`], and only [`claim`] and [`carve`] make one.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::pass::{Addressing, Pass};
use crate::rotation::{Bounds, ChunkSize, Counters, Desired, Direction, State};
use crate::store::error::{During, Statement, StoreError};

/// Who works: a process and one of its workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Unique per process.
    pub process: String,
    /// Index within it.
    pub worker: i32,
}

/// The right to write one chunk's rows, until someone takes it over. `epoch` is the fencing token.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The chunk.
    pub chunk: i64,
    /// Whose it is.
    pub owner: Owner,
    /// Raised by every claim and by every turn.
    pub epoch: i32,
    /// What it covers.
    pub bounds: Bounds,
    /// Batches committed so far, by anyone.
    pub batch_seq: i64,
    /// The pass it belongs to.
    pub pass: Pass,
    /// Lease lifetime.
    pub ttl: Duration,
    /// Some rows of this rotation are quarantined: a batch may have entries to remove.
    pub quarantine: bool,
}

const CLAIM: &str = "UPDATE rekey.chunks SET owner = $1, worker = $2, epoch = epoch + 1, started_at = coalesce(started_at, clock_timestamp()), \
     lease_until = clock_timestamp() + make_interval(secs => $3) \
     WHERE id = (SELECT c.id FROM rekey.chunks c JOIN rekey.rotations r ON r.id = c.rotation \
     JOIN rekey.passes p ON p.rotation = c.rotation AND p.pass = c.pass \
     WHERE c.rotation = $4 AND c.pass = $5 AND c.state = 'open' AND (c.owner IS NULL OR c.lease_until < clock_timestamp()) \
     AND r.desired = 'running' AND r.state = ANY($6) AND p.outcome IS NULL AND coalesce(p.not_before < clock_timestamp(), true) \
     ORDER BY c.id LIMIT 1 FOR UPDATE OF c SKIP LOCKED) AND state = 'open' \
     RETURNING id, epoch, kind, lo, hi, lo_block, hi_block, ids, batch_seq, \
     EXISTS (SELECT FROM rekey.quarantine q WHERE q.rotation = chunks.rotation)";

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

    let insert = |kind: &'static str| {
        // Asked again: whoever aborts may have held the pass while the first answer waited for it.
        let sql = "INSERT INTO rekey.chunks (rotation, pass, kind, lo, hi, lo_block, hi_block, owner, worker, epoch, started_at, \
             lease_until) SELECT $1, $2, $3, $4::uuid, $5::uuid, $6::bigint, $7::bigint, $8, $9, 1, clock_timestamp(), \
             clock_timestamp() + make_interval(secs => $10) FROM rekey.rotations WHERE id = $1 AND desired = 'running' RETURNING id, epoch, kind, lo, hi, lo_block, hi_block, ids, batch_seq, \
             EXISTS (SELECT FROM rekey.quarantine q WHERE q.rotation = chunks.rotation)";
        sqlx::query(sql).bind(pass.rotation).bind(pass.number).bind(kind)
    };
    let (row, sql, new_frontier, carved) = match pass.addressing {
        Addressing::Keys => {
            let lo: Option<Uuid> = frontier.get(0);
            let hi = next_key(&mut tx, lo, rows).during(OP).await?;
            let row = insert("keys").bind(lo).bind(hi).bind(None::<i64>).bind(None::<i64>);
            (
                row,
                "UPDATE rekey.passes SET frontier_id = $3, carved = $4, carved_rows = carved_rows + $5 WHERE rotation = $1 AND pass = $2",
                Ok(hi),
                hi.is_none(),
            )
        }
        Addressing::Blocks => {
            let (lo, end): (i64, i64) = (frontier.get(1), frontier.get(2));
            if lo >= end {
                sqlx::query("UPDATE rekey.passes SET carved = true WHERE rotation = $1 AND pass = $2")
                    .bind(pass.rotation)
                    .bind(pass.number)
                    .execute(&mut *tx)
                    .during(OP)
                    .await?;
                tx.commit().during(OP).await?;
                return Ok(None);
            }
            let blocks = (rows as f64 / rows_per_page.max(1.0)).ceil().max(1.0) as i64;
            let hi = (lo + blocks).min(end);
            let row = insert("blocks").bind(None::<Uuid>).bind(None::<Uuid>).bind(lo).bind(hi);
            (
                row,
                "UPDATE rekey.passes SET frontier_block = $3, carved = $4, carved_rows = carved_rows + $5 WHERE rotation = $1 AND pass = $2",
                Err(hi),
                hi >= end,
            )
        }
    };
    let row = row
        .bind(&owner.process)
        .bind(owner.worker)
        .bind(ttl.as_secs_f64())
        .fetch_optional(&mut *tx)
        .during(OP)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let update = sqlx::query(sql).bind(pass.rotation).bind(pass.number);
    match new_frontier {
        Ok(id) => update.bind(id),
        Err(block) => update.bind(block),
    }
    .bind(carved)
    .bind(rows)
    .execute(&mut *tx)
    .during(OP)
    .await?;
    tx.commit().during(OP).await?;
    lease(&row, pass, owner, ttl).during(OP).map(Some)
}

/// The id that ends the next `rows` keys; `None` when fewer are left. An OFFSET of one chunk from the frontier: it
/// reads only the index entries the chunk will read anyway.
pub async fn next_key(
    conn: &mut PgConnection,
    lo: Option<Uuid>,
    rows: i64,
) -> Result<Option<Uuid>, sqlx::Error> {
    match lo {
        None => {
            sqlx::query_scalar("SELECT id FROM public.provider_connections ORDER BY id OFFSET $1 LIMIT 1")
                .bind(rows - 1)
                .fetch_optional(conn)
                .await
        }
        Some(lo) => {
            sqlx::query_scalar(
                "SELECT id FROM public.provider_connections WHERE id > $1 ORDER BY id OFFSET $2 LIMIT 1",
            )
            .bind(lo)
            .bind(rows - 1)
            .fetch_optional(conn)
            .await
        }
    }
}

/// What a batch commits beside its rows.
pub struct Checkpoint<'a> {
    /// Added to the chunk's counters.
    pub add: Counters,
    /// Rows of this batch, for the proof; may be empty.
    pub ids: &'a [Uuid],
    /// Their tags, 8 bytes a row.
    pub tags: &'a [u8],
    /// The chunk is finished.
    pub done: bool,
}

/// What the ledger said at a checkpoint.
pub struct Noted {
    /// Batches committed so far, this one included.
    pub batch_seq: i64,
    /// What the operator wants now.
    pub desired: Desired,
    /// The deadline has passed.
    pub past_deadline: bool,
}

/// The batch's last statement: proof and checkpoint, under the lease. `None`: the lease is lost, roll back.
pub async fn checkpoint(
    conn: &mut PgConnection,
    lease: &Lease,
    c: &Checkpoint<'_>,
) -> Result<Option<Noted>, sqlx::Error> {
    let sql = match (c.ids.is_empty(), lease.quarantine) {
        (true, _) => CHECKPOINT,
        (false, false) => PROOF_AND_CHECKPOINT,
        (false, true) => PROOF_RELEASE_AND_CHECKPOINT,
    };
    let mut query = sqlx::query(sql)
        .bind(lease.chunk)
        .bind(&lease.owner.process)
        .bind(lease.owner.worker)
        .bind(lease.epoch)
        .bind(lease.ttl.as_secs_f64())
        .bind(c.add.re_encrypted)
        .bind(c.add.already_on_key)
        .bind(c.add.null_rows)
        .bind(c.add.lost_races)
        .bind(c.add.bytes)
        .bind(c.done);
    if !c.ids.is_empty() {
        let (lo, hi) = (c.ids.iter().min(), c.ids.iter().max());
        let pass = &lease.pass;
        query = query
            .bind(pass.rotation)
            .bind(pass.direction.as_str())
            .bind(c.ids)
            .bind(c.tags)
            .bind(lo)
            .bind(hi);
    }
    let row = query.fetch_optional(conn).await?;
    row.map(|row| {
        Ok(Noted {
            batch_seq: row.try_get(0)?,
            desired: row.try_get::<&str, _>(1)?.parse().map_err(|e: String| sqlx::Error::Decode(e.into()))?,
            past_deadline: row.try_get(2)?,
        })
    })
    .transpose()
}

macro_rules! checkpoint_sql {
    ($with:literal) => {
        concat!(
            $with,
            "UPDATE rekey.chunks c SET batch_seq = c.batch_seq + 1, lease_until = clock_timestamp() + make_interval(secs => $5), \
             re_encrypted = c.re_encrypted + $6, already_on_key = c.already_on_key + $7, null_rows = c.null_rows + $8, \
             lost_races = c.lost_races + $9, bytes = c.bytes + $10, state = CASE WHEN $11 THEN 'done' ELSE 'open' END, \
             done_at = CASE WHEN $11 THEN clock_timestamp() END FROM rekey.rotations r \
             WHERE c.id = $1 AND c.owner = $2 AND c.worker = $3 AND c.epoch = $4 AND c.state = 'open' AND r.id = c.rotation \
             RETURNING c.batch_seq, r.desired, coalesce(r.deadline < clock_timestamp(), false)"
        )
    };
}
const CHECKPOINT: &str = checkpoint_sql!("");
const PROOF_AND_CHECKPOINT: &str = checkpoint_sql!(
    "WITH p AS (INSERT INTO rekey.proofs (rotation, direction, chunk, seq, xid, ids, tags, lo, hi) SELECT $12, $13, $1, \
     (SELECT batch_seq + 1 FROM rekey.chunks WHERE id = $1), pg_current_xact_id(), $14, $15, $16, $17) "
);
const PROOF_RELEASE_AND_CHECKPOINT: &str = checkpoint_sql!(
    "WITH p AS (INSERT INTO rekey.proofs (rotation, direction, chunk, seq, xid, ids, tags, lo, hi) SELECT $12, $13, $1, \
     (SELECT batch_seq + 1 FROM rekey.chunks WHERE id = $1), pg_current_xact_id(), $14, $15, $16, $17), \
     q AS (DELETE FROM rekey.quarantine WHERE rotation = $12 AND row_id = ANY($14)) "
);

/// Rows that a session of somebody else's holds get a chunk of their own, which nobody claims for a while: the pass
/// is not over before they are settled, and nothing else waits for them. Part of the transaction that ends the chunk.
pub async fn put_off(conn: &mut PgConnection, lease: &Lease, ids: &[Uuid]) -> Result<(), StoreError> {
    for part in ids.chunks(1000) {
        sqlx::query(
            "INSERT INTO rekey.chunks (rotation, pass, kind, ids, owner, lease_until) \
             VALUES ($1, $2, 'ids', $3, 'put off', clock_timestamp() + interval '3 seconds')",
        )
        .bind(lease.pass.rotation)
        .bind(lease.pass.number)
        .bind(part)
        .execute(&mut *conn)
        .during("put rows off")
        .await?;
    }
    Ok(())
}

/// After a reconnect: locks the chunk, which waits for a COMMIT that may still be on its way in the old backend,
/// and says how many batches are in. `None`: the lease is lost.
pub async fn settle(conn: &mut PgConnection, lease: &Lease) -> Result<Option<i64>, StoreError> {
    sqlx::query_scalar(
        "SELECT batch_seq FROM rekey.chunks WHERE id = $1 AND owner = $2 AND worker = $3 AND epoch = $4 AND state = 'open' FOR UPDATE",
    )
    .bind(lease.chunk)
    .bind(&lease.owner.process)
    .bind(lease.owner.worker)
    .bind(lease.epoch)
    .fetch_optional(conn)
    .during("settle the last batch")
    .await
}

/// Keeps the leases of a process alive. Also tells whether each worker's chunk is still its own, by omission.
pub async fn heartbeat(conn: &mut PgConnection, process: &str, ttl: Duration) -> Result<u64, StoreError> {
    sqlx::query(
        "UPDATE rekey.chunks SET lease_until = clock_timestamp() + make_interval(secs => $2) WHERE id IN \
         (SELECT id FROM rekey.chunks WHERE owner = $1 AND state = 'open' FOR UPDATE SKIP LOCKED)",
    )
    .bind(process)
    .bind(ttl.as_secs_f64())
    .execute(conn)
    .during("keep the leases alive")
    .await
    .map(|done| done.rows_affected())
}

/// Gives leases back: all of a process, or one worker's.
pub async fn release(conn: &mut PgConnection, process: &str, worker: Option<i32>) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE rekey.chunks SET owner = NULL, worker = NULL, lease_until = NULL, epoch = epoch + 1 \
         WHERE owner = $1 AND ($2::int IS NULL OR worker = $2) AND state = 'open'",
    )
    .bind(process)
    .bind(worker)
    .execute(conn)
    .during("give the leases back")
    .await
    .map(drop)
}

/// Sums over the chunks of a direction: exactly the rows committed.
pub async fn totals(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Direction,
) -> Result<Counters, StoreError> {
    let row = sqlx::query(
        "SELECT coalesce(sum(c.re_encrypted), 0)::bigint, coalesce(sum(c.already_on_key), 0)::bigint, \
         coalesce(sum(c.null_rows), 0)::bigint, coalesce(sum(c.lost_races), 0)::bigint, coalesce(sum(c.bytes), 0)::bigint, \
         (SELECT count(*) FROM rekey.quarantine q WHERE q.rotation = $1) \
         FROM rekey.chunks c JOIN rekey.passes p ON p.rotation = c.rotation AND p.pass = c.pass \
         WHERE c.rotation = $1 AND p.direction = $2",
    )
    .bind(rotation)
    .bind(direction.as_str())
    .fetch_one(conn)
    .during("add up the counters")
    .await?;
    Ok(Counters {
        re_encrypted: row.get(0),
        already_on_key: row.get(1),
        null_rows: row.get(2),
        lost_races: row.get(3),
        bytes: row.get(4),
        quarantined: row.get(5),
    })
}

/// Chunks of a pass by state: open and unclaimed, leased, done.
pub async fn census(
    conn: &mut PgConnection,
    rotation: Uuid,
    pass: i32,
) -> Result<(i64, i64, i64), StoreError> {
    sqlx::query_as(
        "SELECT count(*) FILTER (WHERE state = 'open' AND (owner IS NULL OR lease_until < clock_timestamp())), \
         count(*) FILTER (WHERE state = 'open' AND owner IS NOT NULL AND lease_until >= clock_timestamp()), \
         count(*) FILTER (WHERE state = 'done') FROM rekey.chunks WHERE rotation = $1 AND pass = $2",
    )
    .bind(rotation)
    .bind(pass)
    .fetch_one(conn)
    .during("count the chunks")
    .await
}
