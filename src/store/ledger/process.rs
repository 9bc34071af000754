//! `rekey.processes`: who is at work, for `status`, and how much company there is. Nothing but speed depends on it.

use serde::Serialize;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::store::error::{Statement, StoreError};

/// A process at work.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Process {
    /// Host, pid and a random part.
    pub process: String,
    /// Its workers.
    pub workers: i32,
    /// Rows a second, over its last seconds.
    pub rate: f64,
    /// Why it is slow or waiting, if it is.
    pub throttle: Option<String>,
    /// Seconds since it was heard of.
    pub seen_seconds_ago: f64,
}

/// Says that a process is alive, how fast it is, and why it is not faster.
pub async fn report(
    conn: &mut PgConnection,
    process: &str,
    rotation: Uuid,
    workers: i32,
    rate: f64,
    throttle: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO rekey.processes (process, rotation, workers, rate, throttle) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (process) DO UPDATE SET rate = excluded.rate, throttle = excluded.throttle, seen_at = clock_timestamp()",
    )
    .bind(process)
    .bind(rotation)
    .bind(workers)
    .bind(rate)
    .bind(throttle)
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
    sqlx::query_as(
        "SELECT process, workers, rate, throttle, extract(epoch FROM clock_timestamp() - seen_at)::float8 AS seen_seconds_ago \
         FROM rekey.processes WHERE rotation = $1 AND seen_at > clock_timestamp() - make_interval(secs => $2) ORDER BY process",
    )
    .bind(rotation)
    .bind(seconds)
    .fetch_all(conn)
    .during("list the processes")
    .await
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
