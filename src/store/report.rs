//! What auditors ask for: rotations, events with their chain checked, proofs in numbers, affected users.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::audit;
use super::error::{Statement, StoreError};
use super::statement::{row, statements};
use crate::crypto::{Fingerprint, Tag};
use crate::rotation::{Direction, PassKind, PassOutcome};

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
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Proofs {
    /// Which way the rows went.
    pub direction: Direction,
    /// Batches, each with its own transaction id.
    pub batches: i64,
    /// Rows tagged.
    pub rows: i64,
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

/// Someone whose credential was under the old key.
#[derive(Clone, Debug, Serialize)]
pub struct Affected {
    /// The user.
    pub user_id: Uuid,
    /// The provider to reconnect.
    pub provider_slug: String,
    /// The connection.
    pub connection_id: Uuid,
}

/// One walk over the table, or over rows that late writers left.
#[derive(Clone, Debug, Serialize)]
pub struct PassOf {
    /// Its number within the rotation, from 1.
    pub pass: i32,
    /// Which way it moved rows.
    pub direction: Direction,
    /// The whole table, or stragglers.
    pub kind: PassKind,
    /// How it ended; none while it is under way.
    pub outcome: Option<PassOutcome>,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// How long it took, up to now where it has not ended.
    pub seconds: f64,
    /// Rows it re-encrypted.
    pub re_encrypted: i64,
    /// Times that a row was read again, because the application changed it between read and write.
    pub lost_races: i64,
}

row!(PassOf { pass, direction, kind, outcome, started_at, ended_at, seconds, re_encrypted, lost_races });
row!(Proofs { direction, batches, rows });
row!(Affected { user_id, provider_slug, connection_id });

/// An event as it stands in the chain.
struct Link {
    seq: i64,
    at: String,
    rotation: Option<Uuid>,
    action: String,
    operator: String,
    reason: Option<String>,
    detail: Value,
    login: Option<String>,
    address: Option<String>,
    application: Option<String>,
    hash: Vec<u8>,
    /// What its hash is of, beside the hash before it.
    canonical: String,
}

row!(Link {
    seq,
    at,
    rotation,
    action,
    operator,
    reason,
    detail,
    login,
    address,
    application,
    hash,
    canonical
});

macro_rules! at {
    () => {
        "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    };
}

statements! {
    fn links() -> Query<Link> during WALK:
        concat!(
            "SELECT seq, ", at!(), " AS at, rotation, action, operator, reason, detail, login, address, application, hash, \
             (CASE WHEN login IS NULL THEN jsonb_build_array(seq, ", at!(), ", rotation, action, operator, reason, detail) \
             ELSE jsonb_build_array(seq, ", at!(), ", rotation, action, operator, reason, detail, login, address, application) END)::text \
             AS canonical FROM rekey.events ORDER BY seq"
        );

    /// The hash of one event, in hex.
    pub fn hash_at(seq: i64) -> Optional<String> during "look for the noted head":
        "SELECT encode(hash, 'hex') FROM rekey.events WHERE seq = $1";

    /// Ids of every rotation of the table, oldest first.
    pub fn rotations() -> All<Uuid> during "list the rotations":
        "SELECT id FROM rekey.rotations WHERE table_name = 'public.provider_connections' ORDER BY id";

    // By the length of the tags, which the server tells without reading them.
    fn proofs_by_tags(rotation: Uuid, tag_bytes: i64) -> All<Proofs> during "count the proofs":
        "SELECT direction, count(*) AS batches, (coalesce(sum(octet_length(tags)), 0) / $2)::bigint AS rows FROM rekey.proofs \
         WHERE rotation = $1 GROUP BY direction ORDER BY direction DESC";

    /// The clock of the database, RFC 3339.
    pub fn now() -> One<String> during "read the clock":
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";

    /// The passes of a rotation.
    pub fn passes(rotation: Uuid) -> All<PassOf> during "list the passes":
        "SELECT p.pass, p.direction, p.kind, p.outcome, \
         to_char(p.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS started_at, \
         to_char(p.ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS ended_at, \
         greatest(extract(epoch FROM coalesce(p.ended_at, clock_timestamp()) - p.started_at), 0)::float8 AS seconds, \
         coalesce(sum(c.re_encrypted), 0)::int8 AS re_encrypted, coalesce(sum(c.lost_races), 0)::int8 AS lost_races \
         FROM rekey.passes p LEFT JOIN rekey.chunks c ON c.rotation = p.rotation AND c.pass = p.pass \
         WHERE p.rotation = $1 GROUP BY p.rotation, p.pass ORDER BY p.pass";

    /// The last verify's recorded result.
    pub fn verify_result(rotation: Uuid) -> One<Option<Value>> during "read the verify's result":
        "SELECT verify_result FROM rekey.rotations WHERE id = $1";

    /// When a key was first in a rotation or in an event, in seconds since 1970.
    pub fn first_seen(key: Fingerprint) -> One<Option<f64>> during "look when a key was first seen":
        "SELECT extract(epoch FROM least(\
         (SELECT min(created_at) FROM rekey.rotations WHERE $1 IN (old_fingerprint, new_fingerprint)), \
         (SELECT min(at) FROM rekey.events WHERE strpos(detail::text, $1) > 0)))::float8";

    /// What rekey sealed under a key, summed over every rotation and both directions. Lost races were sealed in vain.
    pub fn sealed(key: Fingerprint) -> One<i64> during "count earlier encryptions":
        "SELECT coalesce(sum(c.re_encrypted + c.lost_races), 0)::int8 FROM rekey.chunks c \
         JOIN rekey.passes p ON p.rotation = c.rotation AND p.pass = c.pass JOIN rekey.rotations r ON r.id = c.rotation \
         WHERE CASE p.direction WHEN 'forward' THEN r.new_fingerprint ELSE r.old_fingerprint END = $1";

    /// What the application sealed, all keys together: an estimate from the server's statistics, rekey's own writes
    /// taken off. Updates that left the credential alone count, too: it is a bound, not a count.
    pub fn written_by_application() -> One<i64> during "estimate the application's encryptions":
        "SELECT greatest((SELECT reltuples::int8 FROM pg_class WHERE oid = to_regclass('public.provider_connections')), 0, \
         coalesce((SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relid = to_regclass('public.provider_connections')), 0) \
         - (SELECT coalesce(sum(re_encrypted), 0) FROM rekey.chunks))::int8";

    /// Whether a closing proof ever found every row off the rotation's old key: its proofs then name whoever was on it.
    pub fn was_complete(rotation: Uuid) -> One<bool> during "look for a clean pass":
        "SELECT EXISTS (SELECT FROM rekey.passes WHERE rotation = $1 AND direction = 'forward' AND outcome = 'clean')";

    // Hashed and sorted, on the server's disk where it must be: looking each row up by itself would be quadratic.
    fn at_length() during LIST:
        "SELECT set_config('statement_timeout', '0', true), set_config('enable_nestloop', 'off', true), \
         set_config('work_mem', greatest(m.setting::bigint, 65536) || 'kB', true) \
         FROM pg_catalog.pg_settings m WHERE m.name = 'work_mem'";

    fn affected(rotation: Uuid, complete: bool) -> Query<Affected> during LIST:
        "SELECT c.user_id, c.provider_slug::text AS provider_slug, c.id AS connection_id FROM public.provider_connections c \
         LEFT JOIN (SELECT unnest(p.ids) AS id FROM rekey.proofs p WHERE p.rotation = $1 AND p.direction = 'forward' \
         UNION SELECT row_id FROM rekey.quarantine WHERE rotation = $1) m ON m.id = c.id \
         WHERE m.id IS NOT NULL OR NOT $2 AND c.encrypted_credentials IS NOT NULL ORDER BY c.user_id, c.provider_slug, c.id";
}

const WALK: &str = "walk the audit trail";
const LIST: &str = "list affected users";

/// Hands on everyone whose credential was moved off the rotation's old key, or is quarantined; where that was not `complete`,
/// everyone who has a credential; user by user. Users who are gone since cannot be listed.
pub async fn each_affected<E: From<StoreError>>(
    conn: &mut PgConnection,
    rotation: Uuid,
    complete: bool,
    each: impl FnMut(Affected) -> Result<(), E>,
) -> Result<(), E> {
    let mut tx = conn.begin_with("BEGIN READ ONLY").during(LIST).await?;
    at_length(&mut tx).await?;
    affected(rotation, complete).however_long().each(&mut tx, each).await?;
    Ok(tx.rollback().during(LIST).await?)
}

/// Proofs in numbers.
pub async fn proofs(conn: &mut PgConnection, rotation: Uuid) -> Result<Vec<Proofs>, StoreError> {
    proofs_by_tags(conn, rotation, Tag::LEN as i64).await
}

/// Walks the whole chain, checking every hash here rather than in the server, and keeps the events `keep` asks for.
pub async fn walk(
    conn: &mut PgConnection,
    keep: impl Fn(Option<Uuid>) -> bool,
) -> Result<(Chain, Vec<Event>), StoreError> {
    // One snapshot for the events and the head: others append meanwhile.
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").during(WALK).await?;
    let mut previous: Vec<u8> = Sha256::digest(b"rekey event chain v1").to_vec();
    let (mut events, mut count, mut broken_at) = (Vec::new(), 0, None);
    let walked = links().however_long().each(&mut tx, |link| {
        count += 1;
        let expected = Sha256::new().chain_update(&previous).chain_update(&link.canonical).finalize();
        if (link.hash != expected.as_slice() || link.seq != count) && broken_at.is_none() {
            broken_at = Some(link.seq);
        }
        previous.clone_from(&link.hash);
        if keep(link.rotation) {
            events.push(link.into());
        }
        Ok::<(), StoreError>(())
    });
    walked.await?;
    let (seq, hash) = audit::head(&mut tx).await?;
    tx.rollback().during(WALK).await?;
    let last = hex(&previous);
    if broken_at.is_none() && (seq != count || hash != last) {
        broken_at = Some(count + 1);
    }
    Ok((
        Chain { events: count, intact: broken_at.is_none(), broken_at, head: format!("{seq}:{hash}") },
        events,
    ))
}

impl From<Link> for Event {
    fn from(link: Link) -> Event {
        Event {
            seq: link.seq,
            at: link.at,
            rotation: link.rotation,
            action: link.action,
            operator: link.operator,
            reason: link.reason,
            detail: link.detail,
            login: link.login,
            address: link.address,
            application: link.application,
            hash: hex(&link.hash),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
