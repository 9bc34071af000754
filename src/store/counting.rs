//! Where a verify begins and ends: the snapshot that tells what is written meanwhile, and at the end, over one snapshot, how
//! many rows there are, which of them are younger, and how many the index of the primary key leads to.

use std::collections::HashSet;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::{Statement, StoreError};
use super::index;
use super::pg_types::{FullXid, Xid};
use super::statement::{row, statements};
use crate::rotation::Tid;

/// What the counting is called.
pub const OP: &str = "count the connections";

/// Rows written while they were read that are held at a time, 24 bytes each.
pub const MOST_YOUNG: i64 = 4_000_000;

/// Rows that the index does not lead to that are counted at most.
const MOST_MISSING: i64 = 100_000;

/// A table of so many blocks is small: its rows may be looked for in any order.
const SMALL: u32 = 25_000;

struct Now {
    xmin: FullXid,
    xmax: FullXid,
    snapshot: String,
    in_recovery: bool,
    blocks: i64,
    filenode: i64,
}

row!(Now { xmin, xmax, snapshot, in_recovery, blocks, filenode });

statements! {
    // On a standby a snapshot lists no transaction that is under way: whoever verifies there does not wait for rekey's batches.
    fn now() -> One<Now> during "take the horizon":
        "SELECT pg_snapshot_xmin(s) AS xmin, pg_snapshot_xmax(s) AS xmax, s::text AS snapshot, pg_is_in_recovery() AS in_recovery, \
         pg_relation_size('public.provider_connections') / current_setting('block_size')::bigint AS blocks, \
         pg_relation_filenode('public.provider_connections')::bigint AS filenode FROM pg_current_snapshot() s";

    // Memory for the hash of rekey's own batches, as in `closing.rs`. Counted is what the heap has, not what an index has.
    fn settings(rotation: Uuid) during OP:
        "SELECT set_config('statement_timeout', '0', true), set_config('enable_nestloop', 'off', true), \
         set_config('plan_cache_mode', 'auto', true), set_config('enable_seqscan', 'on', true), \
         set_config('enable_indexonlyscan', 'off', true), \
         set_config('work_mem', greatest(m.setting::bigint, least(65536, n.batches * 80 / 1024)) || 'kB', true) \
         FROM pg_catalog.pg_settings m, \
         (SELECT coalesce(sum(batch_seq), 0)::bigint AS batches FROM rekey.chunks WHERE rotation = $1) n \
         WHERE m.name = 'work_mem'";

    fn all() -> Query<(i64, FullXid)> during OP:
        "SELECT count(*), pg_snapshot_xmax(pg_current_snapshot()) FROM public.provider_connections";

    // Of rekey's own batches, only those that ended before the verify began are old; see `closing.rs` for the fences.
    fn young(horizon: Xid, rotation: Uuid, began: &str, limit: i64) -> Query<(Uuid, Tid)> during OP:
        "SELECT s.id, s.at FROM (SELECT t.id, t.at, t.x FROM (SELECT id, ctid AS at, xmin AS x \
         FROM public.provider_connections OFFSET 0) t WHERE NOT EXISTS (SELECT FROM rekey.proofs p WHERE p.rotation = $2 \
         AND p.xid::xid = t.x AND p.xmin = t.x AND pg_visible_in_snapshot(p.xid, $3::text::pg_snapshot)) OFFSET 0) s \
         WHERE age(s.x) <= age($1) LIMIT $4";

    // How well ids follow the heap, and how much of it need not be looked at for what an index has.
    fn order() -> One<(f64, f64)> during OP:
        "SELECT coalesce((SELECT abs(s.correlation)::float8 FROM pg_catalog.pg_stats s WHERE s.schemaname = 'public' \
         AND s.tablename = 'provider_connections' AND s.attname = 'id'), 0), \
         (SELECT c.relallvisible::float8 / greatest(c.relpages, 1) FROM pg_catalog.pg_class c \
         WHERE c.oid = 'public.provider_connections'::pg_catalog.regclass)";

    fn only_by_index_alone() during OP:
        "SELECT set_config('enable_indexonlyscan', 'on', true)";

    fn by_index(least: Uuid) -> Query<i64> during OP:
        "SELECT count(*) FROM public.provider_connections WHERE id >= $1";

    // Where there may be no ledger.
    fn settings_without_batches() during OP:
        "SELECT set_config('statement_timeout', '0', true), set_config('enable_seqscan', 'on', true), \
         set_config('enable_indexonlyscan', 'off', true)";

    // The heap is walked over by place, and each of its rows looked for.
    fn missing_in_index(most: i64) -> Query<Uuid> during OP:
        "SELECT t.id FROM (SELECT id FROM public.provider_connections WHERE ctid >= '(0,0)' OFFSET 0) t WHERE NOT EXISTS \
         (SELECT FROM public.provider_connections i WHERE i.id = t.id OFFSET 0) LIMIT $1";
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
    /// Transactions that were under way then.
    under_way: HashSet<Xid>,
    snapshot: String,
    in_recovery: bool,
    next_in_full: FullXid,
    quiet: bool,
}

