//! Walks over the heap, part by part; and reads what was written meanwhile, by id.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use sqlx::PgConnection;
use uuid::Uuid;

use super::check::{Age, RowCheck, Walked};
use super::hand::{Hand, until_done};
use super::met;
use super::verifier::Verifier;
use crate::engine::Stop;
use crate::engine::fault::Fault;
use crate::engine::row::read_whole;
use crate::error::Error;
use crate::rotation::{ReadSize, Tid};
use crate::store::index;
use crate::store::rows::{INLINE_BYTES, MAX_ROW_BYTES, Stretch};

/// As many such rows are looked up together: where there are more, another round over the tags costs less than memory.
const FOREIGN: usize = 500_000;

/// One worker: takes parts until there is none.
pub(super) async fn work(v: Arc<Verifier>, stop: Stop) -> Result<Walked, Error> {
    let mut hand = Hand::reach(&v.inputs.connector, stop).await?;
    let (mut walked, mut size) = (Walked::default(), ReadSize::default());
    loop {
        let lo = v.next.fetch_add(v.part, Ordering::Relaxed);
        if lo >= v.began.blocks {
            break;
        }
        let hi = lo.saturating_add(v.part).min(v.began.blocks);
        walked.add(until_done!(hand, "read connections", |conn| part(&v, conn, &mut size, lo, hi)));
        if walked.foreign.len() > FOREIGN {
            let foreign = std::mem::take(&mut walked.foreign);
            let settled =
                until_done!(hand, "read proof tags", |conn| met::settle_foreign(&v, conn, &foreign));
            walked.report.add(settled);
        }
    }
    hand.let_go().await;
    Ok(walked)
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

/// The rows that were written meanwhile.
pub(super) async fn young(
    v: &Verifier,
    conn: &mut PgConnection,
    rows: &[(Uuid, Tid)],
) -> Result<Walked, Fault> {
    let mut check = RowCheck::new(v, Age::Any);
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
        // What is not found by id was deleted since, or is at its place all the same.
        let missing = rows.iter().filter(|(id, _)| !found.contains(id));
        let places: Vec<Tid> = missing.map(|(_, at)| *at).collect();
        if !places.is_empty() {
            let mut unknown = index::unknown(conn, &places).await?;
            unknown.retain(|id| rows.iter().any(|(young, _)| young == id));
            let stretch = Stretch::At { places, max: INLINE_BYTES };
            read_whole(conn, &stretch, MAX_ROW_BYTES as usize, |row| {
                if unknown.contains(&row.id) {
                    check.row(row);
                }
                Ok::<(), Fault>(())
            })
            .await?;
            check.settle(conn).await?;
            check.unknown(unknown);
        }
    }
    Ok(check.done())
}
