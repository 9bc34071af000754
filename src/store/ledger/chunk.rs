//! `rekey.chunks`: the checkpoint that fences a worker whose lease was taken over, giving leases back, counting.
//!
//! How a chunk is claimed is in `lease.rs`.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::lease::{Lease, is_free};
use crate::crypto::Tag;
use crate::rotation::{Counters, Desired, Direction};
use crate::store::error::{Statement, StoreError};
use crate::store::pg_types::Word;

/// What a batch commits beside its rows.
pub struct Checkpoint<'a> {
    /// Added to the chunk's counters.
    pub add: Counters,
    /// Rows of this batch with their tags, for the proof; may be empty.
    pub moved: &'a [(Uuid, Tag)],
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
    let sql = match (c.moved.is_empty(), lease.quarantine()) {
        (true, _) => CHECKPOINT,
        (false, false) => PROOF_AND_CHECKPOINT,
        (false, true) => PROOF_RELEASE_AND_CHECKPOINT,
    };
    let mut query = sqlx::query(sql)
        .bind(lease.chunk())
        .bind(&lease.owner().process)
        .bind(lease.owner().worker)
        .bind(lease.epoch())
        .bind(lease.ttl().as_secs_f64())
        .bind(c.add.re_encrypted)
        .bind(c.add.already_on_key)
        .bind(c.add.null_rows)
        .bind(c.add.lost_races)
        .bind(c.add.bytes)
        .bind(c.done);
    if !c.moved.is_empty() {
        let ids: Vec<Uuid> = c.moved.iter().map(|(id, _)| *id).collect();
        let (lo, hi) = (ids.iter().min().copied(), ids.iter().max().copied());
        let pass = lease.pass();
        query = query
            .bind(pass.rotation)
            .bind(pass.direction.as_str())
            .bind(ids)
            .bind(Tag::join(c.moved.iter().map(|(_, tag)| *tag)))
            .bind(lo)
            .bind(hi);
    }
    let row = query.fetch_optional(conn).await?;
    row.map(|row| {
        Ok(Noted {
            batch_seq: row.try_get(0)?,
            desired: row.try_get::<Word<_>, _>(1)?.0,
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

/// Makes this transaction's COMMIT wait for the disk, as what ends a chunk must. Never weaker than what was asked of this
/// server.
pub async fn make_durable(conn: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'")
        .execute(conn)
        .during("finish a chunk")
        .await
        .map(drop)
}

/// Rows that a session of somebody else's holds get a chunk of their own, which nobody claims for a while: the pass
/// is not over before they are settled, and nothing else waits for them. Part of the transaction that ends the chunk.
pub async fn put_off(conn: &mut PgConnection, lease: &Lease, ids: &[Uuid]) -> Result<(), StoreError> {
    for part in ids.chunks(1000) {
        sqlx::query(
            "INSERT INTO rekey.chunks (rotation, pass, kind, ids, owner, lease_until, lease_seconds) \
             VALUES ($1, $2, 'ids', $3, 'put off', clock_timestamp() + interval '3 seconds', 3)",
        )
        .bind(lease.pass().rotation)
        .bind(lease.pass().number)
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
    .bind(lease.chunk())
    .bind(&lease.owner().process)
    .bind(lease.owner().worker)
    .bind(lease.epoch())
    .fetch_optional(conn)
    .during("settle the last batch")
    .await
}

/// Keeps the leases of a process alive.
pub async fn heartbeat(conn: &mut PgConnection, process: &str, ttl: Duration) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE rekey.chunks SET lease_until = clock_timestamp() + make_interval(secs => $2), lease_seconds = $2 WHERE id IN \
         (SELECT id FROM rekey.chunks WHERE owner = $1 AND state = 'open' FOR UPDATE SKIP LOCKED)",
    )
    .bind(process)
    .bind(ttl.as_secs_f64())
    .execute(conn)
    .during("keep the leases alive")
    .await
    .map(drop)
}

/// Gives back the leases of some workers of a process.
pub async fn release(conn: &mut PgConnection, process: &str, workers: &[i32]) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE rekey.chunks SET owner = NULL, worker = NULL, lease_until = NULL, epoch = epoch + 1 \
         WHERE owner = $1 AND worker = ANY($2) AND state = 'open'",
    )
    .bind(process)
    .bind(workers)
    .execute(conn)
    .during("give the leases back")
    .await
    .map(drop)
}

/// Gives back all leases of a process.
pub async fn release_all(conn: &mut PgConnection, process: &str) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE rekey.chunks SET owner = NULL, worker = NULL, lease_until = NULL, epoch = epoch + 1 \
         WHERE owner = $1 AND state = 'open'",
    )
    .bind(process)
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
    sqlx::query_as(concat!(
        "SELECT count(*) FILTER (WHERE state = 'open' AND ",
        is_free!(),
        "), \
             count(*) FILTER (WHERE state = 'open' AND NOT ",
        is_free!(),
        "), \
             count(*) FILTER (WHERE state = 'done') FROM rekey.chunks c WHERE rotation = $1 AND pass = $2"
    ))
    .bind(rotation)
    .bind(pass)
    .fetch_one(conn)
    .during("count the chunks")
    .await
}