impl Began {
    /// Whether a transaction that has ended by now had ended by then.
    pub fn saw(&self, xid: Xid) -> bool {
        xid.precedes(self.horizon) || xid.precedes(self.next) && !self.under_way.contains(&xid)
    }
}

/// The beginning: now.
pub async fn begin(conn: &mut PgConnection) -> Result<Began, StoreError> {
    let Now { xmin, xmax, snapshot, in_recovery, blocks, filenode } = now(conn).await?;
    Ok(Began {
        horizon: xmin.short(),
        next: xmax.short(),
        blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
        filenode,
        under_way: under_way(&snapshot),
        snapshot,
        in_recovery,
        next_in_full: xmax,
        quiet: xmin == xmax,
    })
}

/// The transactions that a snapshot lists, which PostgreSQL writes `xmin:xmax:x,y,z`.
fn under_way(snapshot: &str) -> HashSet<Xid> {
    let listed = snapshot.rsplit(':').next().unwrap_or_default().split(',');
    listed.filter_map(|xid| xid.parse::<u64>().ok()).map(|xid| FullXid(xid).short()).collect()
}

/// What there is at the end.
pub struct Ended {
    /// Rows that were there when the verify began, and have not changed.
    pub old: i64,
    /// The others, and their places.
    pub young: Vec<(Uuid, Tid)>,
    /// The heap was rewritten meanwhile: places have another meaning.
    pub rewritten: bool,
    /// Rows that the index of the primary key does not lead to, where they were counted: not on a standby, which has the same
    /// index and may cancel so long a snapshot; nor where ids are scattered over a large heap, each page of which would be
    /// read a hundred times.
    pub unknown: i64,
}

/// Counts, over one snapshot. More than `most` young rows are an error.
pub async fn end(
    conn: &mut PgConnection,
    rotation: Uuid,
    began: &Began,
    most: i64,
) -> Result<Ended, StoreError> {
    let begin = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    let mut tx = begin.during(OP).await?;
    settings(&mut tx, rotation).await?;
    let (rows, next) = all().however_long().one(&mut tx).await?;
    let mut found = Vec::new();
    if !(began.quiet && next == began.next_in_full) {
        let listing = young(began.horizon, rotation, &began.snapshot, most + 1).however_long();
        listing
            .each(&mut tx, |row| {
                found.push(row);
                Ok::<(), StoreError>(())
            })
            .await?;
    }
    if found.len() as i64 > most {
        return Err(StoreError::TooManyWritten { most });
    }
    let unknown = match !began.in_recovery && is_cheap(&mut tx, began.blocks).await? {
        true => rows - count_by_index(&mut tx).await?,
        false => 0,
    };
    let filenode = now(&mut tx).await?.filenode;
    tx.rollback().during(OP).await?;
    let (old, rewritten) = (rows - found.len() as i64, filenode != began.filenode);
    Ok(Ended { old, young: found, rewritten, unknown })
}

async fn count_by_index(tx: &mut PgConnection) -> Result<i64, StoreError> {
    index::only_by_index(tx).await?;
    only_by_index_alone(tx).await?;
    by_index(Uuid::nil()).however_long().one(tx).await
}

/// Refuses a table with rows that the index of the primary key does not lead to, where that can be counted as for
/// [`Ended::unknown`]. For whoever reads by id, and so cannot have met them.
pub async fn refuse_unknown(conn: &mut PgConnection) -> Result<(), StoreError> {
    let Began { in_recovery, blocks, .. } = begin(conn).await?;
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").during(OP).await?;
    if !in_recovery && is_cheap(&mut tx, blocks).await? {
        settings_without_batches(&mut tx).await?;
        let (rows, _) = all().however_long().one(&mut tx).await?;
        let unknown = rows - count_by_index(&mut tx).await?;
        if unknown > 0 {
            let ids = missing_in_index(unknown.min(MOST_MISSING)).however_long().all(&mut tx).await?;
            index::refuse(&mut tx, &ids).await?;
        }
    }
    tx.rollback().during(OP).await
}

/// Whether counting by the index reads each page about once.
async fn is_cheap(conn: &mut PgConnection, blocks: u32) -> Result<bool, StoreError> {
    if blocks < SMALL {
        return Ok(true);
    }
    let (correlation, visible) = order(conn).await?;
    Ok(correlation > 0.9 || visible > 0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_lists_what_was_under_way() {
        assert!(under_way("755:755:").is_empty());
        assert_eq!(under_way("755:760:755,758"), HashSet::from([Xid(755), Xid(758)]));
        assert_eq!(under_way("4294967300:4294967301:4294967300"), HashSet::from([Xid(4)]));
    }
}
