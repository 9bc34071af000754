//! Walks over the heap, part by part; and reads what was written meanwhile, by id.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use sqlx::PgConnection;
use uuid::Uuid;

use super::check::{Age, RowCheck, Walked};
use super::met;
use super::verifier::{Verifier, given_up};
use crate::engine::fault::Fault;
use crate::engine::row::read_whole;
use crate::error::Error;
use crate::rotation::{ReadSize, Tid};
use crate::store::rows::{INLINE_BYTES, MAX_ROW_BYTES, Stretch};
use crate::store::{Purpose, StoreError, connect, counting};

/// As many such rows are looked up together: where there are more, another round over the tags costs less than memory.
const FOREIGN: usize = 500_000;

/// One worker: takes parts until there is none.
pub(super) async fn work(v: Arc<Verifier>) -> Result<Walked, Error> {
    let connector = &v.inputs.connector;
    let mut conn = connector.connect(Purpose::ReadByPlace).await?;
    let (mut walked, mut size) = (Walked::default(), ReadSize::default());
    loop {
        let lo = v.next.fetch_add(v.part, Ordering::Relaxed);
        if lo >= v.began.blocks {
            break;
        }
        let hi = lo.saturating_add(v.part).min(v.began.blocks);
        let mut since = None;
        let found = loop {
            match part(&v, &mut conn, &mut size, lo, hi).await {
                Ok(found) => break found,
                Err(fault) => {
                    let since = *since.get_or_insert_with(Instant::now);
                    connector.again(Purpose::ReadByPlace, &mut conn, since, retried(fault)?).await?;
                }
            }
        };
        walked.add(found);
        if walked.foreign.len() > FOREIGN {
            let foreign = std::mem::take(&mut walked.foreign);
            let since = Instant::now();
            loop {
                match met::settle_foreign(&v, &mut conn, &foreign).await {
                    Ok(more) => break walked.report.add(more),
                    Err(e) => connector.again(Purpose::ReadByPlace, &mut conn, since, e).await?,
                }
            }
        }
    }
    connect::close(conn).await;
    Ok(walked)
}

/// What may pass, and be done again.
pub(super) fn retried(fault: Fault) -> Result<StoreError, Error> {
    match fault {
        Fault::Store(e) => Ok(e),
        Fault::Fatal(e) => Err(e),
        Fault::LeaseLost | Fault::Yield => Err(given_up()),
    }
}

/// The old rows of some blocks.
async fn part(
    v: &Verifier,
    conn: &mut PgConnection,
    size: &mut ReadSize,
    lo: u32,
    hi: u32,
) -> Result<Walked, Fault> {
    let mut check = RowCheck::new(v, Age::Old);
    let mut after = Tid { block: lo, offset: 0 };
    loop {
        let (limit, started) = (size.rows(), Instant::now());
        let stretch = Stretch::Places { after, hi, limit };
        let mut bytes = 0;
        let seen = read_whole(conn, &stretch, MAX_ROW_BYTES as usize, |row| {
            bytes += row.envelope.map_or(0, <[u8]>::len);
            check.row(row);
            Ok::<(), Fault>(())
        })
        .await?;
        size.observe(seen.rows, bytes, started.elapsed());
        check.settle(conn).await?;
        match seen.last {
            Some((_, tid)) if seen.rows >= limit => after = tid,
            _ => return Ok(check.done()),
        }
    }
}

/// Rows that are read by id at a time.
const BY_ID: usize = 500;

/// The rows that were written meanwhile, and how many of them the index on the id does not lead to.
pub(super) async fn young(
    v: &Verifier,
    conn: &mut PgConnection,
    rows: &[(Uuid, Tid)],
) -> Result<(Walked, i64), Fault> {
    let (mut check, mut unindexed) = (RowCheck::new(v, Age::Any), 0);
    for rows in rows.chunks(BY_ID) {
        let mut found = HashSet::new();
        let ids = rows.iter().map(|(id, _)| *id).collect();
        let stretch = Stretch::Ids { ids, max: INLINE_BYTES };
        read_whole(conn, &stretch, MAX_ROW_BYTES as usize, |row| {
            found.insert(row.id);
            check.row(row);
            Ok::<(), Fault>(())
        })
        .await?;
        check.settle(conn).await?;
        let missing: Vec<_> = rows.iter().filter(|(id, _)| !found.contains(id)).copied().collect();
        if !missing.is_empty() {
            unindexed += counting::unindexed(conn, &missing).await?;
        }
    }
    Ok((check.done(), unindexed))
}
