//! `rekey.chunks`: claiming a chunk, the checkpoint that fences a worker whose lease was taken over, giving leases
//! back, counting.
//!
//! When a chunk is claimed, and how a new one is carved, is in `claim.rs`; what a lease is, in `lease.rs`.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::lease::{CARVE, Lease, Owner, is_free};
use super::pass::{FENCE, Pass};
use crate::crypto::Tag;
use crate::rotation::{ChunkKind, Counters, Desired, Direction, State};
use crate::store::error::StoreError;
use crate::store::statement::{binds, row, statements};
use crate::store::table::user_triggers;

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

/// A chunk as it is leased.
pub(super) struct Claimed {
    pub id: i64,
    pub epoch: i32,
    pub kind: ChunkKind,
    pub lo: Option<Uuid>,
    pub hi: Option<Uuid>,
    pub lo_block: Option<i64>,
    pub hi_block: Option<i64>,
    pub ids: Option<Vec<Uuid>>,
    pub batch_seq: i64,
    pub quarantine: bool,
}

/// A chunk as it is cut off the frontier.
pub(super) struct Carved {
    pub kind: ChunkKind,
    pub lo: Option<Uuid>,
    pub hi: Option<Uuid>,
    pub lo_block: Option<i64>,
    pub hi_block: Option<i64>,
}

/// What a batch adds to `rekey.proofs`.
struct Proof {
    rotation: Uuid,
    direction: Direction,
    ids: Vec<Uuid>,
    tags: Vec<u8>,
    lo: Option<Uuid>,
    hi: Option<Uuid>,
}

row!(Noted { batch_seq, desired, past_deadline });
row!(Claimed { id, epoch, kind, lo, hi, lo_block, hi_block, ids, batch_seq, quarantine });
row!(Counters { re_encrypted, already_on_key, null_rows, lost_races, bytes, quarantined });
binds!(Counters { re_encrypted, already_on_key, null_rows, lost_races, bytes });
binds!(Carved { kind, lo, hi, lo_block, hi_block });
binds!(Proof { rotation, direction, ids, tags, lo, hi });

/// The columns of [`Claimed`], after an INSERT or an UPDATE.
macro_rules! returning_claimed {
    () => {
        " RETURNING id, epoch, kind, lo, hi, lo_block, hi_block, ids, batch_seq, \
         EXISTS (SELECT FROM rekey.quarantine q WHERE q.rotation = chunks.rotation) AS quarantine"
    };
}

/// The batch's last statement.
macro_rules! checkpoint {
    () => {
        concat!(
            "UPDATE rekey.chunks c SET batch_seq = c.batch_seq + 1, lease_until = clock_timestamp() + make_interval(secs => $5), \
             re_encrypted = c.re_encrypted + $6, already_on_key = c.already_on_key + $7, null_rows = c.null_rows + $8, \
             lost_races = c.lost_races + $9, bytes = c.bytes + $10, state = CASE WHEN $11 THEN 'done' ELSE 'open' END, \
             done_at = CASE WHEN $11 THEN clock_timestamp() END, beside_triggers = c.beside_triggers OR $6 > 0 AND ",
            user_triggers!(),
            " FROM rekey.rotations r \
             WHERE c.id = $1 AND c.owner = $2 AND c.worker = $3 AND c.epoch = $4 AND c.state = 'open' AND r.id = c.rotation \
             RETURNING c.batch_seq, r.desired, coalesce(r.deadline < clock_timestamp(), false) AS past_deadline"
        )
    };
}

/// What comes before it where rows were written.
macro_rules! with_proof {
    () => {
        "WITH p AS (INSERT INTO rekey.proofs (rotation, direction, chunk, seq, xid, ids, tags, lo, hi) SELECT $12, $13, $1, \
         (SELECT batch_seq + 1 FROM rekey.chunks WHERE id = $1), pg_current_xact_id(), $14, $15, $16, $17)"
    };
}

