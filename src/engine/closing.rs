//! The closing proof: one statement over one snapshot that shows no row is left on the source key.
//!
//! Rows older than H were seen by the pass, rows of our own batches are on the target key; what the statement
//! returns is exactly what anyone else wrote since. Each is opened. None on the source key is an exact statement
//! about that instant. Beside user triggers, which may write in our batches too, the statement returns our own rows as well.
//! After a walk over the whole table it returns older rows too that rekey did not write: the pass should have moved or
//! quarantined them, unless they were on the target key, and by id, which not every index leads to.
//! Quarantined rows are looked at again as well: they may have been repaired, or be gone.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::SharedJob;
use super::fault::Fault;
use super::row::{PutAside, Recrypt, Rewrapped, by_bytes, read_large};
use crate::rotation::{
    Addressing, Conclusion, Counters, Direction, PassKind, Proven, QuarantineReason, State, Stragglers,
};
use crate::store::closing::{Taker, read_foreign};
use crate::store::ledger::chunk::{self, Checkpoint};
use crate::store::ledger::quarantine::{self, BadRow, Entry};
use crate::store::ledger::{Lease, Pass, pass, rotation};
use crate::store::rows::{self, INLINE_BYTES, MAX_ROW_BYTES};
use crate::store::{FullXid, Purpose, Statement, StoreError, Xid, audit};

/// More stragglers than this, 16 bytes each, are walked to, not listed; likewise rows for the quarantine.
const MAX_LISTED: usize = 1_000_000;
/// So many rows that were put aside are dealt with while others are still to come.
const PUT_ASIDE: usize = 20_000;
/// So many entries of the quarantine that are settled are removed while others are still to come.
const SETTLED: usize = 100_000;

/// Sorts rows by what is to be done about them.
#[derive(Default)]
struct Sorted {
    stragglers: Vec<Uuid>,
    bad: Vec<BadRow>,
    /// The same of rows that nobody has written since the pass began, until the quarantine was looked at: what is there is
    /// known.
    left_alone: LeftAlone,
    /// Rows on the target key; not kept by the proof itself, which may meet any number of them.
    fine: Option<Vec<Uuid>>,
    too_many: bool,
}

/// Rows that the pass should have moved, or put into quarantine.
#[derive(Default)]
struct LeftAlone {
    stragglers: BTreeSet<Uuid>,
    bad: BTreeMap<Uuid, BadRow>,
}

/// Carries out the closing proof under the lease of its chunk, and concludes the pass.
pub async fn prove(job: &SharedJob, conn: &mut PgConnection, lease: &Lease) -> Result<(), Fault> {
    let pass = lease.pass();
    let next_horizon = pass::take_horizon(conn).await?;

    // Where a value is damaged, once more without any: they are read by themselves then.
    let mut met = Met::new(job, pass, INLINE_BYTES);
    let filenode = loop {
        match read_foreign(conn, pass, met.max, &mut met).await {
            Err(Fault::Store(error)) if error.is_damage() && met.max == INLINE_BYTES => {
                met = Met::new(job, pass, -1);
            }
            filenode => break filenode?,
        }
    };
    while met.settle_some(conn).await? || !met.large.is_empty() {}
    let Met { mut sorted, written_since, mut recrypt, .. } = met;
    let settled = look_at_quarantine(job, conn, pass, &mut recrypt, &mut sorted, &written_since).await?;
    sorted.take_left_alone();

    let by_blocks = pass.addressing == Addressing::Blocks && pass.kind == PassKind::Full;
    let proven = Proven {
        horizon_usable: pass::horizon_is_usable(conn, pass).await?,
        rewritten: by_blocks && filenode != pass.filenode,
        stragglers: sorted.how_many(),
        sweeps: pass.sweeps,
        max_sweeps: job.settings.max_sweeps,
    };
    if !proven.horizon_usable {
        tracing::warn!(
            "The transaction horizon of this pass is too old or from another server; reading the \
            table again"
        );
    } else if proven.rewritten {
        tracing::warn!(
            "The table was rewritten during this pass (VACUUM FULL, CLUSTER or a restore); reading it again"
        );
    }
    conclude(job, conn, lease, next_horizon, proven.conclusion(), sorted, &settled).await
}

/// What the proof has met, while others are still to come.
struct Met<'a> {
    job: &'a SharedJob,
    pass: &'a Pass,
    horizon: Xid,
    /// Longer values are put aside.
    max: i32,
    recrypt: Recrypt,
    sorted: Sorted,
    written_since: HashSet<Uuid>,
    large: Vec<PutAside>,
    /// The same, to be read now: the rows of one statement together.
    groups: Vec<Vec<Uuid>>,
    /// Deals with what was put aside, beside the proof's own snapshot.
    aside: Option<PgConnection>,
}

