//! Claims chunks, reads them in short statements outside any transaction, and re-encrypts as rows arrive.
//!
//! Runs ahead of the writer by one segment. A segment is what a worker holds of a chunk at a time: the whole chunk,
//! or less where rows turn out to be large.

mod cursor;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use uuid::Uuid;

use super::SharedJob;
use super::fault::Fault;
use super::heartbeat::Over;
use super::row::{Recrypt, Rewrapped, by_bytes, read_small};
use crate::rotation::{Addressing, Bounds, ChunkSize, Counters, Direction};
use crate::store::ledger::quarantine::BadRow;
use crate::store::ledger::{Lease, Owner, Pass, chunk, claim, pass, proof};
use crate::store::rows::{self, MAX_ROW_BYTES, Write};
use crate::store::{Class, StoreError, Xid};
use cursor::Cursor;

/// Rows of a chunk, re-encrypted and ready to be written.
pub struct Segment {
    /// The right to write them.
    pub lease: Lease,
    /// The rows.
    pub rows: Vec<Write>,
    /// What the chunk's last segment adds when it is done: rows left alone.
    pub counters: Counters,
    /// Rows that open with neither key.
    pub quarantine: Vec<BadRow>,
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
    /// The pass is over.
    Ended(Over),
}

/// What a claim came to.
enum Claim {
    Leased(Lease),
    /// Others hold what is left.
    Nothing,
    Ended(Over),
}

/// Claims and reads for one worker.
pub struct Reader {
    job: SharedJob,
    owner: Owner,
    conn: PgConnection,
    pass: Pass,
    cursor: Option<Cursor>,
    /// The chunk claimed last: whatever was before it was done, or others had it.
    above: i64,
    /// When a claim came to nothing, if the last one did.
    waits: Option<Instant>,
    /// When postponed rows were taken up before their time.
    taken_up: Option<Instant>,
    /// When chunks before that one were looked at last: their owners may have died since.
    looked_back: Option<Instant>,
    recrypt: Recrypt,
    /// Bytes of a credential, as those read last had them.
    row_bytes: f64,
}

impl Reader {
    /// A reader on a fresh connection.
    pub fn new(job: SharedJob, owner: Owner, conn: PgConnection, pass: Pass) -> Reader {
        let recrypt = Recrypt::new();
        Reader {
            job,
            owner,
            conn,
            pass,
            cursor: None,
            above: 0,
            waits: None,
            taken_up: None,
            looked_back: None,
            recrypt,
            row_bytes: 600.0,
        }
    }

