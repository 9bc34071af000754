//! `rekey.proofs`, read by whoever compares: the rows of one batch with their tags, found by the transaction that wrote
//! them, so that a walk over the heap meets each batch a few times at most.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::proof::current_xid;
use crate::crypto::Tag;
use crate::store::error::StoreError;
use crate::store::pg_types::{FullXid, Xid};
use crate::store::statement::statements;

const OP: &str = "read proof tags";

statements! {
    fn written_by(rotation: Uuid, xids: &[FullXid]) -> All<(i64, FullXid, Vec<Uuid>, Vec<u8>)> during OP:
        "SELECT id, xid, ids, tags FROM rekey.proofs WHERE rotation = $1 AND xid = ANY($2) AND xmin = xid::xid";

    fn sizes(rotation: Uuid) -> Query<(i64, i64)> during OP:
        "SELECT id, octet_length(tags)::int8 FROM rekey.proofs WHERE rotation = $1";

    fn numbered(numbers: &[i64]) -> All<(i64, Vec<Uuid>, Vec<u8>)> during OP:
        "SELECT id, ids, tags FROM rekey.proofs WHERE id = ANY($1) ORDER BY id";

    /// Which of these rows are not there any more.
    pub fn deleted(ids: &[Uuid]) -> All<Uuid> during "look for deleted connections":
        "SELECT u.id FROM unnest($1::uuid[]) u(id) \
         WHERE NOT EXISTS (SELECT FROM public.provider_connections t WHERE t.id = u.id)";
}

/// One batch: its number in the ledger, and the place and tag of each of its rows.
pub struct Batch {
    /// Its number.
    pub number: i64,
    /// By row.
    pub rows: HashMap<Uuid, (usize, Tag)>,
}

/// The batches that these transactions wrote; those that are no batches are left out.
pub async fn batches_of(
    conn: &mut PgConnection,
    rotation: Uuid,
    xmins: &HashSet<Xid>,
) -> Result<Vec<(Xid, Batch)>, StoreError> {
    if xmins.is_empty() {
        return Ok(Vec::new());
    }
    let current = current_xid(conn).await?;
    let wide: Vec<FullXid> = xmins.iter().map(|x| x.widen(current)).collect();
    let found = written_by(conn, rotation, &wide).await?;
    let batch = |(number, xid, ids, tags): (i64, FullXid, Vec<Uuid>, Vec<u8>)| {
        let rows = ids.into_iter().zip(Tag::split(&tags)).enumerate();
        (xid.short(), Batch { number, rows: rows.map(|(at, (id, tag))| (id, (at, tag))).collect() })
    };
    Ok(found.into_iter().map(batch).collect())
}

/// Number and rows of every batch.
pub async fn batch_sizes(conn: &mut PgConnection, rotation: Uuid) -> Result<Vec<(i64, usize)>, StoreError> {
    let mut found = Vec::new();
    let sizes = sizes(rotation);
    sizes
        .each(conn, |(number, bytes)| {
            found.push((number, bytes as usize / Tag::LEN));
            Ok::<(), StoreError>(())
        })
        .await?;
    Ok(found)
}

/// Hands on every row of these batches, with its batch, place and tag, in the order in which they were written.
pub async fn each_of(
    conn: &mut PgConnection,
    numbers: &[i64],
    mut each: impl FnMut(i64, usize, Uuid, Tag),
) -> Result<(), StoreError> {
    for (number, ids, tags) in numbered(conn, numbers).await? {
        for (at, (id, tag)) in ids.into_iter().zip(Tag::split(&tags)).enumerate() {
            each(number, at, id, tag);
        }
    }
    Ok(())
}
