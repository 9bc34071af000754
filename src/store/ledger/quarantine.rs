//! `rekey.quarantine`: rows that open with neither key. An entry never excludes a row from a later pass.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{Connection, FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::rotation::QuarantineReason;
use crate::store::audit::{self, Actor};
use crate::store::error::{Statement, StoreError};
use crate::store::pg_types::Word;

/// A row to quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The row.
    pub id: Uuid,
    /// Why.
    pub reason: QuarantineReason,
    /// Bytes it holds.
    pub length: i32,
}

/// An entry as recorded.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The row.
    pub id: Uuid,
    /// Why.
    pub reason: QuarantineReason,
    /// Bytes it holds.
    pub length: Option<i32>,
    /// When it was found, RFC 3339.
    pub found_at: String,
    /// Whether somebody accepted it.
    pub accepted: bool,
    /// Who.
    pub accepted_by: Option<String>,
    /// Why.
    pub accept_reason: Option<String>,
}

impl FromRow<'_, PgRow> for Entry {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Entry {
            id: row.try_get("id")?,
            reason: row.try_get::<Word<_>, _>("reason")?.0,
            length: row.try_get("length")?,
            found_at: row.try_get("found_at")?,
            accepted: row.try_get("accepted")?,
            accepted_by: row.try_get("accepted_by")?,
            accept_reason: row.try_get("accept_reason")?,
        })
    }
}

macro_rules! columns {
    () => {
        "row_id AS id, reason, length, to_char(found_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS found_at, \
         accepted_at IS NOT NULL AS accepted, accepted_by, accept_reason"
    };
}

/// All entries of a rotation.
pub async fn list(conn: &mut PgConnection, rotation: Uuid) -> Result<Vec<Entry>, StoreError> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM rekey.quarantine WHERE rotation = $1 ORDER BY row_id"
    ))
    .bind(rotation)
    .fetch_all(conn)
    .during("read the quarantine")
    .await
}

/// Entries of one page.
const PAGE: i64 = 1000;

/// The next entries after `after`, in the order of their ids: there may be more than should be in memory together.
pub async fn page(
    conn: &mut PgConnection,
    rotation: Uuid,
    after: Option<Uuid>,
) -> Result<Vec<Entry>, StoreError> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM rekey.quarantine WHERE rotation = $1 AND ($2::uuid IS NULL OR row_id > $2) ORDER BY row_id LIMIT $3"
    ))
    .bind(rotation)
    .bind(after)
    .bind(PAGE)
    .fetch_all(conn)
    .during("read the quarantine")
    .await
}

/// What verify has to know of a row in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody accepted it.
    Open,
    /// Somebody accepted that no key opens it.
    Accepted,
    /// Somebody accepted that the server takes no other value for it.
    AcceptedAsItIs,
}

/// Which of these rows are quarantined, and how they stand there.
pub async fn among(
    conn: &mut PgConnection,
    rotation: Uuid,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Standing>, StoreError> {
    let found: Vec<(Uuid, bool, Word<QuarantineReason>)> = sqlx::query_as(
        "SELECT row_id, accepted_at IS NOT NULL, reason FROM rekey.quarantine WHERE rotation = $1 AND row_id = ANY($2)",
    )
    .bind(rotation)
    .bind(ids)
    .fetch_all(conn)
    .during("look rows up in the quarantine")
    .await?;
    let standing = |accepted, reason| match (accepted, reason) {
        (false, _) => Standing::Open,
        (true, QuarantineReason::Rejected) => Standing::AcceptedAsItIs,
        (true, _) => Standing::Accepted,
    };
    Ok(found.into_iter().map(|(id, accepted, Word(reason))| (id, standing(accepted, reason))).collect())
}

/// Entries nobody accepted.
pub async fn unaccepted(conn: &mut PgConnection, rotation: Uuid) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT count(*) FROM rekey.quarantine WHERE rotation = $1 AND accepted_at IS NULL")
        .bind(rotation)
        .fetch_one(conn)
        .during("count the quarantine")
        .await
}

/// Adds entries, in the caller's transaction. One that is there keeps its acceptance, unless that was of a row no key
/// opens and the server rejects a credential by now that one does, or the other way round.
pub async fn add(
    conn: &mut PgConnection,
    rotation: Uuid,
    rows: &[BadRow],
    actor: &Actor,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    // A row may have been met twice: it moved while it was read, or the closing proof met it in both of its places.
    let last: BTreeMap<Uuid, &BadRow> = rows.iter().map(|f| (f.id, f)).collect();
    let (ids, reasons, lengths): (Vec<Uuid>, Vec<&str>, Vec<i32>) = (
        last.keys().copied().collect(),
        last.values().map(|f| f.reason.as_str()).collect(),
        last.values().map(|f| f.length).collect(),
    );
    let new: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO rekey.quarantine (rotation, row_id, reason, length) \
         SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::int[]) ON CONFLICT (rotation, row_id) \
         DO UPDATE SET reason = excluded.reason, length = excluded.length, \
         (accepted_at, accepted_by, accept_reason) = (SELECT quarantine.accepted_at, quarantine.accepted_by, quarantine.accept_reason \
         WHERE (excluded.reason = 'rejected') = (quarantine.reason = 'rejected')) \
         WHERE quarantine.reason <> excluded.reason OR quarantine.length <> excluded.length RETURNING row_id",
    )
    .bind(rotation)
    .bind(ids)
    .bind(reasons)
    .bind(lengths)
    .fetch_all(&mut *conn)
    .during("quarantine rows")
    .await?;
    if !new.is_empty() {
        let shown: Vec<_> = new.iter().take(100).collect();
        audit::append(conn, Some(rotation), "quarantine", actor, json!({ "rows": new.len(), "ids": shown }))
            .await?;
    }
    Ok(())
}

/// Removes entries of rows that are fine now, or gone.
pub async fn remove(conn: &mut PgConnection, rotation: Uuid, ids: &[Uuid]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query("DELETE FROM rekey.quarantine WHERE rotation = $1 AND row_id = ANY($2)")
        .bind(rotation)
        .bind(ids)
        .execute(conn)
        .during("release rows from quarantine")
        .await
        .map(drop)
}

/// Accepts a row nobody can repair; false if it is not in quarantine.
pub async fn accept(
    conn: &mut PgConnection,
    rotation: Uuid,
    id: Uuid,
    reason: &str,
    actor: &Actor,
) -> Result<bool, StoreError> {
    let mut tx = conn.begin().during("begin").await?;
    let found = sqlx::query(
        "UPDATE rekey.quarantine SET accepted_at = clock_timestamp(), accepted_by = $3, accept_reason = $4 \
         WHERE rotation = $1 AND row_id = $2",
    )
    .bind(rotation)
    .bind(id)
    .bind(&actor.operator)
    .bind(reason)
    .execute(&mut *tx)
    .during("accept the row")
    .await?
    .rows_affected()
        == 1;
    if found {
        audit::append(&mut tx, Some(rotation), "accept", actor, json!({ "id": id, "reason": reason }))
            .await?;
    }
    tx.commit().during("accept the row").await?;
    Ok(found)
}
