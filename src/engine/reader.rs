//! Claims chunks, reads them in short statements outside any transaction, and re-encrypts as rows arrive.
//!
//! Runs ahead of the writer by one segment. A segment is what a worker holds of a chunk at a time: the whole chunk,
//! or less where rows turn out to be large.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::SharedJob;
use super::fault::Fault;
use crate::crypto::{IvSource, Outcome, Rewrapper, Scratch};
use crate::rotation::{Bounds, ChunkSize, Counters, Direction};
use crate::store::ledger::chunk::{self, Owner};
use crate::store::ledger::quarantine::Finding;
use crate::store::ledger::{Addressing, Lease, Pass, pass, proof};
use crate::store::rows::{self, INLINE_BYTES, MAX_ROW_BYTES, READ_ROWS, Stretch, Write};
use crate::store::{Class, StoreError, Xid};

/// Rows of a chunk, re-encrypted and ready to be written.
pub struct Segment {
    /// The right to write them.
    pub lease: Lease,
    /// The rows.
    pub rows: Vec<Write>,
    /// What the chunk's last segment adds when it is done: rows left alone.
    pub counters: Counters,
    /// Rows that open with neither key.
    pub quarantine: Vec<Finding>,
    /// Rows whose bytes are not those that were tagged when they were moved the other way.
    pub other_bytes: Vec<Uuid>,
    /// Nothing of the chunk is left to read.
    pub last: bool,
}

/// What there is to do next.
pub enum Next {
    /// Rows to write.
    Segment(Box<Segment>),
    /// Every chunk is done: prove it.
    Proof(Box<Lease>),
    /// Others hold what is left, or the operator paused: ask again soon.
    Wait,
    /// The pass is over, with this outcome.
    Ended(String),
}

/// Where the reading of a chunk stands.
struct Cursor {
    lease: Lease,
    after: Option<Uuid>,
    block: u32,
    ids: Vec<Uuid>,
    /// Rows met whose values are large, in groups that are read one at a time.
    large: Vec<Vec<Uuid>>,
    /// Nothing but these is left to read.
    walked: bool,
    counters: Counters,
    quarantine: Vec<Finding>,
}

/// Claims and reads for one worker.
pub struct Reader {
    job: SharedJob,
    owner: Owner,
    conn: PgConnection,
    pass: Pass,
    cursor: Option<Cursor>,
    /// Wiped after every row.
    scratch: Scratch,
    ivs: IvSource,
    row_bytes: f64,
}

impl Reader {
    /// A reader on a fresh connection.
    pub fn new(job: SharedJob, owner: Owner, conn: PgConnection, pass: Pass) -> Reader {
        Reader {
            job,
            owner,
            conn,
            pass,
            cursor: None,
            scratch: Scratch::default(),
            ivs: IvSource::new(),
            row_bytes: 600.0,
        }
    }

    /// The next piece of work. On a fault the reader must be dropped with its connection.
    pub async fn next(&mut self) -> Result<Next, Fault> {
        if self.cursor.is_none() {
            match self.claim().await? {
                Ok(lease) if lease.bounds == Bounds::Proof => return Ok(Next::Proof(Box::new(lease))),
                Ok(lease) => self.cursor = Some(Cursor::new(lease)),
                Err(next) => return Ok(next),
            }
        }
        let segment = self.segment().await?;
        Ok(Next::Segment(Box::new(segment)))
    }

