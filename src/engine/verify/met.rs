//! Which rows of rekey's batches have been met, and the tags of rows that something else wrote since, found by id.
//!
//! A bit for each row of a batch, until all of them have been met: what is left at the end was written by others since, moved
//! again, or deleted.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::PgConnection;
use uuid::Uuid;

use super::check::{Foreign, Walked};
use super::report::VerifyReport;
use super::verifier::Verifier;
use crate::crypto::Tag;
use crate::store::StoreError;
use crate::store::ledger::tags::{batch_sizes, deleted, each_of};

/// The rows met, by batch.
#[derive(Default)]
pub(super) struct Met(Mutex<HashMap<i64, Bits>>);

struct Bits {
    words: Box<[u64]>,
    left: usize,
}

impl Met {
    pub fn lock(&self) -> Meeting<'_> {
        Meeting(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The same, for a while.
pub(super) struct Meeting<'a>(MutexGuard<'a, HashMap<i64, Bits>>);

impl Meeting<'_> {
    /// Met the row at a place of a batch that has so many rows.
    pub fn meet(&mut self, number: i64, at: usize, rows: usize) {
        let new = || Bits { words: vec![0; rows.div_ceil(64)].into(), left: rows };
        let bits = self.0.entry(number).or_insert_with(new);
        let Some(word) = bits.words.get_mut(at / 64) else { return };
        if *word & 1 << (at % 64) == 0 {
            *word |= 1 << (at % 64);
            bits.left -= 1;
        }
        if bits.left == 0 {
            bits.words = Box::default();
        }
    }

    /// Whether all rows of a batch have been met.
    fn is_whole(&self, number: i64) -> bool {
        self.0.get(&number).is_some_and(|bits| bits.left == 0)
    }

    fn has(&self, number: i64, at: usize) -> bool {
        let met = |bits: &Bits| bits.words.get(at / 64).is_some_and(|word| word & 1 << (at % 64) != 0);
        self.0.get(&number).is_some_and(|bits| bits.left == 0 || met(bits))
    }
}

/// Batches that are read together.
const TOGETHER: usize = 100;
/// Rows that are looked for together.
const LOOKED_FOR: usize = 10_000;
/// Deleted rows that are tracked individually; more are only counted.
const TOLD_APART: usize = 1_000_000;

/// Batches of which rows have not been met.
async fn unmet(v: &Verifier, conn: &mut PgConnection) -> Result<Vec<i64>, StoreError> {
    let sizes = batch_sizes(conn, v.inputs.rotation).await?;
    let met = v.met.lock();
    let mut left: Vec<i64> =
        sizes.into_iter().map(|(number, _)| number).filter(|number| !met.is_whole(*number)).collect();
    // The server promises no order, and of two tags of a row the later one counts.
    left.sort_unstable();
    Ok(left)
}

/// Compares rows that no batch wrote last with the latest tag that any wrote of them.
pub(super) async fn settle_foreign(
    v: &Verifier,
    conn: &mut PgConnection,
    foreign: &[Foreign],
) -> Result<VerifyReport, StoreError> {
    let mut latest: HashMap<Uuid, Option<Tag>> = foreign.iter().map(|row| (row.id, None)).collect();
    if !latest.is_empty() {
        for numbers in unmet(v, conn).await?.chunks(TOGETHER) {
            each_of(conn, numbers, |_, _, id, tag| {
                if let Some(slot) = latest.get_mut(&id) {
                    *slot = Some(tag);
                }
            })
            .await?;
        }
    }
    let mut report = VerifyReport::default();
    for row in foreign {
        let tag = latest.get(&row.id).copied().flatten();
        row.settle(tag, &mut report);
    }
    Ok(report)
}

/// The whole report: with what is left to be looked up, and with the rows that were deleted since.
pub(super) async fn settle_all(
    v: &Verifier,
    conn: &mut PgConnection,
    walked: &Walked,
) -> Result<VerifyReport, StoreError> {
    let mut report = walked.report.clone();
    if v.inputs.keys.tags.is_none() {
        return Ok(report);
    }
    report.add(settle_foreign(v, conn, &walked.foreign).await?);
    let (mut gone, mut more, mut asked) = (HashSet::new(), 0, Vec::new());
    for numbers in unmet(v, conn).await?.chunks(TOGETHER) {
        let mut left = Vec::new();
        each_of(conn, numbers, |number, at, id, _| left.push((number, at, id))).await?;
        {
            let met = v.met.lock();
            asked.extend(
                left.into_iter().filter(|(number, at, _)| !met.has(*number, *at)).map(|(_, _, id)| id),
            );
        }
        for ids in asked.chunks(LOOKED_FOR) {
            for id in deleted(conn, ids).await? {
                if gone.len() < TOLD_APART {
                    gone.insert(id);
                } else {
                    more += i64::from(!gone.contains(&id));
                }
            }
        }
        asked.clear();
    }
    report.deleted_since = gone.len() as i64 + more;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_whole_once_each_of_its_rows_was_met() {
        let met = Met::default();
        let mut meeting = met.lock();
        for at in (0..130).rev() {
            assert!(!meeting.is_whole(7) && !meeting.has(7, at));
            meeting.meet(7, at, 130);
            meeting.meet(7, at, 130);
            assert!(meeting.has(7, at));
        }
        assert!(meeting.is_whole(7) && meeting.has(7, 0) && !meeting.has(8, 0));
        meeting.meet(7, 3, 130);
        assert!(meeting.is_whole(7));
    }
}
