//! `rekey.processes`: who is at work, for `status`, and how much company there is. Nothing but speed depends on it.

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::rotation::throttle::{Reason, Why};
use crate::store::error::{During, Statement, StoreError};

/// A process at work.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Host, pid and a random part.
    pub process: String,
    /// Its workers.
    pub workers: i32,
    /// Rows a second, over its last seconds.
    pub rate: f64,
    /// Why it is slow or waiting, if it is: the reason's word, and what was measured.
    pub throttle: Option<String>,
    /// The reason alone.
    pub reason: Option<Reason>,
    /// It stands still, and is not merely slow.
    pub waits: bool,
    /// Seconds since it was heard of.
    pub seen_seconds_ago: f64,
}

/// What a process says of itself.
pub struct Report<'a> {
    /// Its name.
    pub process: &'a str,
    /// What it works on.
    pub rotation: Uuid,
    /// Its workers.
    pub workers: i32,
    /// Rows a second.
    pub rate: f64,
    /// Why it is not faster.
    pub why: Option<&'a Why>,
    /// It stands still.
    pub waits: bool,
}

/// Says that a process is alive, how fast it is, and why it is not faster.
pub async fn report(conn: &mut PgConnection, report: &Report<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO rekey.processes (process, rotation, workers, rate, throttle, reason, waits) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (process) DO UPDATE SET rate = excluded.rate, throttle = excluded.throttle, reason = excluded.reason, \
         waits = excluded.waits, seen_at = clock_timestamp()",
    )
    .bind(report.process)
    .bind(report.rotation)
    .bind(report.workers)
    .bind(report.rate)
    .bind(report.why.map(ToString::to_string))
    .bind(report.why.map(|why| why.reason.as_str()))
    .bind(report.waits)
    .execute(conn)
    .during("report the process")
    .await
    .map(drop)
}

/// Forgets a process that ends, and any that were silent for a day.
pub async fn leave(conn: &mut PgConnection, process: &str) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM rekey.processes WHERE process = $1 OR seen_at < clock_timestamp() - interval '1 day'",
    )
    .bind(process)
    .execute(conn)
    .during("sign the process off")
    .await
    .map(drop)
}

/// Processes heard of within the last `seconds`.
pub async fn alive(
    conn: &mut PgConnection,
    rotation: Uuid,
    seconds: f64,
) -> Result<Vec<Process>, StoreError> {
    const OP: &str = "list the processes";
    // As JSON: an older ledger, which may be read before it is updated, has neither column.
    let rows = sqlx::query(
        "SELECT process, workers, rate, throttle, to_jsonb(p) ->> 'reason', coalesce((to_jsonb(p) ->> 'waits')::boolean, false), \
         extract(epoch FROM clock_timestamp() - seen_at)::float8 \
         FROM rekey.processes p WHERE rotation = $1 AND seen_at > clock_timestamp() - make_interval(secs => $2) ORDER BY process",
    )
    .bind(rotation)
    .bind(seconds)
    .fetch_all(conn)
    .during(OP)
    .await?;
    let process = |row: &PgRow| {
        Ok(Process {
            process: row.try_get(0)?,
            workers: row.try_get(1)?,
            rate: row.try_get(2)?,
            throttle: row.try_get(3)?,
            // A newer process may know reasons that this one does not.
            reason: row.try_get::<Option<&str>, _>(4)?.and_then(|word| word.parse().ok()),
            waits: row.try_get(5)?,
            seen_seconds_ago: row.try_get(6)?,
        })
    };
    rows.iter().map(process).collect::<Result<_, sqlx::Error>>().during(OP)
}

/// Workers of the processes heard of within the last `seconds`.
pub async fn workers(conn: &mut PgConnection, rotation: Uuid, seconds: f64) -> Result<usize, StoreError> {
    let workers: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(workers), 0)::int8 FROM rekey.processes \
         WHERE rotation = $1 AND seen_at > clock_timestamp() - make_interval(secs => $2)",
    )
    .bind(rotation)
    .bind(seconds)
    .fetch_one(conn)
    .during("count the workers")
    .await?;
    Ok(usize::try_from(workers).unwrap_or(1))
}
