//! Writes a segment: wave by wave, batch by batch, each batch one transaction whose last statement is the checkpoint.

mod batch;
mod contested;

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use batch::{Batch, Begin};
use contested::{Contested, Left};

use super::SharedJob;
use super::fault::Fault;
use super::gate::{Gate, Lookout};
use super::reader::Segment;
use super::row::{Recrypt, by_bytes};
use crate::rotation::{BatchServo, BatchTiming, Counters, Desired, deal, next_slice};
use crate::store::connect::jitter;
use crate::store::ledger::Lease;
use crate::store::ledger::chunk::{self, Checkpoint, Noted};
use crate::store::ledger::quarantine::{self, BadRow};
use crate::store::rows::{self, Write};
use crate::store::{Class, Statement, StoreError, audit, waits};

/// Bytes of new ciphertext in one transaction, beyond its first row. Values out of line weigh more than their locks show:
/// more and shorter waves leave more pages that can be pruned in time (benches/README.md).
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Writes for one worker.
pub struct Writer {
    job: SharedJob,
    conn: PgConnection,
    /// See [`Connector::begin_batch`](crate::store::Connector::begin_batch).
    begin: String,
    servo: BatchServo,
    recrypt: Recrypt,
    gate: Gate,
    /// Races lost since the last commit.
    lost: i64,
    /// A batch was committed since the last query.
    committed: bool,
    /// Batches in a row that met a lock they could not wait for.
    locked: u32,
    /// This worker is the one that tries whether the table is still locked.
    locked_out: Option<Lookout>,
    /// What the chunk's contested rows turned out to be, until its last segment finishes it.
    left: Left,
}

/// How one transaction went.
enum Wrote {
    /// Everything is in.
    All,
    /// Some rows have changed since they were read, or another session holds them: nothing was committed.
    Contested,
}

impl Writer {
    /// A writer on a fresh connection.
    pub fn new(job: SharedJob, conn: PgConnection, gate: Gate) -> Writer {
        let servo = BatchServo::new(job.settings.batch_rows, MAX_BATCH_BYTES, job.settings.lock_target);
        let left = Left::default();
        let begin = job.connector.begin_batch();
        let (recrypt, locked_out) = (Recrypt::new(), None);
        Writer {
            job,
            conn,
            begin,
            servo,
            recrypt,
            gate,
            lost: 0,
            committed: false,
            locked: 0,
            locked_out,
            left,
        }
    }

    /// Whether a batch was committed since this was asked last.
    pub fn has_committed(&mut self) -> bool {
        std::mem::take(&mut self.committed)
    }

    /// Writes a segment and, if it is the chunk's last, finishes the chunk. On a fault other than `Yield` and
    /// `LeaseLost` the connection must be dropped.
    pub async fn write(&mut self, segment: &mut Segment) -> Result<(), Fault> {
        if !segment.other_bytes.is_empty() {
            self.report_other_bytes(segment).await?;
        }
        let most = self.gate.batch_rows(self.servo.rows());
        let dealt = deal(&mut segment.rows, most, self.servo.bytes());
        let (mut contested, mut seen) = (Vec::new(), Contested::new());
        for mut wave in dealt.waves {
            while !wave.is_empty() {
                let most = self.gate.batch_rows(self.servo.rows()).min(dealt.batch_rows);
                let slice = next_slice(&segment.rows, &wave, most, self.servo.bytes());
                wave.start = slice.end;
                self.gate.pass(slice.len()).await?;
                // Rows that others hold, one here and one there, are no reason to wait.
                while self.locked > 2
                    && waits::is_table_locked(&mut self.conn, &self.gate.crew.backends()).await?
                {
                    self.gate.crew.stuck(segment.lease.owner().worker, Vec::new());
                    self.wait_in_line().await?;
                }
                self.locked_out = None;
                let batch = &mut segment.rows[slice];
                match self.commit(&segment.lease, batch).await? {
                    // Room for the segment that is being read meanwhile.
                    Wrote::All => batch.iter_mut().for_each(|row| row.envelope = Vec::new()),
                    Wrote::Contested => {
                        contested.extend(batch.iter().map(|r| (r.id, r.envelope.len())));
                        seen.extend(batch.iter().map(|r| (r.id, contested::Seen::from(r))));
                    }
                }
            }
        }
        // Kept until the chunk is done: a fault before that drops the writer, and the chunk is read again.
        let mut left = std::mem::take(&mut self.left);
        for group in by_bytes(contested, MAX_BATCH_BYTES) {
            self.contend(&segment.lease, group, &seen, &mut left).await?;
        }
        if !segment.last {
            self.left = left;
            return Ok(());
        }
        segment.quarantine.append(&mut left.quarantine);
        let mut add = segment.counters;
        if segment.lease.pass().first {
            add += left.counters;
        }
        self.finish(&segment.lease, add, &segment.quarantine, &left.put_off).await
    }

    fn go_on(&self) -> Result<(), Fault> {
        if self.gate.is_open() { Ok(()) } else { Err(Fault::Yield) }
    }

