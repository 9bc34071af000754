//! Counting the table for verify: two ways in one snapshot, so that a row which one of them does not see is noticed.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::{Statement, StoreError};
use super::pg_types::{FullXid, Xid};
use super::statement::statements;

/// What the counting is called.
pub const OP: &str = "count the connections";

/// Where the database stood when a verify began.
pub struct Began {
    /// Younger rows may have been written since.
    pub horizon: Xid,
    /// The next transaction id, where nobody was writing.
    quiet: Option<FullXid>,
}

statements! {
    fn horizon_and_next() -> One<(FullXid, FullXid)> during "take the horizon":
        "SELECT pg_snapshot_xmin(s), pg_snapshot_xmax(s) FROM pg_current_snapshot() s";

    fn no_limit() during OP: "SET statement_timeout = 0";

    fn count_rows(horizon: Xid) -> Query<(i64, i64, FullXid, bool)> during OP:
        "SELECT count(*), count(*) FILTER (WHERE age(xmin) > age($1)), pg_snapshot_xmax(pg_current_snapshot()), \
         pg_is_in_recovery() FROM public.provider_connections";

    fn only_by_index() during OP:
        "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)";

    fn count_by_index(least: Uuid) -> Query<i64> during OP:
        "SELECT count(*) FROM public.provider_connections WHERE id >= $1";
}

/// The beginning: now.
pub async fn begin(conn: &mut PgConnection) -> Result<Began, StoreError> {
    let (horizon, next) = horizon_and_next(conn).await?;
    Ok(Began { horizon: horizon.short(), quiet: (horizon == next).then_some(next) })
}

/// Rows older than the horizon, and rows that the index on their id does not lead to. The second is counted only where
/// somebody wrote meanwhile, and left to the primary: a standby has the same index, and might cancel so long a snapshot
/// again and again.
pub async fn count(conn: &mut PgConnection, began: &Began) -> Result<(i64, i64), StoreError> {
    no_limit(conn).await?;
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").during(OP).await?;
    let (rows, older, next, standby) = count_rows(began.horizon).however_long().one(&mut tx).await?;
    let unseen = if standby || began.quiet == Some(next) {
        0
    } else {
        only_by_index(&mut tx).await?;
        rows - count_by_index(Uuid::nil()).however_long().one(&mut tx).await?
    };
    tx.rollback().during(OP).await?;
    Ok((older, unseen))
}
