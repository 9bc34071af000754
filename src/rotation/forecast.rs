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
    /// dozen times (21k rows/s and 2334 B WAL a row against 48k and 1486, docs/performance.md).
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
    /// Bytes that the heap, its TOAST, the indexes and rekey's own tables may grow by, about.
    pub growth_bytes: u64,
    /// Bytes that the rehearsal left in the table and its indexes, where there was one.
    pub rehearsal_bytes: Option<u64>,
    /// Longest time one batch holds its row locks, where it was measured.
    pub lock_seconds: Option<f64>,
    /// Rate, WAL and locks were measured on this database.
    pub measured: bool,
}

/// What a rehearsal measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rehearsal {
    /// Rows written and rolled back.
    pub rows: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// WAL it left.
    pub wal_bytes: u64,
    /// Bytes by which the table and its indexes grew: dead row versions, whose space the next VACUUM makes usable again.
    pub grown_bytes: u64,
    /// Longest transaction.
    pub longest_batch: Duration,
}

impl Forecast {
    /// Share of the heap, without TOAST, and of the indexes: the first waves of each page move rows elsewhere, with new
    /// index entries. Measured between 0.15 and 0.22 (tests/engine/preflight/forecast.rs), where nothing holds back pruning.
    const GROWTH: f64 = 0.22;
    /// Bytes of a row in rekey's own tables: its id, its tag, and what a batch adds.
    const LEDGER: f64 = 26.0;
    /// Bytes of a heap page.
    const PAGE: f64 = 8192.0;

    /// A value that is stored out of line is written again, and VACUUM frees the space of the old one later.
    fn growth(facts: &TableFacts, rows: f64) -> f64 {
        let all = facts.heap_bytes.max(0) as f64;
        let heap = (facts.pages * Self::PAGE).min(all);
        (heap + facts.index_bytes as f64) * Self::GROWTH + (all - heap) + rows * Self::LEDGER
    }

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
            growth_bytes: Self::growth(facts, rows) as u64,
            rehearsal_bytes: rehearsal.map(|r| r.grown_bytes),
            lock_seconds: per_row.map(|r| r.longest_batch.as_secs_f64()),
            measured: per_row.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts() -> TableFacts {
        TableFacts {
            rows: 1_000_000.0,
            null_fraction: 0.25,
            credential_bytes: 500.0,
            pages: 80_000.0,
            correlation: Some(0.2),
            heap_bytes: 600_000_000,
            index_bytes: 400_000_000,
        }
    }

    #[test]
    fn what_a_rehearsal_measured_is_scaled_to_the_table() {
        let rehearsal = Rehearsal {
            rows: 1000,
            elapsed: Duration::from_millis(50),
            wal_bytes: 1_500_000,
            grown_bytes: 7,
            longest_batch: Duration::from_millis(40),
        };
        let forecast = Forecast::new(&facts(), Some(rehearsal));
        assert_eq!((forecast.rows, forecast.growth_bytes, forecast.measured), (750_000, 239_500_000, true));
        assert_eq!(forecast.rows_per_second, Some(20_000.0));
        assert_eq!(forecast.seconds, Some(37.5));
        assert_eq!(forecast.wal_bytes, Some(1_125_000_000));
        assert_eq!(forecast.lock_seconds, Some(0.04));
    }

    #[test]
    fn without_a_measurement_nothing_is_made_up() {
        let nothing = Rehearsal { wal_bytes: 9, ..Rehearsal::default() };
        for rehearsal in [None, Some(nothing)] {
            let forecast = Forecast::new(&facts(), rehearsal);
            assert_eq!(
                (forecast.rows, forecast.growth_bytes, forecast.measured),
                (750_000, 239_500_000, false)
            );
            assert_eq!((forecast.rows_per_second, forecast.seconds, forecast.wal_bytes), (None, None, None));
            assert_eq!(forecast.lock_seconds, None);
        }
    }

    #[test]
    fn density_is_guessed_where_it_is_not_known() {
        assert_eq!(facts().rows_per_page(), 12.5);
        assert_eq!(TableFacts { pages: 0.0, ..facts() }.rows_per_page(), 12.0);
        assert_eq!(TableFacts { rows: 0.0, ..facts() }.rows_per_page(), 12.0);
    }

    #[test]
    fn blocks_are_for_large_tables_whose_ids_are_scattered() {
        assert!(facts().prefers_blocks());
        assert!(TableFacts { correlation: Some(-0.5), pages: 257.0, ..facts() }.prefers_blocks());
        for (correlation, pages) in [
            (Some(0.2), 256.0),
            (Some(0.6), 80_000.0),
            (Some(-0.99), 80_000.0),
            (Some(1.0), 80_000.0),
            (None, 80_000.0),
        ] {
            assert!(
                !TableFacts { correlation, pages, ..facts() }.prefers_blocks(),
                "{correlation:?} {pages}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_forecast_is_finite(rows in 0.0_f64..1e12, nulls in 0.0_f64..=1.0, tried in 0_u64..1 << 40, ms in 0_u64..1 << 30) {
            let facts = TableFacts { rows, null_fraction: nulls, ..facts() };
            let elapsed = Duration::from_millis(ms);
            let rehearsal = Rehearsal { rows: tried, elapsed, wal_bytes: tried * 1500, grown_bytes: 0, longest_batch: elapsed };
            let forecast = Forecast::new(&facts, Some(rehearsal));
            prop_assert_eq!(forecast.measured, tried > 0);
            prop_assert!(forecast.rows as f64 <= rows);
            let finite = |figure: Option<f64>| figure.is_none_or(|figure| figure.is_finite() && figure >= 0.0);
            prop_assert!(finite(forecast.seconds) && finite(forecast.rows_per_second) && finite(forecast.lock_seconds));
        }
    }
}