    async fn claim(&mut self) -> Result<Result<Lease, Next>, Fault> {
        let (ttl, density) = (self.job.settings.lease_ttl, self.job.settings.rows_per_page);
        if let Some(lease) = chunk::claim(&mut self.conn, &self.pass, &self.owner, ttl).await? {
            return Ok(Ok(lease));
        }
        match chunk::carve(&mut self.conn, &self.pass, &self.owner, ttl, density).await {
            Ok(Some(lease)) => return Ok(Ok(lease)),
            Ok(None) => {}
            // Another worker is carving, or the rotation is being turned round. A statement that took too long is neither.
            Err(e)
                if matches!(e.class(), Class::LockTimeout | Class::Retry)
                    && e.sqlstate().as_deref() != Some("57014") =>
            {
                return Ok(Err(Next::Wait));
            }
            Err(e) => return Err(e.into()),
        }
        let (job, direction) = (&self.job, self.pass.direction);
        let Some(latest) = pass::latest(&mut self.conn, job.rotation, direction).await? else {
            return Err(pass::vanished().into());
        };
        let moved_on = latest.number != self.pass.number;
        self.pass = latest;
        if let (false, Some(outcome)) = (moved_on, &self.pass.outcome) {
            return Ok(Err(Next::Ended(outcome.clone())));
        }
        if !moved_on {
            pass::add_proof(&mut self.conn, &self.pass).await?;
        }
        // Claim again, from the new pass or the proof; where there is nothing, others are at it.
        match chunk::claim(&mut self.conn, &self.pass, &self.owner, ttl).await? {
            Some(lease) => Ok(Ok(lease)),
            None => Ok(Err(Next::Wait)),
        }
    }

    async fn segment(&mut self) -> Result<Segment, Fault> {
        let mut cursor = self.cursor.take().expect("claimed above");
        let budget = self.job.settings.chunk.bytes;
        let mut taken = Taken::default();
        let mut bytes = 0;
        while bytes < budget && !cursor.is_read() {
            let before = taken.rows.len();
            let (keys, scratch, ivs) = (&self.job.rewrapper, &mut self.scratch, &mut self.ivs);
            // Large values before anything else: what is put aside of them is their ids alone.
            if let Some(ids) = cursor.large.pop() {
                rows::read(&mut self.conn, &Stretch::Ids { ids, max: MAX_ROW_BYTES }, |row| {
                    taken.take(keys, scratch, ivs, row)
                })
                .await?;
            } else {
                let density = self.job.settings.rows_per_page;
                let Some(stretch) = cursor.stretch(&self.pass, density, self.row_bytes, budget - bytes)
                else {
                    cursor.walked = true;
                    break;
                };
                let mut large = Vec::new();
                let seen = rows::read(&mut self.conn, &stretch, |row| {
                    cursor.after = Some(row.id);
                    if row.envelope.is_none()
                        && row.length.is_some_and(|l| l > INLINE_BYTES && l <= MAX_ROW_BYTES)
                    {
                        large.push((row.id, row.length.unwrap_or_default() as usize));
                        return Ok(());
                    }
                    taken.take(keys, scratch, ivs, row)
                })
                .await?;
                cursor.walked = cursor.advance(&stretch, seen);
                cursor.large = by_bytes(large, MAX_ROW_BYTES as usize);
                let fresh = &taken.rows[before..];
                if let Some(mean) = fresh.iter().map(|w| w.envelope.len() as f64).reduce(|a, b| a + b) {
                    self.row_bytes = mean / fresh.len() as f64;
                }
            }
            let fresh = &taken.rows[before..];
            bytes += fresh.iter().map(|w| w.envelope.len() + ChunkSize::ROW_OVERHEAD).sum::<usize>();
        }
        let last = cursor.is_read();
        self.count_untouched(&mut cursor, &mut taken).await?;
        let other_bytes = self.compare_tags(&mut taken.rows).await?;
        cursor.quarantine.append(&mut taken.quarantine);
        let (counters, quarantine) =
            if last { (cursor.counters, std::mem::take(&mut cursor.quarantine)) } else { Default::default() };
        let segment = Segment {
            lease: cursor.lease.clone(),
            rows: taken.rows,
            counters,
            quarantine,
            other_bytes,
            last,
        };
        if !last {
            self.cursor = Some(cursor);
        }
        Ok(segment)
    }