statements! {
    // `above` keeps it off the index entries of chunks that are done: where a snapshot that somebody holds keeps them from being
    // removed, each claim would walk over all of them.
    pub(super) fn claim(owner: &Owner, ttl: f64, pass: &Pass, states: &[State], above: i64) -> Optional<Claimed> during "claim a chunk":
        concat!(
            "UPDATE rekey.chunks SET owner = $1, worker = $2, epoch = epoch + 1, started_at = coalesce(started_at, clock_timestamp()), \
             lease_until = clock_timestamp() + make_interval(secs => $3), lease_seconds = $3 \
             WHERE id = (SELECT c.id FROM rekey.chunks c JOIN rekey.rotations r ON r.id = c.rotation \
             JOIN rekey.passes p ON p.rotation = c.rotation AND p.pass = c.pass \
             WHERE c.rotation = $4 AND c.pass = $5 AND c.id > $7 AND c.state = 'open' AND ", is_free!(), " AND r.desired = 'running' AND r.state = ANY($6) AND p.outcome IS NULL AND coalesce(p.not_before < clock_timestamp(), true) \
             ORDER BY c.id LIMIT 1 FOR UPDATE OF c SKIP LOCKED) AND state = 'open'",
            returning_claimed!()
        );

    // Asks again whether work is wanted: whoever aborts may have held the pass while the first answer waited for it.
    pub(super) fn insert_carved(pass: &Pass, carved: &Carved, owner: &Owner, ttl: f64) -> Optional<Claimed> during CARVE:
        concat!(
            "INSERT INTO rekey.chunks (rotation, pass, kind, lo, hi, lo_block, hi_block, owner, worker, epoch, started_at, \
             lease_until, lease_seconds) SELECT $1, $2, $3, $4::uuid, $5::uuid, $6::bigint, $7::bigint, $8, $9, 1, clock_timestamp(), \
             clock_timestamp() + make_interval(secs => $10), $10 FROM rekey.rotations WHERE id = $1 AND desired = 'running'",
            returning_claimed!()
        );

    pub(super) fn insert_ids(rotation: Uuid, pass: i32, ids: &[Uuid]) during "list the stragglers":
        "INSERT INTO rekey.chunks (rotation, pass, kind, ids) VALUES ($1, $2, 'ids', $3)";

    pub(super) fn are_open_in(pass: &Pass) -> One<bool> during "look for work that is left":
        "SELECT EXISTS (SELECT FROM rekey.chunks WHERE rotation = $1 AND pass = $2 AND state = 'open')";

    /// Whether a pass has anything to do for whoever asks: a chunk that is free, one that is still to be carved, or its end;
    /// and whether it has postponed rows.
    pub fn look_for_work(pass: &Pass) -> One<(bool, bool)> during "look for work that is left":
        concat!(
            "SELECT NOT EXISTS (SELECT FROM rekey.passes p WHERE p.rotation = $1 AND p.pass = $2 AND p.carved AND p.outcome IS NULL) \
             OR EXISTS (SELECT FROM rekey.chunks c WHERE c.rotation = $1 AND c.pass = $2 AND c.state = 'open' \
             AND c.owner IS DISTINCT FROM 'put off' AND ", is_free!(), ") \
             OR NOT EXISTS (SELECT FROM rekey.chunks c WHERE c.rotation = $1 AND c.pass = $2 AND c.state = 'open'), \
             EXISTS (SELECT FROM rekey.chunks c WHERE c.rotation = $1 AND c.pass = $2 AND c.state = 'open' AND c.owner = 'put off')"
        );

    // A row's xmax is whoever locked it last, who holds it for as long as pg_locks knows that transaction. Only some rows are
    // looked at: this is asked again and again. Where several transactions hold a row together, it looks free here.
    /// The chunks of postponed rows of which some look free. Waits where the application's table is locked.
    pub fn look_free_again(pass: &Pass) -> One<Option<Vec<i64>>> during "look for work that is left":
        "SELECT array_agg(DISTINCT c.id) FROM (SELECT id, ids[1:100] AS ids FROM rekey.chunks WHERE rotation = $1 AND pass = $2 \
         AND state = 'open' AND owner = 'put off' ORDER BY random() LIMIT 20) c CROSS JOIN LATERAL unnest(c.ids) u(id) \
         LEFT JOIN public.provider_connections t ON t.id = u.id WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_locks l \
         WHERE l.locktype = 'transactionid' AND l.granted AND l.transactionid = t.xmax)";

    /// Makes chunks of postponed rows free before their time.
    pub fn put_off_no_longer(chunks: &[i64]) during "take up postponed rows":
        "UPDATE rekey.chunks SET lease_until = clock_timestamp() WHERE id = ANY($1) AND state = 'open' AND owner = 'put off' \
         AND worker IS NULL AND lease_until > clock_timestamp()";

    pub(super) fn insert_proof(pass: &Pass) during "open the closing proof":
        "INSERT INTO rekey.chunks (rotation, pass, kind) SELECT $1, $2, 'proof' WHERE NOT EXISTS \
         (SELECT FROM rekey.chunks WHERE rotation = $1 AND pass = $2 AND (state <> 'done' OR kind = 'proof'))";

    fn checkpoint_alone(lease: &Lease, ttl: f64, add: &Counters, done: bool) -> Query<Noted> during CHECKPOINT:
        checkpoint!();

    fn checkpoint_with_proof(lease: &Lease, ttl: f64, add: &Counters, done: bool, proof: &Proof) -> Query<Noted> during CHECKPOINT:
        concat!(with_proof!(), " ", checkpoint!());

    fn checkpoint_with_release(lease: &Lease, ttl: f64, add: &Counters, done: bool, proof: &Proof) -> Query<Noted> during CHECKPOINT:
        concat!(
            with_proof!(),
            ", q AS (DELETE FROM rekey.quarantine WHERE rotation = $12 AND row_id = ANY($14)) ",
            checkpoint!()
        );

    /// Makes this transaction's COMMIT wait for the disk, as what ends a chunk must. Never weaker than what was asked of
    /// this server.
    pub fn make_durable() during "finish a chunk":
        "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";

    fn insert_put_off(pass: &Pass, ids: &[Uuid]) during "postpone rows":
        "INSERT INTO rekey.chunks (rotation, pass, kind, ids, owner, lease_until, lease_seconds) \
         VALUES ($1, $2, 'ids', $3, 'put off', clock_timestamp() + interval '3 seconds', 3)";

    /// After a reconnect: locks the chunk, which waits for a COMMIT that may still be on its way in the old backend,
    /// and says how many batches are in. `None`: the lease is lost.
    pub fn settle(lease: &Lease) -> Optional<i64> during "settle the last batch":
        "SELECT batch_seq FROM rekey.chunks WHERE id = $1 AND owner = $2 AND worker = $3 AND epoch = $4 AND state = 'open' FOR UPDATE";

    fn renew(process: &str, ttl: f64) during "keep the leases alive":
        "UPDATE rekey.chunks SET lease_until = clock_timestamp() + make_interval(secs => $2), lease_seconds = $2 WHERE id IN \
         (SELECT id FROM rekey.chunks WHERE owner = $1 AND state = 'open' FOR UPDATE SKIP LOCKED)";

    /// Gives back the leases of some workers of a process.
    pub fn release(process: &str, workers: &[i32]) during "give the leases back":
        "UPDATE rekey.chunks SET owner = NULL, worker = NULL, lease_until = NULL, epoch = epoch + 1 \
         WHERE owner = $1 AND worker = ANY($2) AND state = 'open'";

    /// Gives back all leases of a process.
    pub fn release_all(process: &str) during "give the leases back":
        "UPDATE rekey.chunks SET owner = NULL, worker = NULL, lease_until = NULL, epoch = epoch + 1 \
         WHERE owner = $1 AND state = 'open'";

    pub(super) fn cancel_open(rotation: Uuid) during FENCE:
        "UPDATE rekey.chunks SET epoch = epoch + 1, state = 'cancelled', owner = NULL, lease_until = NULL \
         WHERE rotation = $1 AND state = 'open'";

    pub(super) fn are_open(rotation: Uuid) -> One<bool> during FENCE:
        "SELECT EXISTS (SELECT FROM rekey.chunks WHERE rotation = $1 AND state = 'open')";

    pub(super) fn open_cancelled(rotation: Uuid) during "open the chunks again":
        "UPDATE rekey.chunks c SET state = 'open' FROM rekey.passes p WHERE c.rotation = $1 AND c.state = 'cancelled' \
         AND p.rotation = c.rotation AND p.pass = c.pass AND p.outcome IS NULL";

    /// Sums over the chunks of a direction: exactly the rows committed.
    pub fn totals(rotation: Uuid, direction: Direction) -> One<Counters> during "add up the counters":
        "SELECT coalesce(sum(c.re_encrypted), 0)::bigint AS re_encrypted, coalesce(sum(c.already_on_key), 0)::bigint AS already_on_key, \
         coalesce(sum(c.null_rows), 0)::bigint AS null_rows, coalesce(sum(c.lost_races), 0)::bigint AS lost_races, \
         coalesce(sum(c.bytes), 0)::bigint AS bytes, \
         (SELECT count(*) FROM rekey.quarantine q WHERE q.rotation = $1) AS quarantined \
         FROM rekey.chunks c JOIN rekey.passes p ON p.rotation = c.rotation AND p.pass = c.pass \
         WHERE c.rotation = $1 AND p.direction = $2";

    /// Chunks of a pass by state: open and unclaimed, leased, done.
    pub fn census(rotation: Uuid, pass: i32) -> One<(i64, i64, i64)> during "count the chunks":
        concat!(
            "SELECT count(*) FILTER (WHERE state = 'open' AND ", is_free!(), "), \
             count(*) FILTER (WHERE state = 'open' AND NOT ", is_free!(), "), \
             count(*) FILTER (WHERE state = 'done') FROM rekey.chunks c WHERE rotation = $1 AND pass = $2"
        );

    /// Rows tagged in a rotation, both ways.
    pub fn count_tagged(rotation: Uuid) -> One<i64> during "count the proofs":
        "SELECT coalesce(sum(re_encrypted), 0)::bigint FROM rekey.chunks WHERE rotation = $1";
}

