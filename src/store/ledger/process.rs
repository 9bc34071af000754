//! `rekey.processes`: which processes are at work, for `status`, and for how batches are shared.
//!
//! No credential depends on it. Which exit code a refusal has (7 or 8), and what comes next, does.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::rotation::throttle::{Reason, Why};
use crate::store::error::StoreError;
use crate::store::statement::{binds, row, statements};

/// A live process is heard of twice a second; one that was not for this long is not counted as one.
pub const SILENT: Duration = Duration::from_secs(5);

/// A process at work.
#[derive(Clone, Debug, Serialize)]
pub struct Process {
    /// Host, pid and a random part.
    pub process: String,
    /// Who started it.
    pub operator: Option<String>,
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

impl Process {
    /// It should have been heard of more recently: it is dead, frozen, or cut off.
    pub fn is_silent(&self) -> bool {
        self.seen_seconds_ago > SILENT.as_secs_f64()
    }
}

/// What a process says of itself.
pub struct Report<'a> {
    /// Its name.
    pub process: &'a str,
    /// What it works on.
    pub rotation: Uuid,
    /// Who started it.
    pub operator: &'a str,
    /// Its workers.
    pub workers: i32,
    /// Rows a second.
    pub rate: f64,
    /// Why it is not faster.
    pub why: Option<&'a Why>,
    /// It stands still.
    pub waits: bool,
}

/// A process as it stands in the table.
struct Listed {
    process: String,
    operator: Option<String>,
    workers: i32,
    rate: f64,
    throttle: Option<String>,
    reason: Option<String>,
    waits: bool,
    seen_seconds_ago: f64,
}

row!(Listed { process, operator, workers, rate, throttle, reason, waits, seen_seconds_ago });
binds!(Report<'_> { process, rotation, operator, workers, rate, waits });

statements! {
    fn upsert(report: &Report<'_>, throttle: Option<String>, reason: Option<&str>) during "report the process":
        "INSERT INTO rekey.processes (process, rotation, operator, workers, rate, waits, throttle, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (process) DO UPDATE SET rate = excluded.rate, throttle = excluded.throttle, reason = excluded.reason, \
         waits = excluded.waits, seen_at = clock_timestamp()";

    /// Forgets a process that ends, and any that were silent for a day.
    pub fn leave(process: &str) during "sign the process off":
        "DELETE FROM rekey.processes WHERE process = $1 OR seen_at < clock_timestamp() - interval '1 day'";

    // As JSON: a role that cannot read the migrations table may read an older ledger, which lacks these columns.
    fn list(rotation: Uuid, seconds: f64) -> All<Listed> during "list the processes":
        "SELECT process, to_jsonb(p) ->> 'operator' AS operator, workers, rate, throttle, to_jsonb(p) ->> 'reason' AS reason, \
         coalesce((to_jsonb(p) ->> 'waits')::boolean, false) AS waits, \
         extract(epoch FROM clock_timestamp() - seen_at)::float8 AS seen_seconds_ago \
         FROM rekey.processes p WHERE rotation = $1 AND seen_at > clock_timestamp() - make_interval(secs => $2) ORDER BY process";

    fn count_workers(rotation: Uuid, seconds: f64) -> One<(i64, i64)> during "count the workers":
        "SELECT coalesce(sum(workers), 0)::int8, count(*) FROM rekey.processes \
         WHERE rotation = $1 AND seen_at > clock_timestamp() - make_interval(secs => $2)";
}

/// Says that a process is alive, how fast it is, and why it is not faster.
pub async fn report(conn: &mut PgConnection, report: &Report<'_>) -> Result<(), StoreError> {
    let reason = report.why.map(|why| why.reason.as_str());
    upsert(conn, report, report.why.map(ToString::to_string), reason).await
}

/// Processes heard of within the last `seconds`.
pub async fn alive(
    conn: &mut PgConnection,
    rotation: Uuid,
    seconds: f64,
) -> Result<Vec<Process>, StoreError> {
    let listed = list(conn, rotation, seconds).await?;
    Ok(listed.into_iter().map(Process::from).collect())
}

impl From<Listed> for Process {
    fn from(listed: Listed) -> Process {
        Process {
            process: listed.process,
            operator: listed.operator,
            workers: listed.workers,
            rate: listed.rate,
            throttle: listed.throttle,
            // A newer process may know reasons that this one does not.
            reason: listed.reason.and_then(|word| word.parse().ok()),
            waits: listed.waits,
            seen_seconds_ago: listed.seen_seconds_ago,
        }
    }
}

/// Workers and number of the processes heard of within the last `seconds`.
pub async fn workers(
    conn: &mut PgConnection,
    rotation: Uuid,
    seconds: f64,
) -> Result<(usize, usize), StoreError> {
    let (workers, processes) = count_workers(conn, rotation, seconds).await?;
    Ok((usize::try_from(workers).unwrap_or(1), usize::try_from(processes).unwrap_or(1)))
}
