//! What [`crate::rotation::permits`] has to know of a rotation beyond its own row, read at one instant: its latest pass,
//! its quarantine, whether rekey wrote rows after the last verify, who is at work, and who holds the locks of promotions
//! and rollbacks. Nothing is decided here.

use sqlx::PgConnection;
use uuid::Uuid;

use super::quarantine::evidenced;

use crate::rotation::{Direction, PassOutcome};
use crate::store::error::StoreError;
use crate::store::schema;
use crate::store::statement::{row, statements};

/// Held while one process promotes, finalizes or rolls back.
pub const PROMOTIONS: i64 = schema::LOCK + 2;
/// Held by the one rollback among many that changes the rotation; taken before the other one.
pub const ROLLBACKS: i64 = schema::LOCK + 3;

/// One look.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How the latest pass of this direction ended; none where it did not, or where there is none.
    pub pass_outcome: Option<PassOutcome>,
    /// Quarantined rows that are not accepted.
    pub unaccepted: i64,
    /// Rows in quarantine that an operator accepted.
    pub accepted: i64,
    /// The last verify's result, where it was of this direction.
    pub verified_clean: Option<bool>,
    /// That verify found rows that rekey had written with other bytes.
    pub other_bytes: bool,
    /// That verify found rows that the index of the primary key does not lead to.
    pub unseen: bool,
    /// Rows of this direction were committed after that verify; or what it found may be settled since: a pass ended, or a
    /// row was accepted.
    pub outdated: bool,
    /// That verify is younger than the rotation's state.
    pub verified_in_this_state: bool,
    /// Seconds since the rotation came to its state.
    pub state_seconds: f64,
    /// Other processes heard of lately that move rows.
    pub processes: i64,
    /// Another session holds [`PROMOTIONS`].
    pub promoting: bool,
    /// Another session holds [`ROLLBACKS`].
    pub rolling_back: bool,
}

row!(Seen {
    pass_outcome,
    unaccepted,
    accepted,
    verified_clean,
    other_bytes,
    unseen,
    outdated,
    verified_in_this_state,
    state_seconds,
    processes,
    promoting,
    rolling_back,
});

statements! {
    fn see(rotation: Uuid, direction: Direction, process: &str, seconds: f64, promotions: i64, rollbacks: i64) -> One<Seen>
    during "read the rotation's state":
        concat!(
            "WITH held AS (SELECT l.classid::int8 << 32 | l.objid::int8 AS lock FROM pg_catalog.pg_locks l \
             JOIN pg_catalog.pg_database d ON d.oid = l.database WHERE l.locktype = 'advisory' AND l.objsubid = 1 \
             AND l.granted AND d.datname = current_database() AND l.pid <> pg_backend_pid()) \
             SELECT (SELECT p.outcome FROM rekey.passes p WHERE p.rotation = r.id AND p.direction = $2 \
             ORDER BY p.pass DESC LIMIT 1) AS pass_outcome, \
             (SELECT count(*) FROM rekey.quarantine q WHERE q.rotation = r.id AND NOT ", evidenced!(), ") AS unaccepted, \
             (SELECT count(*) FROM rekey.quarantine q WHERE q.rotation = r.id AND ", evidenced!(), ") AS accepted, \
             r.verified_clean, coalesce((r.verify_result->>'other_bytes')::int8, 0) > 0 AS other_bytes, \
             coalesce((r.verify_result->>'unseen')::int8, 0) > 0 AS unseen, \
             EXISTS (SELECT FROM rekey.chunks c JOIN rekey.passes p ON p.rotation = c.rotation AND p.pass = c.pass \
             WHERE c.rotation = r.id AND p.direction = $2 AND c.re_encrypted > 0 \
             AND coalesce(c.done_at, p.ended_at, 'infinity') > r.verified_at) OR NOT coalesce(r.verified_clean, true) AND (EXISTS \
             (SELECT FROM rekey.passes p WHERE p.rotation = r.id AND p.direction = $2 AND p.ended_at > r.verified_at) OR EXISTS \
             (SELECT FROM rekey.quarantine q WHERE q.rotation = r.id AND q.accepted_at > r.verified_at)) AS outdated, \
             coalesce(r.verified_at > r.state_since, false) AS verified_in_this_state, \
             extract(epoch FROM clock_timestamp() - r.state_since)::float8 AS state_seconds, \
             (SELECT count(*) FROM rekey.processes o WHERE o.rotation = r.id AND o.process <> $3 \
             AND o.seen_at > clock_timestamp() - make_interval(secs => $4)) AS processes, \
             EXISTS (SELECT FROM held WHERE lock = $5) AS promoting, \
             EXISTS (SELECT FROM held WHERE lock = $6) AS rolling_back \
             FROM rekey.rotations r WHERE r.id = $1"
        );

    /// When the key with this fingerprint was last promoted, by any rotation.
    pub fn promotion_of(fingerprint: &str) -> Optional<Milestone> during "read the audit trail":
        "SELECT to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS at, \
         extract(epoch FROM clock_timestamp() - e.at)::float8 AS seconds_ago, e.operator FROM rekey.events e \
         JOIN rekey.rotations r ON r.id = e.rotation WHERE r.new_fingerprint = $1 AND e.action = 'promoted' \
         ORDER BY e.seq DESC LIMIT 1";

    /// The last event of this kind.
    pub fn milestone(rotation: Uuid, action: &str) -> Optional<Milestone> during "read the audit trail":
        "SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS at, \
         extract(epoch FROM clock_timestamp() - at)::float8 AS seconds_ago, operator FROM rekey.events \
         WHERE rotation = $1 AND action = $2 ORDER BY seq DESC LIMIT 1";
}

/// Something that was recorded about a rotation.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Milestone {
    /// When, RFC 3339.
    pub at: String,
    /// How long ago.
    pub seconds_ago: f64,
    /// By whom.
    pub operator: String,
}

row!(Milestone { at, seconds_ago, operator });

/// Looks. `process` is this process's name, which is not counted; `seconds` is how long a silent process counts as alive.
pub async fn look(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Direction,
    process: &str,
    seconds: f64,
) -> Result<Seen, StoreError> {
    see(conn, rotation, direction, process, seconds, PROMOTIONS, ROLLBACKS).await
}
