//! What auditors ask for: rotations, events with their chain checked, proofs in numbers, affected users.

use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{Connection, FromRow, PgConnection, Row};
use uuid::Uuid;

use super::TABLE;
use super::error::{During, Statement, StoreError};
use crate::crypto::Fingerprint;

/// One event of the audit trail.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Place in the chain, from 1.
    pub seq: i64,
    /// RFC 3339, microseconds.
    pub at: String,
    /// Its rotation, if it belongs to one.
    pub rotation: Option<Uuid>,
    /// What happened.
    pub action: String,
    /// Who did it.
    pub operator: String,
    /// Why.
    pub reason: Option<String>,
    /// What exactly.
    pub detail: Value,
    /// The login that appended it, the client's address and the session's `application_name`, as the server saw them.
    /// Events of 0.1.0 have none.
    pub login: Option<String>,
    /// Nothing over a local socket.
    pub address: Option<String>,
    /// As the client named itself.
    pub application: Option<String>,
    /// Its hash, in hex: the head of the chain when it was the last event.
    pub hash: String,
}

/// The result of walking the chain.
#[derive(Clone, Debug, Serialize)]
pub struct Chain {
    /// Events walked.
    pub events: i64,
    /// Every hash follows from the one before, and the head is the last.
    pub intact: bool,
    /// The first event whose hash does not follow.
    pub broken_at: Option<i64>,
    /// `seq:hash` of the head.
    pub head: String,
}

/// Proofs of one direction, in numbers.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Proofs {
    /// `forward` or `backward`.
    pub direction: String,
    /// Batches, each with its own transaction id.
    pub batches: i64,
    /// Rows tagged.
    pub rows: i64,
}