const CHECKPOINT: &str = "write a checkpoint";

/// The batch's last statement: proof and checkpoint, under the lease. `None`: the lease is lost, roll back.
pub async fn checkpoint(
    conn: &mut PgConnection,
    lease: &Lease,
    c: &Checkpoint<'_>,
) -> Result<Option<Noted>, StoreError> {
    let ttl = lease.ttl().as_secs_f64();
    let query = if c.moved.is_empty() {
        checkpoint_alone(lease, ttl, &c.add, c.done)
    } else {
        let ids: Vec<Uuid> = c.moved.iter().map(|(id, _)| *id).collect();
        let proof = Proof {
            rotation: lease.pass().rotation,
            direction: lease.pass().direction,
            lo: ids.iter().min().copied(),
            hi: ids.iter().max().copied(),
            ids,
            tags: Tag::join(c.moved.iter().map(|(_, tag)| *tag)),
        };
        match lease.quarantine() {
            true => checkpoint_with_release(lease, ttl, &c.add, c.done, &proof),
            false => checkpoint_with_proof(lease, ttl, &c.add, c.done, &proof),
        }
    };
    query.optional(conn).await
}

/// Rows that another session holds get a chunk of their own, which no worker claims for a while: the pass
/// is not over before they are settled, and nothing else waits for them. Part of the transaction that ends the chunk.
pub async fn put_off(conn: &mut PgConnection, lease: &Lease, ids: &[Uuid]) -> Result<(), StoreError> {
    for part in ids.chunks(1000) {
        insert_put_off(conn, lease.pass(), part).await?;
    }
    Ok(())
}

/// Keeps the leases of a process alive.
pub async fn heartbeat(conn: &mut PgConnection, process: &str, ttl: Duration) -> Result<(), StoreError> {
    renew(conn, process, ttl.as_secs_f64()).await
}
