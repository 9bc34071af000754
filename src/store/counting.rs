//! Where a verify begins and ends: the horizon that tells what is written meanwhile, and at the end, over one snapshot, how
//! many rows there are and which of them are younger.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::{Statement, StoreError};
use super::pg_types::{FullXid, Xid};
use super::statement::{row, statements};
use crate::rotation::Tid;

/// What the counting is called.
pub const OP: &str = "count the connections";

/// Rows written while they were read that are held at a time, 24 bytes each.
const MOST_YOUNG: i64 = 4_000_000;

struct Now {
    xmin: FullXid,
    xmax: FullXid,
    blocks: i64,
    filenode: i64,
}

row!(Now { xmin, xmax, blocks, filenode });

statements! {
    fn now() -> One<Now> during "take the horizon":
        "SELECT pg_snapshot_xmin(s) AS xmin, pg_snapshot_xmax(s) AS xmax, \
         pg_relation_size('public.provider_connections') / current_setting('block_size')::bigint AS blocks, \
         pg_relation_filenode('public.provider_connections')::bigint AS filenode FROM pg_current_snapshot() s";

    // Memory for the hash of rekey's own batches, as in `closing.rs`.
    fn settings(rotation: Uuid) during OP:
        "SELECT set_config('statement_timeout', '0', true), set_config('enable_nestloop', 'off', true), \
         set_config('work_mem', greatest(m.setting::bigint, least(65536, n.batches * 80 / 1024)) || 'kB', true) \
         FROM pg_catalog.pg_settings m, \
         (SELECT coalesce(sum(batch_seq), 0)::bigint AS batches FROM rekey.chunks WHERE rotation = $1) n \
         WHERE m.name = 'work_mem'";

    fn all() -> Query<(i64, FullXid)> during OP:
        "SELECT count(*), pg_snapshot_xmax(pg_current_snapshot()) FROM public.provider_connections";

    // Of rekey's own batches, only those that ended before the verify began are old; see `closing.rs` for the fences.
    fn young(horizon: Xid, rotation: Uuid, next: FullXid, limit: i64) -> Query<(Uuid, Tid)> during OP:
        "SELECT s.id, s.at FROM (SELECT t.id, t.at, t.x FROM (SELECT id, ctid AS at, xmin AS x \
         FROM public.provider_connections OFFSET 0) t WHERE NOT EXISTS (SELECT FROM rekey.proofs p WHERE p.rotation = $2 \
         AND p.xid::xid = t.x AND p.xmin = t.x AND p.xid < $3) OFFSET 0) s WHERE age(s.x) <= age($1) LIMIT $4";

    fn at(places: &[Tid]) -> All<Uuid> during "look for rows that the index does not lead to":
        "SELECT id FROM public.provider_connections WHERE ctid = ANY($1)";
}

/// Where the database stood when a verify began.
pub struct Began {
    /// Whatever is older was written before, and is there already.
    pub horizon: Xid,
    /// Transactions from here on began later.
    pub next: Xid,
    /// The heap's blocks: what is behind them is younger.
    pub blocks: u32,
    /// The file that the heap was in.
    pub filenode: i64,
    next_in_full: FullXid,
    quiet: bool,
}

/// The beginning: now.
pub async fn begin(conn: &mut PgConnection) -> Result<Began, StoreError> {
    let Now { xmin, xmax, blocks, filenode } = now(conn).await?;
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    let (horizon, next) = (xmin.short(), xmax.short());
    Ok(Began { horizon, next, blocks, filenode, quiet: xmin == xmax, next_in_full: xmax })
}

/// What there is at the end.
pub struct Ended {
    /// Rows that were there when the verify began, and have not changed.
    pub old: i64,
    /// The others, and their places.
    pub young: Vec<(Uuid, Tid)>,
    /// The heap was rewritten meanwhile: places have another meaning.
    pub rewritten: bool,
}

/// Counts, over one snapshot. More young rows than can be listed are an error.
pub async fn end(conn: &mut PgConnection, rotation: Uuid, began: &Began) -> Result<Ended, StoreError> {
    let begin = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    let mut tx = begin.during(OP).await?;
    settings(&mut tx, rotation).await?;
    let (rows, next) = all().however_long().one(&mut tx).await?;
    let mut found = Vec::new();
    if !(began.quiet && next == began.next_in_full) {
        let listing = young(began.horizon, rotation, began.next_in_full, MOST_YOUNG + 1).however_long();
        listing
            .each(&mut tx, |row| {
                found.push(row);
                Ok::<(), StoreError>(())
            })
            .await?;
    }
    if found.len() as i64 > MOST_YOUNG {
        let what = "more rows are being written than rekey can verify".into();
        return Err(StoreError::Sql { op: OP, source: sqlx::Error::Protocol(what) });
    }
    let filenode = now(&mut tx).await?.filenode;
    tx.rollback().during(OP).await?;
    let (old, rewritten) = (rows - found.len() as i64, filenode != began.filenode);
    Ok(Ended { old, young: found, rewritten })
}

/// How many of these rows, which reading by id did not find, are at their places all the same.
pub async fn unindexed(conn: &mut PgConnection, rows: &[(Uuid, Tid)]) -> Result<i64, StoreError> {
    let places: Vec<Tid> = rows.iter().map(|(_, at)| *at).collect();
    let there = at(conn, &places).await?;
    Ok(rows.iter().filter(|(id, _)| there.contains(id)).count() as i64)
}