/// Walks the whole chain, checking every hash here rather than in the server, and keeps the events `keep` asks for.
pub async fn walk(
    conn: &mut PgConnection,
    keep: impl Fn(Option<Uuid>) -> bool,
) -> Result<(Chain, Vec<Event>), StoreError> {
    const OP: &str = "walk the audit trail";
    // One snapshot for the events and the head: others append meanwhile.
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.during(OP)?;
    let mut previous: Vec<u8> = Sha256::digest(b"rekey event chain v1").to_vec();
    let (mut events, mut count, mut broken_at) = (Vec::new(), 0, None);
    {
        let mut rows = sqlx::query(
            "SELECT seq, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), rotation, action, operator, reason, \
             detail, hash, (CASE WHEN login IS NULL THEN \
             jsonb_build_array(seq, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
             rotation, action, operator, reason, detail) ELSE \
             jsonb_build_array(seq, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
             rotation, action, operator, reason, detail, login, address, application) END)::text, login, address, application \
             FROM rekey.events ORDER BY seq",
        )
        .fetch(&mut *tx);
        while let Some(row) = rows.try_next().await.during(OP)? {
            count += 1;
            let seq: i64 = row.get(0);
            let hash: Vec<u8> = row.get(7);
            let canonical: &str = row.get(8);
            let expected = Sha256::new().chain_update(&previous).chain_update(canonical).finalize();
            if (hash != expected.as_slice() || seq != count) && broken_at.is_none() {
                broken_at = Some(seq);
            }
            let rotation = row.get(2);
            if keep(rotation) {
                events.push(Event {
                    seq,
                    at: row.get(1),
                    rotation,
                    action: row.get(3),
                    operator: row.get(4),
                    reason: row.get(5),
                    detail: row.get(6),
                    login: row.get(9),
                    address: row.get(10),
                    application: row.get(11),
                    hash: hex(&hash),
                });
            }
            previous = hash;
        }
    }
    let (seq, hash): (i64, String) = sqlx::query_as("SELECT seq, encode(hash, 'hex') FROM rekey.chain")
        .fetch_one(&mut *tx)
        .during(OP)
        .await?;
    tx.rollback().await.during(OP)?;
    let last = hex(&previous);
    if broken_at.is_none() && (seq != count || hash != last) {
        broken_at = Some(count + 1);
    }
    Ok((
        Chain { events: count, intact: broken_at.is_none(), broken_at, head: format!("{seq}:{hash}") },
        events,
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Ids of every rotation of the table, oldest first.
pub async fn rotations(conn: &mut PgConnection) -> Result<Vec<Uuid>, StoreError> {
    sqlx::query_scalar("SELECT id FROM rekey.rotations WHERE table_name = $1 ORDER BY id")
        .bind(TABLE)
        .fetch_all(conn)
        .during("list the rotations")
        .await
}

/// Proofs in numbers.
pub async fn proofs(conn: &mut PgConnection, rotation: Uuid) -> Result<Vec<Proofs>, StoreError> {
    sqlx::query_as(
        "SELECT direction, count(*) AS batches, coalesce(sum(cardinality(ids)), 0)::bigint AS rows FROM rekey.proofs \
         WHERE rotation = $1 GROUP BY direction ORDER BY direction DESC",
    )
    .bind(rotation)
    .fetch_all(conn)
    .during("count the proofs")
    .await
}

/// The last verify's recorded result.
pub async fn verify_result(conn: &mut PgConnection, rotation: Uuid) -> Result<Option<Value>, StoreError> {
    sqlx::query_scalar("SELECT verify_result FROM rekey.rotations WHERE id = $1")
        .bind(rotation)
        .fetch_one(conn)
        .during("read the verify's result")
        .await
}

/// How often something was sealed under a key with a random IV, as far as it can be known.
#[derive(Clone, Debug, Serialize)]
pub struct Encryptions {
    /// The key.
    pub fingerprint: Fingerprint,
    /// By rekey, summed over every rotation.
    pub by_rekey: i64,
    /// By the application, at least: rows that are there, or inserted and updated since the server's statistics began.
    pub by_application: i64,
}

/// What rekey sealed under a key, summed over every rotation and both directions. Lost races were sealed in vain.
pub async fn sealed(conn: &mut PgConnection, key: Fingerprint) -> Result<i64, StoreError> {
    sqlx::query_scalar(
        "SELECT coalesce(sum(c.re_encrypted + c.lost_races), 0)::int8 FROM rekey.chunks c \
         JOIN rekey.passes p ON p.rotation = c.rotation AND p.pass = c.pass JOIN rekey.rotations r ON r.id = c.rotation \
         WHERE CASE p.direction WHEN 'forward' THEN r.new_fingerprint ELSE r.old_fingerprint END = $1",
    )
    .bind(key.to_string())
    .fetch_one(conn)
    .during("count earlier encryptions")
    .await
}

/// What the application sealed, all keys together: an estimate from the server's statistics, rekey's own writes
/// taken off. Updates that left the credential alone count, too: it is a bound, not a count.
pub async fn written_by_application(conn: &mut PgConnection) -> Result<i64, StoreError> {
    sqlx::query_scalar(
        "SELECT greatest((SELECT reltuples::int8 FROM pg_class WHERE oid = to_regclass($1)), 0, \
         coalesce((SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relid = to_regclass($1)), 0) \
         - (SELECT coalesce(sum(re_encrypted), 0) FROM rekey.chunks))::int8",
    )
    .bind(TABLE)
    .fetch_one(conn)
    .during("estimate the application's encryptions")
    .await
}

/// Someone whose credential was under the old key.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Affected {
    /// The user.
    pub user_id: Uuid,
    /// The provider to reconnect.
    pub provider_slug: String,
    /// The connection.
    pub connection_id: Uuid,
}

/// Whether a closing proof ever found every row off the rotation's old key: its proofs then name whoever was on it.
pub async fn was_complete(conn: &mut PgConnection, rotation: Uuid) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM rekey.passes WHERE rotation = $1 AND direction = 'forward' AND outcome = 'clean')",
    )
    .bind(rotation)
    .fetch_one(conn)
    .during("look for a clean pass")
    .await
}

/// Everyone whose credential was moved off the rotation's old key, or is quarantined; where that was not `complete`,
/// everyone who has a credential. Users who are gone since cannot be listed.
pub async fn affected(
    conn: &mut PgConnection,
    rotation: Uuid,
    complete: bool,
) -> Result<Vec<Affected>, StoreError> {
    sqlx::query_as(
        "SELECT c.user_id, c.provider_slug::text AS provider_slug, c.id AS connection_id FROM public.provider_connections c \
         WHERE (NOT $2 AND c.encrypted_credentials IS NOT NULL) OR c.id IN \
         (SELECT u.id FROM rekey.proofs p, unnest(p.ids) u(id) WHERE p.rotation = $1 AND p.direction = 'forward' \
         UNION SELECT row_id FROM rekey.quarantine WHERE rotation = $1) ORDER BY c.user_id, c.provider_slug, c.id",
    )
    .bind(rotation)
    .bind(complete)
    .fetch_all(conn)
    .during("list affected users")
    .await
}