    /// One transaction over rows that are probably uncontested.
    async fn commit(&mut self, lease: &Lease, batch: &[Write]) -> Result<Wrote, Fault> {
        let (mut tries, since) = (0, Instant::now());
        let patience = self.job.connector.retry_for;
        loop {
            match self.attempt(lease, batch).await {
                Ok(done) => return Ok(done),
                Err(Fault::Store(e))
                    if matches!(e.class(), Class::LockTimeout | Class::TookTooLong | Class::Data) =>
                {
                    self.job.metrics.retry(e.sqlstate());
                    self.roll_back().await?;
                    self.locked += u32::from(e.class() == Class::LockTimeout);
                    return Ok(Wrote::Contested);
                }
                Err(Fault::Store(e))
                    if e.class() == Class::Retry && tries < 20 && since.elapsed() < patience =>
                {
                    tries += 1;
                    self.job.metrics.retry(e.sqlstate());
                    tracing::debug!(error = %e, tries, "batch rolled back, trying again");
                    self.roll_back().await?;
                    tokio::time::sleep(jitter(Duration::from_millis(20 << tries.min(7)))).await;
                    self.go_on()?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn roll_back(&mut self) -> Result<(), StoreError> {
        rows::roll_back(&mut self.conn, self.job.connector.answer_limit()).await
    }

    async fn attempt(&mut self, lease: &Lease, rows: &[Write]) -> Result<Wrote, Fault> {
        let begin = Begin::Limited(&self.begin);
        let mut batch = Batch::begin(&mut self.conn, &self.job, lease, begin).await?;
        match batch.write(rows).await {
            Ok(written) if written == rows.len() as u64 => {}
            Ok(_) => {
                batch.roll_back().await?;
                return Ok(Wrote::Contested);
            }
            // Held up by the server rather than by anybody, the next batch should be smaller.
            Err(e) if e.class() == Class::TookTooLong => {
                let bytes = rows.iter().map(|row| row.envelope.len()).sum();
                // Whatever locks may last: this is more than the server grants.
                let held = batch.held().max(self.job.settings.lock_target * 2);
                self.servo.observe(BatchTiming { rows: rows.len(), bytes, held, fixed: Duration::ZERO });
                return Err(e.into());
            }
            Err(e) => return Err(e.into()),
        }
        let (noted, timing) = batch.commit(rows.iter(), self.lost).await?;
        self.committed(timing, &noted)?;
        Ok(Wrote::All)
    }

    /// A batch is in. Whether to go on after it.
    fn committed(&mut self, timing: BatchTiming, noted: &Noted) -> Result<(), Fault> {
        (self.lost, self.committed) = (0, true);
        (self.locked, self.locked_out) = (0, None);
        self.servo.observe(timing);
        if noted.desired != Desired::Running || noted.past_deadline { Err(Fault::Yield) } else { Ok(()) }
    }

    /// Marks the chunk done, with what its rows left alone add up to. Rows put off get a chunk of their own.
    async fn finish(
        &mut self,
        lease: &Lease,
        mut add: Counters,
        bad: &[BadRow],
        put_off: &[Uuid],
    ) -> Result<(), Fault> {
        let limit = self.job.connector.answer_limit();
        add.lost_races += std::mem::take(&mut self.lost);
        let work = async {
            let mut tx = self.conn.begin().during("begin").await?;
            chunk::make_durable(&mut tx).await?;
            let done = Checkpoint { add, moved: &[], done: true };
            let noted = chunk::checkpoint(&mut tx, lease, &done).await?;
            let Some(_) = noted else {
                tx.rollback().during("roll back").await?;
                return Ok::<_, StoreError>(false);
            };
            chunk::put_off(&mut tx, lease, put_off).await?;
            // After the checkpoint: chunk rows are locked before the audit chain, everywhere.
            quarantine::add(&mut tx, lease.pass().rotation, bad, &self.job.actor).await?;
            tx.commit().during("finish a chunk").await?;
            Ok(true)
        };
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(true)) => {
                self.job.metrics.finished(&add, bad.len());
                Ok(())
            }
            Ok(Ok(false)) => Err(Fault::LeaseLost),
            Ok(Err(e)) => Err(e.into()),
            Err(_) => Err(StoreError::Timeout { op: "finish a chunk", limit }.into()),
        }
    }

    async fn report_other_bytes(&mut self, segment: &mut Segment) -> Result<(), Fault> {
        let ids = std::mem::take(&mut segment.other_bytes);
        tracing::error!(rows = ids.len(), "Rows written by rekey don't match their pre-rotation contents");
        let detail =
            serde_json::json!({ "rows": ids.len(), "ids": ids.iter().take(100).collect::<Vec<_>>() });
        let rotation = segment.lease.pass().rotation;
        audit::append(&mut self.conn, Some(rotation), "other_bytes", &self.job.actor, detail).await?;
        Ok(())
    }

    /// Gives back whatever these workers still hold in the ledger.
    pub async fn let_go(&mut self, process: &str, workers: &[i32]) -> Result<(), StoreError> {
        chunk::release(&mut self.conn, process, workers).await
    }

    /// After a lost connection: waits for a COMMIT that may still be under way in the old backend, gives the
    /// worker's leases back, and so fences the old backend. Uses a connection made since.
    pub async fn settle(
        conn: &mut PgConnection,
        lease: Option<&Lease>,
        process: &str,
        worker: i32,
    ) -> Result<(), StoreError> {
        if let Some(lease) = lease {
            let now = chunk::settle(conn, lease).await?;
            tracing::debug!(
                chunk = lease.chunk(),
                batches_committed = now,
                "Determined on a new connection whether the last batch was committed"
            );
        }
        chunk::release(conn, process, &[worker]).await
    }
}
