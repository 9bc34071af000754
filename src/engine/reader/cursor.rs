//! Where the reading of a chunk stands, and the next statement's stretch: as many rows as there is room for.

use uuid::Uuid;

use crate::rotation::{Bounds, Counters, Tid};
use crate::store::ledger::Lease;
use crate::store::ledger::quarantine::BadRow;
use crate::store::rows::{INLINE_BYTES, READ_ROWS, Seen, Stretch};

/// Bytes of credential in one reading statement, about: while it runs, its snapshot keeps what batches leave behind from
/// being pruned, and a page that comes up meanwhile gives a row away.
const READ_BYTES: usize = 512 << 10;

/// Rows of the next statement. The next rows may be as large as any that are read with their neighbours, whatever those
/// before them were: even then it fetches little more than there is room for.
fn limit(row_bytes: f64, room: usize) -> i64 {
    let most = (room.max(LEAST) / INLINE_BYTES as usize) as i64;
    ((room.min(READ_BYTES) as f64 / row_bytes.max(64.0)) as i64).clamp(16, READ_ROWS.min(most))
}

/// However little room there is, a statement may fetch so many bytes.
const LEAST: usize = 4 << 20;

/// The chunk that is being read.
pub(super) struct Cursor {
    /// The right to it.
    pub lease: Lease,
    /// Rows met whose values are large, in stretches that are read one at a time.
    pub large: Vec<Stretch>,
    /// Rows left alone.
    pub counters: Counters,
    /// Rows that no key opens.
    pub quarantine: Vec<BadRow>,
    /// What is left to walk over.
    left: Left,
}

enum Left {
    Keys { after: Option<Uuid>, hi: Uuid },
    Places { after: Tid, hi: u32 },
    Ids(Vec<Uuid>),
    Nothing,
}

impl Cursor {
    pub fn new(lease: Lease) -> Cursor {
        let left = match lease.bounds() {
            Bounds::Keys { lo, hi } => Left::Keys { after: *lo, hi: hi.unwrap_or(Uuid::max()) },
            Bounds::Blocks { lo, hi } => Left::Places { after: Tid { block: *lo, offset: 0 }, hi: *hi },
            Bounds::Ids(ids) if !ids.is_empty() => Left::Ids(ids.clone()),
            Bounds::Ids(_) | Bounds::Proof => Left::Nothing,
        };
        let (counters, quarantine) = Default::default();
        Cursor { lease, large: Vec::new(), counters, quarantine, left }
    }

    /// Nothing is left to read.
    pub fn is_read(&self) -> bool {
        matches!(self.left, Left::Nothing) && self.large.is_empty()
    }

    /// The next statement, for about `room` bytes where a row has `row_bytes`.
    pub fn stretch(&mut self, row_bytes: f64, room: usize) -> Option<Stretch> {
        let limit = limit(row_bytes, room);
        match &mut self.left {
            Left::Keys { after: None, hi } => Some(Stretch::FromStart { hi: *hi, limit }),
            Left::Keys { after: Some(lo), hi } => Some(Stretch::After { lo: *lo, hi: *hi, limit }),
            Left::Places { after, hi } => Some(Stretch::Places { after: *after, hi: *hi, limit }),
            Left::Ids(ids) => {
                let ids = ids.split_off(ids.len().saturating_sub(limit as usize));
                Some(Stretch::Ids { ids, max: INLINE_BYTES })
            }
            Left::Nothing => None,
        }
    }

    /// Notes what was read of a stretch.
    pub fn advance(&mut self, stretch: &Stretch, seen: Seen) {
        let to_the_end = stretch.limit().is_some_and(|limit| seen.rows < limit);
        match (&mut self.left, seen.last) {
            (Left::Keys { .. } | Left::Places { .. }, _) if to_the_end => self.left = Left::Nothing,
            (Left::Keys { after, .. }, Some((id, _))) => *after = Some(id),
            (Left::Places { after, .. }, Some((_, tid))) => *after = tid,
            (Left::Ids(ids), _) if ids.is_empty() => self.left = Left::Nothing,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_fetches_little_more_than_there_is_room_for() {
        for room in [0, 1 << 20, 6 << 20, 24 << 20, 1 << 30] {
            for row_bytes in [0.0, 100.0, 600.0, 8192.0, 1e9] {
                let rows = limit(row_bytes, room);
                assert!((16..=READ_ROWS).contains(&rows), "{rows} rows of {row_bytes} in {room}");
                assert!(rows as usize * INLINE_BYTES as usize <= room.max(LEAST), "{rows} rows in {room}");
            }
        }
        assert_eq!(limit(64.0, 24 << 20), READ_ROWS);
    }
}