    /// The next piece of work. On a fault the reader must be dropped with its connection.
    pub async fn next(&mut self) -> Result<Next, Fault> {
        let cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => match self.claim().await? {
                Claim::Leased(lease) if *lease.bounds() == Bounds::Proof => {
                    return Ok(Next::Proof(Box::new(lease)));
                }
                Claim::Leased(lease) => Cursor::new(lease),
                Claim::Nothing => return Ok(Next::Wait),
                Claim::Ended(over) => return Ok(Next::Ended(over)),
            },
        };
        let segment = self.segment(cursor).await?;
        Ok(Next::Segment(Box::new(segment)))
    }

    async fn claim(&mut self) -> Result<Claim, Fault> {
        if self.waits.is_some_and(|since| since.elapsed() < ALL_THE_SAME) && !self.is_worth_a_claim().await? {
            return Ok(Claim::Nothing);
        }
        let claim = self.claim_anything().await?;
        self.waits = matches!(claim, Claim::Nothing).then(Instant::now);
        Ok(claim)
    }

    /// What whoever waits asks again and again. The application's table is looked at where rows were postponed only.
    async fn is_worth_a_claim(&mut self) -> Result<bool, StoreError> {
        let (worth, postponed) = chunk::look_for_work(&mut self.conn, &self.pass).await?;
        // Rows that several transactions hold together look free: they were taken up in vain.
        let patient = self.taken_up.is_some_and(|at| at.elapsed() < TAKEN_UP);
        if worth || !postponed || patient {
            return Ok(worth);
        }
        let Some(freed) = chunk::look_free_again(&mut self.conn, &self.pass).await? else { return Ok(false) };
        self.taken_up = Some(Instant::now());
        chunk::put_off_no_longer(&mut self.conn, &freed).await?;
        Ok(true)
    }

    async fn claim_anything(&mut self) -> Result<Claim, Fault> {
        let (ttl, density) = (self.job.settings.lease_ttl, self.job.settings.rows_per_page);
        let back = self.looked_back.is_none_or(|at| at.elapsed() > LOOK_BACK);
        if let Some(lease) = self.claim_open(back).await? {
            return Ok(Claim::Leased(lease));
        }
        match claim::carve(&mut self.conn, &self.pass, &self.owner, ttl, density).await {
            Ok(Some(lease)) => {
                self.above = lease.chunk();
                return Ok(Claim::Leased(lease));
            }
            Ok(None) => {}
            // Another worker is carving, or the rotation is being rolled back.
            Err(e) if matches!(e.class(), Class::LockTimeout | Class::Retry) => return Ok(Claim::Nothing),
            Err(e) => return Err(e.into()),
        }
        let (job, direction) = (&self.job, self.pass.direction);
        let Some(latest) = pass::latest(&mut self.conn, job.rotation, direction).await? else {
            return Err(pass::vanished().into());
        };
        let moved_on = latest.number != self.pass.number;
        self.pass = latest;
        if let (false, Some(outcome)) = (moved_on, self.pass.outcome) {
            return Ok(Claim::Ended(Over { pass: self.pass.number, outcome }));
        }
        if !moved_on {
            pass::add_proof(&mut self.conn, &self.pass).await?;
        }
        // Claim again, from the new pass or the proof.
        let claimed = self.claim_open(true).await?;
        Ok(claimed.map_or(Claim::Nothing, Claim::Leased))
    }

    /// Claims what is open, from the beginning or behind what was claimed last.
    async fn claim_open(&mut self, back: bool) -> Result<Option<Lease>, StoreError> {
        let above = if back { 0 } else { self.above };
        let ttl = self.job.settings.lease_ttl;
        let claimed = claim::claim_above(&mut self.conn, &self.pass, &self.owner, ttl, above).await?;
        if back {
            self.looked_back = Some(Instant::now());
        }
        if let Some(lease) = &claimed {
            self.above = lease.chunk();
        }
        Ok(claimed)
    }

    async fn segment(&mut self, mut cursor: Cursor) -> Result<Segment, Fault> {
        let budget = self.job.settings.chunk.bytes;
        let mut found = Found::default();
        let mut bytes = 0;
        while bytes < budget && !cursor.is_read() {
            let before = found.rows.len();
            let (keys, recrypt) = (&self.job.rewrapper, &mut self.recrypt);
            // Large values before anything else: what is put aside of them is their ids alone.
            if let Some(stretch) = cursor.large.pop() {
                rows::read(&mut self.conn, &stretch, |row| found.take(recrypt.row(keys, row)?)).await?;
            } else {
                let Some(stretch) = cursor.stretch(self.row_bytes, budget - bytes) else { break };
                let each = |row: rows::Read<'_>| found.take(recrypt.row(keys, row)?);
                let (seen, large) = read_small(&mut self.conn, &stretch, each).await?;
                cursor.advance(&stretch, seen);
                let groups = by_bytes(large, MAX_ROW_BYTES as usize);
                cursor.large = groups.iter().map(|group| stretch.some(group, MAX_ROW_BYTES)).collect();
                let fresh = &found.rows[before..];
                if !fresh.is_empty() {
                    let sum: usize = fresh.iter().map(|w| w.envelope.len()).sum();
                    self.row_bytes = sum as f64 / fresh.len() as f64;
                }
            }
            let fresh = &found.rows[before..];
            bytes += fresh.iter().map(|w| w.envelope.len() + ChunkSize::ROW_OVERHEAD).sum::<usize>();
        }
        let last = cursor.is_read();
        self.count_untouched(&mut cursor, &mut found).await?;
        let other_bytes = self.compare_tags(&mut found.rows).await?;
        cursor.quarantine.append(&mut found.quarantine);
        let (counters, quarantine) =
            if last { (cursor.counters, std::mem::take(&mut cursor.quarantine)) } else { Default::default() };
        let lease = cursor.lease.clone();
        if !last {
            self.cursor = Some(cursor);
        }
        Ok(Segment { lease, rows: found.rows, counters, quarantine, other_bytes, last })
    }

    /// Unchanged rows count once, and only in the first pass; not those that rekey re-encrypted in an earlier attempt at
    /// this chunk, even if the application has written them again since.
    async fn count_untouched(&mut self, cursor: &mut Cursor, found: &mut Found) -> Result<(), StoreError> {
        if !self.pass.first {
            return Ok(());
        }
        let (rotation, direction) = (self.job.rotation, self.pass.direction);
        let xmins: HashSet<Xid> = found.on_target.iter().map(|(_, xmin)| *xmin).collect();
        let ours = proof::ours(&mut self.conn, rotation, Some(direction), &xmins).await?;
        found.on_target.retain(|(_, xmin)| !ours.contains(xmin));
        let began = self.pass.horizon_xid();
        let young = found.on_target.iter().chain(&found.nulls).filter(|(_, xmin)| !xmin.precedes(began));
        let young: Vec<Uuid> = young.map(|(id, _)| *id).collect();
        let moved = match self.pass.addressing {
            // By keys a row stays in its chunk; what is claimed for the first time has no batch yet.
            Addressing::Keys if cursor.lease.batch_seq() == 0 => HashSet::new(),
            Addressing::Keys => {
                let chunk = Some(cursor.lease.chunk());
                proof::moved(&mut self.conn, rotation, direction, chunk, &young).await?
            }
            // Too many proofs to search for each chunk. Most likely rekey wrote every row on the target key.
            Addressing::Blocks if self.pass.estimated_rows > SEARCHABLE => young.into_iter().collect(),
            Addressing::Blocks => proof::moved(&mut self.conn, rotation, direction, None, &young).await?,
        };
        let left_alone =
            |rows: &[(Uuid, Xid)]| rows.iter().filter(|(id, _)| !moved.contains(id)).count() as i64;
        cursor.counters.already_on_key += left_alone(&found.on_target);
        cursor.counters.null_rows += left_alone(&found.nulls);
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

/// How often a claim is tried although nothing looks worth one.
const ALL_THE_SAME: Duration = Duration::from_secs(10);

/// How often postponed rows are taken up before their time.
const TAKEN_UP: Duration = Duration::from_secs(3);

/// How often chunks before the one claimed last are looked at.
const LOOK_BACK: Duration = Duration::from_secs(2);

/// A table of more rows than this has too many proofs to be searched by row for every chunk.
const SEARCHABLE: i64 = 5_000_000;

/// What reading has found so far.
#[derive(Default)]
struct Found {
    rows: Vec<Write>,
    on_target: Vec<(Uuid, Xid)>,
    nulls: Vec<(Uuid, Xid)>,
    quarantine: Vec<BadRow>,
}

impl Found {
    fn take(&mut self, row: Rewrapped) -> Result<(), Fault> {
        match row {
            Rewrapped::Move(write) => self.rows.push(write),
            Rewrapped::OnTarget { id, xmin } => self.on_target.push((id, xmin)),
            Rewrapped::Null { id, xmin } => self.nulls.push((id, xmin)),
            Rewrapped::Bad(row) => self.quarantine.push(row),
        }
        Ok(())
    }
}
