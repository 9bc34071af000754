//! One transaction over the application's rows: BEGIN, the UPDATE, the checkpoint, COMMIT. Every row that `run` and
//! `rollback` move goes through here.
//!
//! Dropped before [`Batch::commit`] the transaction is rolled back. How long it held its locks is measured here.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Transaction};

use crate::engine::Job;
use crate::engine::fault::Fault;
use crate::rotation::{BatchTiming, Counters};
use crate::store::ledger::Lease;
use crate::store::ledger::chunk::{self, Checkpoint, Noted};
use crate::store::rows::{self, FreeWrites, Write};
use crate::store::{Class, StoreError, bounded};
use crate::telemetry::metrics;

/// How a transaction begins.
#[derive(Clone, Copy)]
pub(super) enum Begin<'a> {
    /// With the time limit of one that may wait for row locks; see [`Connector::begin_batch`](crate::store::Connector::begin_batch).
    Limited(&'a str),
    /// Nothing in it waits for anybody.
    Plain,
}

/// A transaction under way.
pub(super) struct Batch<'w> {
    tx: Transaction<'w, Postgres>,
    lease: &'w Lease,
    counted: metrics::Batch<'w>,
    limit: Duration,
    start: Instant,
    /// BEGIN was answered; the next statement locks rows.
    locks: Instant,
}

impl<'w> Batch<'w> {
    pub async fn begin(
        conn: &'w mut PgConnection,
        job: &'w Job,
        lease: &'w Lease,
        begin: Begin<'_>,
    ) -> Result<Self, StoreError> {
        const OP: &str = "begin a batch";
        let (counted, limit, start) = (job.metrics.batch(), job.connector.answer_limit(), Instant::now());
        let tx = match begin {
            Begin::Limited(sql) => bounded(OP, limit, conn.begin_with(AssertSqlSafe(sql.to_owned()))).await?,
            Begin::Plain => bounded(OP, limit, conn.begin()).await?,
        };
        Ok(Batch { tx, lease, counted, limit, start, locks: Instant::now() })
    }

    /// Writes rows that are probably uncontested; returns how many.
    pub async fn write(&mut self, rows: &[Write]) -> Result<u64, StoreError> {
        rows::write(&mut self.tx, self.lease, rows).await
    }

    /// Writes those of these rows that no other session holds.
    pub async fn write_free(&mut self, rows: &[&Write]) -> Result<FreeWrites, StoreError> {
        rows::write_free(&mut self.tx, self.lease, rows).await
    }

    /// How long rows may have been locked by now.
    pub fn held(&self) -> Duration {
        self.locks.elapsed()
    }

    pub async fn roll_back(self) -> Result<(), StoreError> {
        bounded("roll back", self.limit, self.tx.rollback()).await
    }

    /// Writes the checkpoint of these rows, which were all written, and commits; what the checkpoint met, and how long the
    /// transaction held its locks.
    pub async fn commit<'r>(
        mut self,
        written: impl Iterator<Item = &'r Write>,
        lost_races: i64,
    ) -> Result<(Noted, BatchTiming), Fault> {
        let (mut moved, mut add) = (Vec::new(), Counters { lost_races, ..Counters::default() });
        for row in written {
            moved.push((row.id, row.tag));
            add.re_encrypted += 1;
            add.bytes += row.envelope.len() as i64;
        }
        let checkpoint = Checkpoint { add, moved: &moved, done: false };
        let noted =
            chunk::checkpoint(&mut self.tx, self.lease, &checkpoint).await.map_err(|e| match e.class() {
                // What the ledger's own tables reject is no row's fault: no row is put into quarantine for it.
                Class::Data => Fault::Fatal(e.into()),
                _ => Fault::Store(e),
            })?;
        let Some(noted) = noted else {
            self.roll_back().await?;
            return Err(Fault::LeaseLost);
        };
        let commits = Instant::now();
        bounded("commit a batch", self.limit, self.tx.commit()).await?;
        // BEGIN does nothing but travel: UPDATE and checkpoint travel as far, each.
        let fixed = (self.locks - self.start) * 2 + commits.elapsed();
        let held = self.locks.elapsed();
        self.counted.committed(&add, held);
        Ok((noted, BatchTiming { rows: moved.len(), bytes: add.bytes as usize, held, fixed }))
    }
}
