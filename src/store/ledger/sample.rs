//! `rekey.samples`: how fast a rotation was and why it was not faster, for its report. Nothing depends on them.

use serde::Serialize;
use uuid::Uuid;

use crate::rotation::Direction;
use crate::store::statement::{binds, row, statements};

/// What a process has to say of its last seconds.
pub struct Measured<'a> {
    /// What it works on.
    pub rotation: Uuid,
    /// Which way rows move.
    pub direction: Direction,
    /// Rows settled by then, by all processes.
    pub rows: i64,
    /// Why it is not faster.
    pub reason: Option<&'a str>,
    /// It stands still.
    pub waits: bool,
    /// The longest that one of its batches held its row locks.
    pub lock_seconds: f64,
    /// Things that it tried again.
    pub retries: i64,
}

/// A sample, of all processes together.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// When, RFC 3339.
    pub at: String,
    /// Which way rows moved.
    pub direction: Direction,
    /// Seconds since the rotation began.
    pub after_seconds: f64,
    /// Seconds since the sample before, or since the first pass of this direction began.
    pub seconds: f64,
    /// Rows settled by then.
    pub rows: i64,
    /// Rows a second since the sample before.
    pub rate: f64,
    /// Why work was slow or stood still.
    pub reason: Option<String>,
    /// It stood still.
    pub waits: bool,
    /// The longest that a batch held its row locks.
    pub lock_seconds: f64,
    /// Things that were tried again.
    pub retries: i64,
}

binds!(Measured<'_> { rotation, direction, rows, reason, waits, lock_seconds, retries });
row!(Sample { at, direction, after_seconds, seconds, rows, rate, reason, waits, lock_seconds, retries });

statements! {
    // A sample is of 5 s for the first 40 minutes, and of twice as much each time the rotation's age doubles after that.
    /// Adds to the present sample.
    pub fn add(measured: &Measured<'_>) during "record how fast it is":
        "INSERT INTO rekey.samples AS s (rotation, direction, at, rows, reason, waits, lock_seconds, retries) \
         SELECT r.id, $2, r.created_at + make_interval(secs => floor(a.age / w.width) * w.width), $3, $4, $5, $6, $7 \
         FROM rekey.rotations r, \
         LATERAL (SELECT greatest(extract(epoch FROM clock_timestamp() - r.created_at), 0)::float8 AS age) a, \
         LATERAL (SELECT 5 * 2 ^ greatest(ceil(ln(greatest(a.age, 1) / 2500) / ln(2::float8)), 0) AS width) w WHERE r.id = $1 \
         ON CONFLICT (rotation, direction, at) DO UPDATE SET rows = greatest(s.rows, excluded.rows), \
         measured_at = excluded.measured_at, reason = coalesce(excluded.reason, s.reason), waits = s.waits OR excluded.waits, \
         lock_seconds = greatest(s.lock_seconds, excluded.lock_seconds), retries = s.retries + excluded.retries";

    /// Whether this role may read them.
    pub fn are_readable() -> One<bool> during READ:
        "SELECT coalesce(has_table_privilege(to_regclass('rekey.samples'), 'SELECT'), false)";

    /// All of a rotation, the oldest first.
    pub fn list(rotation: Uuid) -> All<Sample> during READ:
        "SELECT to_char(s.measured_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS at, s.direction, \
         greatest(extract(epoch FROM s.measured_at - r.created_at), 0)::float8 AS after_seconds, \
         greatest(extract(epoch FROM s.measured_at - s.since), 0)::float8 AS seconds, s.rows, \
         coalesce(greatest(s.rows - s.before, 0) / nullif(greatest(extract(epoch FROM s.measured_at - s.since), 0), 0), 0)::float8 \
         AS rate, s.reason, s.waits, s.lock_seconds, s.retries FROM rekey.rotations r JOIN (SELECT *, \
         lag(rows, 1, 0::bigint) OVER w AS before, coalesce(lag(measured_at) OVER w, (SELECT min(p.started_at) \
         FROM rekey.passes p WHERE p.rotation = a.rotation AND p.direction = a.direction)) AS since \
         FROM rekey.samples a WHERE rotation = $1 WINDOW w AS (PARTITION BY direction ORDER BY at)) s ON s.rotation = r.id \
         WHERE r.id = $1 ORDER BY s.measured_at";
}

const READ: &str = "read how fast it was";