    /// Rows left alone count once, and only in the first pass: not those we moved ourselves in an earlier attempt at
    /// this chunk, even if the application has written them again since.
    async fn count_untouched(&mut self, cursor: &mut Cursor, taken: &mut Taken) -> Result<(), StoreError> {
        if !self.pass.first {
            return Ok(());
        }
        let (rotation, direction) = (self.job.rotation, self.pass.direction);
        let xmins: HashSet<Xid> = taken.on_target.iter().map(|(_, xmin)| *xmin).collect();
        let ours = proof::ours(&mut self.conn, rotation, Some(direction), &xmins).await?;
        taken.on_target.retain(|(_, xmin)| !ours.contains(xmin));
        let began = self.pass.horizon_xid();
        let young = taken.on_target.iter().chain(&taken.nulls).filter(|(_, xmin)| !xmin.precedes(began));
        let young: Vec<Uuid> = young.map(|(id, _)| *id).collect();
        let moved = match (self.pass.addressing, self.pass.estimated_rows) {
            // By keys a row stays in its chunk; what is claimed for the first time has no batch yet.
            (Addressing::Keys, _) if cursor.lease.batch_seq == 0 => HashSet::new(),
            (Addressing::Keys, _) => {
                let chunk = Some(cursor.lease.chunk);
                proof::moved(&mut self.conn, rotation, direction, chunk, &young).await?
            }
            (Addressing::Blocks, ..LARGE) => {
                proof::moved(&mut self.conn, rotation, direction, None, &young).await?
            }
            // Too many proofs to search for each chunk. Nobody but us is likely to have written the target key.
            (Addressing::Blocks, _) => young.into_iter().collect(),
        };
        let left_alone =
            |rows: &[(Uuid, Xid)]| rows.iter().filter(|(id, _)| !moved.contains(id)).count() as i64;
        cursor.counters.already_on_key += left_alone(&taken.on_target);
        cursor.counters.null_rows += left_alone(&taken.nulls);
        Ok(())
    }

    /// On the way back: the bytes we return must be those that were tagged on the way out, unless someone else
    /// wrote the row since. One that holds others keeps its tag, so that no later verify takes them for the right ones.
    async fn compare_tags(&mut self, rows: &mut [Write]) -> Result<Vec<Uuid>, StoreError> {
        if self.pass.direction == Direction::Forward {
            return Ok(Vec::new());
        }
        let xmins: HashSet<Xid> = rows.iter().map(|r| r.xmin).collect();
        let xmins: Vec<Xid> = xmins.into_iter().collect();
        let mut wrong = Vec::new();
        // A few batches at a time: their tags are in memory together.
        for part in xmins.chunks(256) {
            let part: HashSet<Xid> = part.iter().copied().collect();
            let tags =
                proof::tags_of(&mut self.conn, self.job.rotation, Some(Direction::Forward), &part).await?;
            for row in rows.iter_mut() {
                if let Some(tag) = tags.get(&(row.xmin, row.id)).filter(|tag| **tag != row.tag) {
                    row.tag = *tag;
                    wrong.push(row.id);
                }
            }
        }
        Ok(wrong)
    }
}

/// A table of this many rows has too many proofs to be searched by row for every chunk.
const LARGE: i64 = 5_000_000;

/// What reading has found so far.
#[derive(Default)]
struct Taken {
    rows: Vec<Write>,
    on_target: Vec<(Uuid, Xid)>,
    nulls: Vec<(Uuid, Xid)>,
    quarantine: Vec<Finding>,
}

impl Taken {
    fn take(
        &mut self,
        keys: &Rewrapper,
        scratch: &mut Scratch,
        ivs: &mut IvSource,
        row: rows::Read<'_>,
    ) -> Result<(), Fault> {
        match rewrap(keys, scratch, ivs, row)? {
            Rewrapped::Move(write) => self.rows.push(write),
            Rewrapped::OnTarget { id, xmin } => self.on_target.push((id, xmin)),
            Rewrapped::Null { id, xmin } => self.nulls.push((id, xmin)),
            Rewrapped::Bad(finding) => self.quarantine.push(finding),
        }
        Ok(())
    }
}

/// One row, decided.
pub enum Rewrapped {
    /// To be written.
    Move(Write),
    /// Already where it should be.
    OnTarget { id: Uuid, xmin: Xid },
    /// No credential.
    Null { id: Uuid, xmin: Xid },
    /// For the quarantine.
    Bad(Finding),
}

