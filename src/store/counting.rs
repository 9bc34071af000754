//! Counting the table for verify: two ways in one snapshot, so that a row which one of them does not see is noticed.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::{Statement, StoreError};
use super::pg_types::Xid;

/// What the counting is called.
pub const OP: &str = "count the connections";

/// Where the database stood when a verify began.
pub struct Began {
    /// Younger rows may have been written since.
    pub horizon: Xid,
    /// The next transaction id, where nobody was writing.
    quiet: Option<String>,
}

/// The beginning: now.
pub async fn begin(conn: &mut PgConnection) -> Result<Began, StoreError> {
    let (xmin, xmax): (String, String) = sqlx::query_as(
        "SELECT pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text FROM pg_current_snapshot() s",
    )
    .fetch_one(conn)
    .during("take the horizon")
    .await?;
    let horizon = Xid(xmin.parse::<u64>().unwrap_or_default() as u32);
    Ok(Began { horizon, quiet: (xmin == xmax).then_some(xmax) })
}

/// Rows older than the horizon, and rows that the index on their id does not lead to. The second is counted only where
/// somebody wrote meanwhile, and left to the primary: a standby has the same index, and might cancel so long a snapshot
/// again and again.
pub async fn count(conn: &mut PgConnection, began: &Began) -> Result<(i64, i64), StoreError> {
    sqlx::query("SET statement_timeout = 0").execute(&mut *conn).during(OP).await?;
    let counts = async {
        let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let (rows, older, next, standby): (i64, i64, String, bool) = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE age(xmin) > age($1)), \
             pg_snapshot_xmax(pg_current_snapshot())::text, pg_is_in_recovery() FROM public.provider_connections",
        )
        .bind(began.horizon)
        .fetch_one(&mut *tx)
        .await?;
        if standby || began.quiet.as_ref() == Some(&next) {
            tx.rollback().await?;
            return Ok((older, 0));
        }
        sqlx::raw_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
            .execute(&mut *tx)
            .await?;
        let indexed: i64 =
            sqlx::query_scalar("SELECT count(*) FROM public.provider_connections WHERE id >= $1")
                .bind(Uuid::nil())
                .fetch_one(&mut *tx)
                .await?;
        tx.rollback().await?;
        Ok((older, rows - indexed))
    };
    counts.however_long(OP).await
}
