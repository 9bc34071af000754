//! `rekey.proofs`: which transactions were ours, and the tag of every row they wrote.
//!
//! A proof row bears the id of the transaction that inserted it twice: as recorded, and as its own xmin. Where the two
//! differ, the ledger was restored from a dump, and the recorded id says nothing about this database's rows.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use crate::crypto::Tag;
use crate::rotation::Direction;
use crate::store::error::StoreError;
use crate::store::pg_types::{FullXid, Xid};
use crate::store::statement::statements;

statements! {
    /// The current transaction id; xmins are widened with it.
    pub fn current_xid() -> One<FullXid> during "read the current transaction id":
        "SELECT pg_snapshot_xmax(pg_current_snapshot())";

    fn recorded(rotation: Uuid, direction: Option<Direction>, xids: &[FullXid]) -> All<FullXid> during "recognize \
        rekey's own batches":
        "SELECT xid FROM rekey.proofs WHERE rotation = $1 AND ($2::text IS NULL OR direction = $2) \
         AND xid = ANY($3) AND xmin = xid::xid";

    fn tags_by_xid(
        rotation: Uuid, direction: Option<Direction>, xids: &[FullXid]
    ) -> Query<(FullXid, Vec<Uuid>, Vec<u8>)> during READ:
        "SELECT xid, ids, tags FROM rekey.proofs WHERE rotation = $1 AND ($2::text IS NULL OR direction = $2) \
         AND xid = ANY($3) AND xmin = xid::xid";

    fn moved_among(
        rotation: Uuid, direction: Direction, chunk: Option<i64>, ids: &[Uuid], least: Option<&Uuid>, greatest: Option<&Uuid>
    ) -> All<Uuid> during "look for rows re-encrypted before":
        "SELECT DISTINCT w.id FROM rekey.proofs p CROSS JOIN LATERAL unnest(p.ids) m(id) JOIN unnest($4::uuid[]) w(id) ON w.id = m.id \
         WHERE p.rotation = $1 AND p.direction = $2 AND ($3::bigint IS NULL OR p.chunk = $3) AND p.lo <= $6 AND p.hi >= $5";
}

const READ: &str = "read proof tags";

/// Which of these xmins are rekey's batches, in one direction or in either.
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
    let found = recorded(conn, rotation, direction, &wide).await?;
    Ok(found.into_iter().map(FullXid::short).collect())
}

async fn widened(conn: &mut PgConnection, xmins: &HashSet<Xid>) -> Result<Vec<FullXid>, StoreError> {
    let current = current_xid(conn).await?;
    Ok(xmins.iter().map(|x| x.widen(current)).collect())
}

/// The tags that the batches with these xmins wrote, by row.
pub async fn tags_of(
    conn: &mut PgConnection,
    rotation: Uuid,
    direction: Option<Direction>,
    xmins: &HashSet<Xid>,
) -> Result<HashMap<(Xid, Uuid), Tag>, StoreError> {
    let mut found = HashMap::new();
    if xmins.is_empty() {
        return Ok(found);
    }
    let wide = widened(conn, xmins).await?;
    let read = tags_by_xid(rotation, direction, &wide).each(conn, |(xid, ids, tags)| {
        found.extend(ids.into_iter().zip(Tag::split(&tags)).map(|(id, tag)| ((xid.short(), id), tag)));
        Ok::<(), StoreError>(())
    });
    read.await?;
    Ok(found)
}

/// Which of these rows rekey's batches have re-encrypted: those of one chunk, or of any.
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
    let found =
        moved_among(conn, rotation, direction, chunk, ids, ids.iter().min(), ids.iter().max()).await?;
    Ok(found.into_iter().collect())
}