impl Met<'_> {
    fn new<'a>(job: &'a SharedJob, pass: &'a Pass, max: i32) -> Met<'a> {
        let (recrypt, sorted, written_since) = (Recrypt::new(), Sorted::default(), HashSet::new());
        let (horizon, large, groups, aside) = (pass.horizon_xid(), Vec::new(), Vec::new(), None);
        Met { job, pass, horizon, max, recrypt, sorted, written_since, large, groups, aside }
    }

    /// Reads some of the values that were put aside; whether there are more.
    async fn settle_some(&mut self, conn: &mut PgConnection) -> Result<bool, Fault> {
        if self.groups.is_empty() {
            self.groups = by_bytes(std::mem::take(&mut self.large), MAX_ROW_BYTES as usize);
            self.forget_known(conn).await?;
        }
        if let Some(group) = self.groups.pop() {
            let (recrypt, sorted, horizon) = (&mut self.recrypt, &mut self.sorted, self.horizon);
            read_large(conn, group, |row| {
                let old = row.xmin.precedes(horizon);
                let row = recrypt.row(&self.job.rewrapper, row)?;
                if old {
                    sorted.take_old(row)
                } else {
                    sorted.take(row)
                }
                Ok::<(), Fault>(())
            })
            .await?;
        }
        Ok(!self.groups.is_empty())
    }

    /// What the quarantine has is looked at by itself.
    async fn forget_known(&mut self, conn: &mut PgConnection) -> Result<(), Fault> {
        let left_alone = &mut self.sorted.left_alone;
        let bad: Vec<Uuid> = left_alone.bad.keys().copied().collect();
        for part in bad.chunks(PUT_ASIDE) {
            for id in quarantine::listed_among(conn, self.pass.rotation, part).await? {
                left_alone.bad.remove(&id);
            }
        }
        Ok(())
    }
}

impl Taker for Met<'_> {
    type Error = Fault;

    fn take(&mut self, row: rows::Read<'_>) -> Result<bool, Fault> {
        let old = row.xmin.precedes(self.horizon);
        let room = !old && self.written_since.len() < MAX_LISTED;
        if let Some(bytes) = row.left_out(self.max) {
            self.large.push((row.id, bytes));
            self.written_since.extend(room.then_some(row.id));
            return Ok(true);
        }
        let row = self.recrypt.row(&self.job.rewrapper, row)?;
        let (id, moves) = (row.id(), matches!(row, Rewrapped::Move(_)));
        match old {
            true => self.sorted.take_old(row),
            false => {
                self.written_since.extend((moves && room).then_some(id));
                self.sorted.take(row);
            }
        }
        Ok(moves)
    }

    async fn rest(&mut self) -> Result<bool, Fault> {
        let put_aside = self.large.len() + self.sorted.left_alone.bad.len();
        if self.groups.is_empty() && put_aside < PUT_ASIDE {
            return Ok(false);
        }
        let mut conn = match self.aside.take() {
            Some(conn) => conn,
            None => self.job.connector.connect(Purpose::Control).await?,
        };
        let more = self.settle_some(&mut conn).await?;
        self.aside = Some(conn);
        Ok(more)
    }
}

/// Opens every quarantined row again; returns those that are fine now, or gone.
async fn look_at_quarantine(
    job: &SharedJob,
    conn: &mut PgConnection,
    pass: &Pass,
    recrypt: &mut Recrypt,
    sorted: &mut Sorted,
    written_since: &HashSet<Uuid>,
) -> Result<Vec<Uuid>, Fault> {
    // What the server rejected is tried once by each run: this proof must not send it round in circles.
    let tried = pass.kind == PassKind::Full || pass.sweeps > 0;
    let spent = |e: &Entry| tried && e.reason == QuarantineReason::Rejected && !written_since.contains(&e.id);
    let (mut settled, mut after) = (Vec::new(), None);
    loop {
        let page = quarantine::page(conn, pass.rotation, after).await?;
        let Some(last) = page.last() else { return Ok(settled) };
        after = Some(last.id);
        let suspects: Vec<Uuid> = page.iter().map(|e| e.id).collect();
        settled.extend(rows::gone(conn, &suspects).await?);
        let mut again = Sorted { fine: Some(Vec::new()), ..Sorted::default() };
        let sizes = page.iter().map(|e| (e.id, e.length.unwrap_or_default().max(512) as usize));
        for group in by_bytes(sizes, MAX_ROW_BYTES as usize) {
            read_large(conn, group, |row| {
                again.take(recrypt.row(&job.rewrapper, row)?);
                Ok::<(), Fault>(())
            })
            .await?;
        }
        settled.extend(sorted.take_up(&page, again, spent));
        if settled.len() > SETTLED {
            quarantine::remove(conn, pass.rotation, &std::mem::take(&mut settled)).await?;
        }
    }
}

