//! One row as read, and what is to become of it; and reading whole stretches, large values included.
//!
//! Values that are too large to be read with their neighbours are put aside, and read a few at a time, by the way that they
//! were met: what was met by place is read by place, so that none is missed that no index leads to. That rule stands here and
//! nowhere else. Nothing here writes.

use sqlx::PgConnection;
use uuid::Uuid;

use super::fault::Fault;
use crate::crypto::{IvSource, Outcome, Rewrapper, Scratch, Unreadable};
use crate::rotation::{QuarantineReason, Tid};
use crate::store::ledger::quarantine::BadRow;
use crate::store::rows::{self, MAX_ROW_BYTES, Seen, Stretch, Write};
use crate::store::{StoreError, Xid};

/// One row, decided.
pub enum Rewrapped {
    /// To be written.
    Move(Write),
    /// Already where it should be.
    OnTarget { id: Uuid, xmin: Xid },
    /// No credential.
    Null { id: Uuid, xmin: Xid },
    /// For the quarantine.
    Bad(BadRow),
}

impl Rewrapped {
    /// The row.
    pub fn id(&self) -> Uuid {
        match self {
            Rewrapped::Move(write) => write.id,
            Rewrapped::OnTarget { id, .. } | Rewrapped::Null { id, .. } => *id,
            Rewrapped::Bad(row) => row.id,
        }
    }
}

/// Re-encrypts rows: what one task needs beside the keys. Plaintext is wiped after every row.
pub struct Recrypt {
    scratch: Scratch,
    ivs: IvSource,
}

impl Recrypt {
    /// With buffers and IVs of its own.
    pub fn new() -> Recrypt {
        Recrypt { scratch: Scratch::default(), ivs: IvSource::new() }
    }

    /// Decides one row as read.
    pub fn row(&mut self, keys: &Rewrapper, row: rows::Read<'_>) -> Result<Rewrapped, Fault> {
        let (id, xmin, on_page) = (row.id, row.xmin, row.on_page());
        let Some(length) = row.length else { return Ok(Rewrapped::Null { id, xmin }) };
        let bad = |reason| Rewrapped::Bad(BadRow { id, reason, length });
        let Some(envelope) = row.envelope else {
            let damaged = row.damaged;
            return Ok(bad(if damaged { QuarantineReason::Damaged } else { QuarantineReason::TooLarge }));
        };
        let iv = self.ivs.fill()?;
        Ok(match keys.rewrap(&mut self.scratch, id.as_bytes(), envelope, &iv)? {
            Outcome::Reencrypted { envelope: new, tag } => {
                let mut iv = [0; 12];
                iv.copy_from_slice(&envelope[..12]);
                Rewrapped::Move(Write { id, tid: row.tid, on_page, xmin, iv, envelope: new, tag })
            }
            Outcome::OnTarget => Rewrapped::OnTarget { id, xmin },
            Outcome::Unreadable(Unreadable::Empty) => bad(QuarantineReason::Empty),
            Outcome::Unreadable(Unreadable::TooShort { .. }) => bad(QuarantineReason::TooShort),
            Outcome::Unreadable(Unreadable::NeitherKey) => bad(QuarantineReason::NeitherKey),
        })
    }
}

/// A row and how many bytes its value has.
pub type PutAside<T = Uuid> = (T, usize);

/// A row as it was met: by id, and at its place.
pub type Met = (Uuid, Tid);

/// Reads a stretch without its large values, which are put aside.
pub async fn read_small<E: From<StoreError>>(
    conn: &mut PgConnection,
    stretch: &Stretch,
    mut each: impl FnMut(rows::Read<'_>) -> Result<(), E>,
) -> Result<(Seen, Vec<PutAside<Met>>), E> {
    let mut large = Vec::new();
    let seen = rows::read(conn, stretch, |row| match row.left_out(stretch.max()) {
        Some(bytes) => {
            large.push(((row.id, row.tid), bytes));
            Ok(())
        }
        None => each(row),
    })
    .await?;
    Ok((seen, large))
}

/// Reads rows whose values may be as large as any.
pub async fn read_large<E: From<StoreError>>(
    conn: &mut PgConnection,
    ids: Vec<Uuid>,
    each: impl FnMut(rows::Read<'_>) -> Result<(), E>,
) -> Result<Seen, E> {
    rows::read(conn, &Stretch::Ids { ids, max: MAX_ROW_BYTES }, each).await
}

/// Reads a stretch: first what is small, then the large values, about `budget` bytes a statement.
pub async fn read_whole<E: From<StoreError>>(
    conn: &mut PgConnection,
    stretch: &Stretch,
    budget: usize,
    mut each: impl FnMut(rows::Read<'_>) -> Result<(), E>,
) -> Result<Seen, E> {
    let (seen, large) = read_small(conn, stretch, &mut each).await?;
    for group in by_bytes(large, budget) {
        rows::read(conn, &stretch.some(&group, MAX_ROW_BYTES), &mut each).await?;
    }
    Ok(seen)
}

/// Groups rows so that each group's bytes stay within `limit`; every group has at least one row.
pub fn by_bytes<T>(rows: impl IntoIterator<Item = PutAside<T>>, limit: usize) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for (id, bytes) in rows {
        match groups.last_mut().filter(|_| bytes <= room) {
            Some(group) => group.push(id),
            None => {
                groups.push(vec![id]);
                room = limit.max(bytes);
            }
        }
        room -= bytes.min(room);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_within_their_bytes() {
        let rows = [5, 5, 1, 20, 3].map(|b| (Uuid::now_v7(), b));
        let groups = by_bytes(rows, 10);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert!(by_bytes::<Uuid>([], 10).is_empty());
    }
}
