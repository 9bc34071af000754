//! `rekey.proofs`: which transactions were ours, and the tag of every row they wrote.
//!
//! A proof row bears the id of the transaction that inserted it twice: as recorded, and as its own xmin. Where the two
//! differ, the ledger was restored from a dump, and the recorded id says nothing about this database's rows.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::crypto::Tag;
use crate::rotation::Direction;
use crate::store::error::{Statement, StoreError, answered};
use crate::store::pg_types::Xid;

/// The current transaction id, full width; xmins are widened with it.
pub async fn current_xid(conn: &mut PgConnection) -> Result<u64, StoreError> {
    let text: String = sqlx::query_scalar("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        .fetch_one(conn)
        .during("read the current transaction id")
        .await?;
    text.parse().map_err(|_| StoreError::Sql {
        op: "read the current transaction id",
        source: sqlx::Error::Decode("not a number".into()),
    })
}

/// Which of these xmins are batches of ours, in one direction or in either.
pub async fn ours(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Option<Direction>,
    xmins: &HashSet<Xid>,
) -> Result<HashSet<Xid>, StoreError> {
    if xmins.is_empty() {
        return Ok(HashSet::new());
    }
    let wide = widened(conn, xmins).await?;
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT xid::text FROM rekey.proofs WHERE rotation = $1 AND ($2::text IS NULL OR direction = $2) \
         AND xid = ANY($3::text[]::xid8[]) AND xmin = xid::xid",
    )
    .bind(rotation)
    .bind(direction.map(Direction::as_str))
    .bind(&wide)
    .fetch_all(conn)
    .during("recognise our own batches")
    .await?;
    Ok(found.iter().filter_map(|x| x.parse::<u64>().ok()).map(|x| Xid(x as u32)).collect())
}

async fn widened(conn: &mut PgConnection, xmins: &HashSet<Xid>) -> Result<Vec<String>, StoreError> {
    let current = current_xid(conn).await?;
    Ok(xmins.iter().map(|x| x.widen(current).to_string()).collect())
}

/// The tags that the batches with these xmins wrote, by row.
pub async fn tags_of(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Option<Direction>,
    xmins: &HashSet<Xid>,
) -> Result<HashMap<(Xid, Uuid), Tag>, StoreError> {
    const OP: &str = "read proof tags";
    let mut found = HashMap::new();
    if xmins.is_empty() {
        return Ok(found);
    }
    let wide = widened(conn, xmins).await?;
    let mut rows = sqlx::query(
        "SELECT xid::text, ids, tags FROM rekey.proofs WHERE rotation = $1 AND ($2::text IS NULL OR direction = $2) \
         AND xid = ANY($3::text[]::xid8[]) AND xmin = xid::xid",
    )
    .bind(rotation)
    .bind(direction.map(Direction::as_str))
    .bind(&wide)
    .fetch(conn);
    while let Some(row) = answered(OP, rows.try_next()).await? {
        let xid: u64 = row.get::<&str, _>(0).parse().unwrap_or_default();
        let (ids, tags): (Vec<Uuid>, &[u8]) = (row.get(1), row.get(2));
        for (id, tag) in ids.into_iter().zip(Tag::split(tags)) {
            found.insert((Xid(xid as u32), id), tag);
        }
    }
    Ok(found)
}

/// Which of these rows batches of ours have moved: those of one chunk, or of any.
pub async fn moved(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Direction,
    chunk: Option<i64>,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, StoreError> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let found: Vec<Uuid> = sqlx::query_scalar(
        "SELECT DISTINCT w.id FROM rekey.proofs p CROSS JOIN LATERAL unnest(p.ids) m(id) JOIN unnest($4::uuid[]) w(id) ON w.id = m.id \
         WHERE p.rotation = $1 AND p.direction = $2 AND ($3::bigint IS NULL OR p.chunk = $3) AND p.lo <= $5 AND p.hi >= $6",
    )
    .bind(rotation)
    .bind(direction.as_str())
    .bind(chunk)
    .bind(ids)
    .bind(ids.iter().max())
    .bind(ids.iter().min())
    .fetch_all(conn)
    .during("look for rows moved before")
    .await?;
    Ok(found.into_iter().collect())
}

/// Rows tagged in a rotation, both ways.
pub async fn count(conn: &mut PgConnection, rotation: Uuid) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT coalesce(sum(re_encrypted), 0)::bigint FROM rekey.chunks WHERE rotation = $1")
        .bind(rotation)
        .fetch_one(conn)
        .during("count the proofs")
        .await
}

/// Batches' proofs that one statement reads, some 30 kB each.
const PAGE: i64 = 200;

/// Id and tag of one row.
pub type Tagged = ([u8; 16], Tag);

/// The latest tag of every row with an id in `(lo, hi]`, `None` being open, in either direction, ordered by id.
pub async fn tags_in(
    conn: &mut PgConnection,
    rotation: Uuid,
    lo: Option<Uuid>,
    hi: Option<Uuid>,
) -> Result<Vec<Tagged>, StoreError> {
    const OP: &str = "read proof tags";
    let (above, to) = (lo, hi.unwrap_or(Uuid::max()));
    let mut tags: Vec<Tagged> = Vec::new();
    let (mut after, mut whole) = (i64::MIN, true);
    while whole {
        // In the order they were made: of a row moved twice the later tag counts. A page at a time: where ids do not
        // follow the heap, every batch may hold one of the range, and no statement may take that long.
        let mut rows = sqlx::query(
            "SELECT ids, tags, id FROM rekey.proofs WHERE rotation = $1 AND ($2::uuid IS NULL OR hi > $2) AND lo <= $3 \
             AND id > $4 ORDER BY id LIMIT $5",
        )
        .bind(rotation)
        .bind(above)
        .bind(to)
        .bind(after)
        .bind(PAGE)
        .fetch(&mut *conn);
        let mut read = 0;
        while let Some(row) = answered(OP, rows.try_next()).await? {
            (read, after) = (read + 1, row.get(2));
            let (ids, bytes): (Vec<Uuid>, &[u8]) = (row.get(0), row.get(1));
            let pairs = ids.into_iter().zip(Tag::split(bytes));
            tags.extend(
                pairs
                    .filter(|(id, _)| above.is_none_or(|a| *id > a) && *id <= to)
                    .map(|(id, t)| (*id.as_bytes(), t)),
            );
        }
        whole = read == PAGE;
    }
    tags.sort_by_key(|(id, _)| *id);
    // Keep the last of equals.
    tags.reverse();
    tags.dedup_by_key(|(id, _)| *id);
    tags.reverse();
    Ok(tags)
}