/// Carries out what follows, in one transaction with the end of the pass.
async fn conclude(
    job: &SharedJob,
    conn: &mut PgConnection,
    lease: &Lease,
    next_horizon: FullXid,
    conclusion: Conclusion,
    found: Sorted,
    settled: &[Uuid],
) -> Result<(), Fault> {
    const OP: &str = "conclude the pass";
    let (pass, actor) = (lease.pass(), &job.actor);
    let mut tx = conn.begin().during(OP).await?;
    pass::lock_to_conclude(&mut tx, pass).await?;
    let done = Checkpoint { add: Counters::default(), moved: &[], done: true };
    if chunk::checkpoint(&mut tx, lease, &done).await?.is_none() {
        tx.rollback().during("roll back").await?;
        return Err(Fault::LeaseLost);
    }
    quarantine::remove(&mut tx, pass.rotation, settled).await?;
    quarantine::add(&mut tx, pass.rotation, &found.bad, actor).await?;
    quarantine::note_contents(&mut tx, pass.rotation).await?;
    pass::end(&mut tx, pass, conclusion.outcome(), next_horizon).await?;
    match conclusion {
        Conclusion::Clean if pass.direction == Direction::Forward => {
            let detail = json!({ "pass": pass.number, "closing_proof": "clean" });
            rotation::advance(&mut tx, pass.rotation, &[State::Migrating], State::Migrated, actor, detail)
                .await?;
        }
        Conclusion::Clean => {}
        Conclusion::Sweep(pause) => {
            let rows = found.straggling();
            pass::open_sweep(&mut tx, pass, next_horizon, &rows, pause).await?;
        }
        Conclusion::WalkAgain => {
            let (walk, sweeps) = (job.settings.walk, pass.sweeps + 1);
            pass::open_full(&mut tx, pass.rotation, pass.direction, walk, sweeps).await?;
        }
        Conclusion::Unsettled => {
            let detail = json!({ "pass": pass.number });
            audit::append(&mut tx, Some(pass.rotation), "unsettled", actor, detail).await?;
        }
    }
    tx.commit().during(OP).await.map_err(StoreError::into)
}

impl Sorted {
    fn take(&mut self, row: Rewrapped) {
        match row {
            Rewrapped::Move(write) => self.straggler(write.id),
            Rewrapped::OnTarget { id, .. } => self.fine.iter_mut().for_each(|fine| fine.push(id)),
            Rewrapped::Null { .. } => {}
            Rewrapped::Bad(row) if self.bad.len() < MAX_LISTED => self.bad.push(row),
            Rewrapped::Bad(_) => self.too_many = true,
        }
    }

    fn straggler(&mut self, id: Uuid) {
        if self.stragglers.len() < MAX_LISTED {
            self.stragglers.push(id);
        } else {
            self.too_many = true;
        }
    }

    /// A row that nobody has written since the pass began.
    fn take_old(&mut self, row: Rewrapped) {
        match row {
            Rewrapped::Move(write) if self.left_alone.stragglers.len() < MAX_LISTED => {
                self.left_alone.stragglers.insert(write.id);
            }
            Rewrapped::Move(_) => self.too_many = true,
            Rewrapped::Bad(row) if self.left_alone.bad.len() < MAX_LISTED => {
                self.left_alone.bad.insert(row.id, row);
            }
            Rewrapped::Bad(_) => self.too_many = true,
            Rewrapped::OnTarget { .. } | Rewrapped::Null { .. } => {}
        }
    }

    /// What the quarantine does not have was never met.
    fn take_left_alone(&mut self) {
        let LeftAlone { stragglers, bad } = std::mem::take(&mut self.left_alone);
        stragglers.into_iter().for_each(|id| self.straggler(id));
        self.bad.extend(bad.into_values());
    }

    fn how_many(&self) -> Stragglers {
        match (self.too_many, self.stragglers.is_empty()) {
            (true, _) => Stragglers::TooMany,
            (false, false) => Stragglers::Listed,
            (false, true) => Stragglers::None,
        }
    }

    /// The rows to sweep, each once: one that moved while it was looked for may have been met twice.
    fn straggling(mut self) -> Vec<Uuid> {
        self.stragglers.sort_unstable();
        self.stragglers.dedup();
        self.stragglers
    }

    /// Takes over what one page of the quarantine turned out to be, and returns the rows that are fine now. Entries
    /// that are `spent` are not tried again, those that have not changed not recorded again.
    fn take_up(&mut self, page: &[Entry], again: Sorted, spent: impl Fn(&Entry) -> bool) -> Vec<Uuid> {
        let entry = |id: &Uuid| page.binary_search_by_key(id, |e| e.id).ok().map(|at| &page[at]);
        for id in again.stragglers {
            match entry(&id) {
                Some(e) if spent(e) => {}
                _ => self.straggler(id),
            }
        }
        for e in page {
            self.left_alone.stragglers.remove(&e.id);
            self.left_alone.bad.remove(&e.id);
        }
        let news =
            |f: &BadRow| entry(&f.id).is_none_or(|e| e.reason != f.reason || e.length != Some(f.length));
        self.bad.extend(again.bad.into_iter().filter(news));
        again.fine.unwrap_or_default()
    }
}