/// Decides one row as read.
pub fn rewrap(
    keys: &Rewrapper,
    scratch: &mut Scratch,
    ivs: &mut IvSource,
    row: rows::Read<'_>,
) -> Result<Rewrapped, Fault> {
    let Some(length) = row.length else { return Ok(Rewrapped::Null { id: row.id, xmin: row.xmin }) };
    let Some(envelope) = row.envelope else {
        let reason = if row.damaged { "damaged" } else { "too_large" };
        return Ok(Rewrapped::Bad(Finding { id: row.id, reason, length }));
    };
    let iv = ivs.fill()?;
    Ok(match keys.rewrap(scratch, row.id.as_bytes(), envelope, &iv)? {
        Outcome::Reencrypted { envelope: new, tag } => {
            let mut iv = [0; 12];
            iv.copy_from_slice(&envelope[..12]);
            Rewrapped::Move(Write { id: row.id, tid: row.tid, xmin: row.xmin, iv, envelope: new, tag })
        }
        Outcome::OnTarget => Rewrapped::OnTarget { id: row.id, xmin: row.xmin },
        Outcome::Unreadable(why) => Rewrapped::Bad(Finding { id: row.id, reason: why.as_str(), length }),
    })
}

/// Groups rows so that each group's bytes stay within `limit`; every group has at least one row.
pub fn by_bytes(rows: Vec<(Uuid, usize)>, limit: usize) -> Vec<Vec<Uuid>> {
    let mut groups: Vec<Vec<Uuid>> = Vec::new();
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

impl Cursor {
    fn new(lease: Lease) -> Cursor {
        let (block, ids) = match &lease.bounds {
            Bounds::Blocks { lo, .. } => (*lo, Vec::new()),
            Bounds::Ids(ids) => (0, ids.clone()),
            _ => (0, Vec::new()),
        };
        let after = match &lease.bounds {
            Bounds::Keys { lo, .. } => *lo,
            _ => None,
        };
        Cursor {
            lease,
            after,
            block,
            ids,
            large: Vec::new(),
            walked: false,
            counters: Counters::default(),
            quarantine: Vec::new(),
        }
    }

    fn is_read(&self) -> bool {
        self.walked && self.large.is_empty()
    }

    /// The next statement; `None` when the chunk is read.
    fn stretch(&mut self, _pass: &Pass, density: f64, row_bytes: f64, room: usize) -> Option<Stretch> {
        let rows = ((room as f64 / row_bytes.max(64.0)) as i64).clamp(16, READ_ROWS);
        match &self.lease.bounds {
            Bounds::Keys { hi, .. } => {
                let hi = hi.unwrap_or(Uuid::max());
                Some(match self.after {
                    None => Stretch::FromStart { hi, limit: rows },
                    Some(lo) => Stretch::After { lo, hi, limit: rows },
                })
            }
            Bounds::Blocks { hi, .. } if self.block < *hi => {
                let blocks = ((rows as f64 / density.max(1.0)) as u32).max(1);
                Some(Stretch::Blocks { lo: self.block, hi: hi.min(&(self.block + blocks)).to_owned() })
            }
            Bounds::Ids(_) if !self.ids.is_empty() => {
                let at = self.ids.len().saturating_sub(rows as usize);
                Some(Stretch::Ids { ids: self.ids.split_off(at), max: INLINE_BYTES })
            }
            _ => None,
        }
    }

    /// Notes what was read; true when nothing is left.
    fn advance(&mut self, stretch: &Stretch, seen: i64) -> bool {
        match stretch {
            Stretch::FromStart { limit, .. } | Stretch::After { limit, .. } => seen < *limit,
            Stretch::Blocks { hi, .. } => {
                self.block = *hi;
                matches!(self.lease.bounds, Bounds::Blocks { hi: end, .. } if *hi >= end)
            }
            Stretch::Ids { .. } => self.ids.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_within_their_bytes() {
        let rows: Vec<_> = [5, 5, 1, 20, 3].map(|b| (Uuid::now_v7(), b)).into();
        let groups = by_bytes(rows, 10);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert!(by_bytes(Vec::new(), 10).is_empty());
    }
}
