//! What a run will cost, from the planner's statistics and, where `--rehearse` measured it, from this database.

use std::time::Duration;

use serde::Serialize;

/// What the catalogue and a sample say about the table. Estimates, except where named otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TableFacts {
    /// Rows, by the planner.
    pub rows: f64,
    /// Share of rows without a credential, 0–1.
    pub null_fraction: f64,
    /// Mean length of a credential in bytes, by the sample where there is one.
    pub credential_bytes: f64,
    /// Heap pages.
    pub pages: f64,
    /// How well ids follow the heap, -1–1 (`pg_stats.correlation`); none if never analyzed.
    pub correlation: Option<f64>,
    /// Bytes of heap, with TOAST.
    pub heap_bytes: i64,
    /// Bytes of all indexes.
    pub index_bytes: i64,
}

impl TableFacts {
    /// Rows on one heap page.
    pub fn rows_per_page(&self) -> f64 {
        if self.pages > 0.0 && self.rows > 0.0 { self.rows / self.pages } else { 12.0 }
    }

    /// Whether chunks should be block ranges: where ids do not follow the heap, key ranges dirty every page a
    /// dozen times (21k rows/s and 2334 B WAL a row against 48k and 1486, performance.md).
    pub fn prefers_blocks(&self) -> bool {
        self.correlation.is_some_and(|c| c.abs() < 0.6) && self.pages > 256.0
    }
}

/// The cost of a run. `measured` says whether rate and WAL come from a rehearsal on this database.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// Rows to move.
    pub rows: u64,
    /// Rows a second, where it was measured.
    pub rows_per_second: Option<f64>,
    /// Seconds, where it was measured.
    pub seconds: Option<f64>,
    /// Bytes of WAL, where it was measured.
    pub wal_bytes: Option<u64>,
    /// Bytes the heap and indexes may grow by.
    pub growth_bytes: u64,
    /// Longest time one batch holds its row locks, where it was measured.
    pub lock_seconds: Option<f64>,
    /// Rate, WAL and locks were measured on this database.
    pub measured: bool,
}

/// What a rehearsal measured.
#[derive(Clone, Copy, Debug)]
pub struct Rehearsal {
    /// Rows written and rolled back.
    pub rows: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// WAL it left.
    pub wal_bytes: u64,
    /// Longest transaction.
    pub longest_batch: Duration,
}

impl Forecast {
    /// Growth we plan for: the first wave of each page has to move a row elsewhere, about a twelfth; asked ≤ 12 %.
    const GROWTH: f64 = 0.12;

    /// Puts statistics and, if there was one, a rehearsal together.
    pub fn new(facts: &TableFacts, rehearsal: Option<Rehearsal>) -> Forecast {
        let rows = facts.rows * (1.0 - facts.null_fraction);
        let per_row = rehearsal.filter(|r| r.rows > 0);
        let rate = per_row.map(|r| r.rows as f64 / r.elapsed.as_secs_f64().max(1e-6));
        Forecast {
            rows: rows as u64,
            rows_per_second: rate,
            seconds: rate.map(|rate| rows / rate),
            wal_bytes: per_row.map(|r| (rows * r.wal_bytes as f64 / r.rows as f64) as u64),
            growth_bytes: ((facts.heap_bytes + facts.index_bytes) as f64 * Self::GROWTH) as u64,
            lock_seconds: per_row.map(|r| r.longest_batch.as_secs_f64()),
            measured: per_row.is_some(),
        }
    }
}
