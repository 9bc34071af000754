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
    /// Mean bytes of a row on its heap page, where all of its columns were analyzed.
    #[serde(skip)]
    pub row_bytes: Option<f64>,
    /// What credentials take on their heap pages, in bytes: those of a sample, in the order they were met.
    #[serde(skip)]
    pub on_page: Vec<u16>,
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

/// What waves have to move off its pages.
struct Leaving {
    /// Of the heap's bytes.
    bytes: f64,
    /// Of the rows.
    rows: f64,
}

impl TableFacts {
    /// What a row has on its page beside the credential, at least.
    const BESIDE: f64 = 150.0;

    /// The largest row of each page leaves it, unless the page has room for it anyway. Pages are taken to hold what the
    /// sample holds, as many rows as a page has on average.
    fn leaving(&self) -> Option<Leaving> {
        let page = Forecast::PAGE - 24.0;
        let filled = self.rows_per_page() * (1.0 - self.null_fraction);
        let rows = (filled.round().max(1.0) as usize).min(self.on_page.len());
        if rows == 0 {
            return None;
        }
        let sizes = self.on_page.iter().map(|&size| f64::from(size));
        let mean = sizes.clone().sum::<f64>() / self.on_page.len() as f64;
        let beside = self
            .row_bytes
            .map_or(Self::BESIDE, |row| (row - mean * (1.0 - self.null_fraction)).max(Self::BESIDE));
        let free = self.row_bytes.map_or(0.0, |row| (page - self.rows_per_page() * row).max(0.0));
        // A HOT update takes a line pointer more.
        let pointers = 4.0 * filled;
        let around: Vec<f64> = sizes.clone().chain(sizes).take(self.on_page.len() + rows - 1).collect();
        let largest = around.windows(rows).map(|page| beside + page.iter().copied().fold(0.0, f64::max));
        let leaves: Vec<f64> = largest.filter(|largest| free < largest + pointers).collect();
        let pages = self.on_page.len() as f64;
        let (bytes, pages_that_give) =
            (leaves.iter().map(|bytes| bytes + pointers).sum::<f64>(), leaves.len() as f64);
        Some(Leaving {
            bytes: bytes / pages / Forecast::PAGE,
            rows: pages_that_give / pages / self.rows_per_page(),
        })
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
    /// Share of the heap, without TOAST, and of the indexes, where no credential was sized.
    const GROWTH: f64 = 0.22;
    /// What leaves pages does not fill the new ones, and now and then a page gives away a row more than it must.
    const LOOSELY: f64 = 1.4;
    /// Index pages that new entries add, for what the table's entries have: some find room. Measured (benches/README.md).
    const INDEXED: f64 = 0.8;
    /// Bytes of a row in rekey's own tables: its id, its tag, and what a batch adds.
    const LEDGER: f64 = 26.0;
    /// Bytes of a heap page.
    const PAGE: f64 = 8192.0;

    /// A value that is stored out of line is written again, and VACUUM frees the space of the old one later.
    fn growth(facts: &TableFacts, rows: f64) -> f64 {
        let all = facts.heap_bytes.max(0) as f64;
        let heap = (facts.pages * Self::PAGE).min(all);
        let (of_heap, of_indexes) = facts.leaving().map_or((Self::GROWTH, Self::GROWTH), |leaving| {
            (leaving.bytes * Self::LOOSELY, leaving.rows * Self::LOOSELY * Self::INDEXED)
        });
        heap * of_heap + facts.index_bytes as f64 * of_indexes + (all - heap) + rows * Self::LEDGER
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
            ..TableFacts::default()
        }
    }

    /// The largest of each page leaves it: of pages that are alike, one row in so many; where one in ten is three times as
    /// large, more bytes by as many rows; of pages with room, none.
    #[test]
    fn growth_follows_the_sizes_of_the_sample() {
        let share = |facts: &TableFacts| {
            let leaving = facts.leaving().expect("a sample");
            ((leaving.bytes * 100.0).round(), (leaving.rows * 1000.0).round())
        };
        let packed =
            TableFacts { null_fraction: 0.0, row_bytes: Some(650.0), on_page: vec![504; 90], ..facts() };
        assert_eq!(share(&packed), (9.0, 80.0));
        let mut on_page = vec![434; 90];
        on_page.iter_mut().step_by(10).for_each(|size| *size = 1294);
        let mixed = TableFacts { on_page, ..packed.clone() };
        assert_eq!(share(&mixed), (18.0, 80.0));
        let half_empty = TableFacts { rows: 500_000.0, ..packed.clone() };
        assert_eq!(share(&half_empty), (0.0, 0.0));
        let growth = |facts: &TableFacts| Forecast::new(facts, None).growth_bytes;
        assert!(growth(&half_empty) < growth(&packed) && growth(&packed) < growth(&mixed));
        assert!(
            growth(&mixed) < growth(&TableFacts { on_page: Vec::new(), ..mixed.clone() }),
            "nothing is known"
        );
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
        fn a_forecast_is_finite(rows in 0.0_f64..1e12, nulls in 0.0_f64..=1.0, on_page in prop::collection::vec(any::<u16>(), 0..99), tried in 0_u64..1 << 40, ms in 0_u64..1 << 30) {
            let facts = TableFacts { rows, null_fraction: nulls, on_page, ..facts() };
            let elapsed = Duration::from_millis(ms);
            let rehearsal = Rehearsal { rows: tried, elapsed, wal_bytes: tried * 1500, grown_bytes: 0, longest_batch: elapsed };
            let forecast = Forecast::new(&facts, Some(rehearsal));
            prop_assert_eq!(forecast.measured, tried > 0);
            prop_assert!(forecast.rows as f64 <= rows && forecast.growth_bytes < u64::MAX / 2);
            let finite = |figure: Option<f64>| figure.is_none_or(|figure| figure.is_finite() && figure >= 0.0);
            prop_assert!(finite(forecast.seconds) && finite(forecast.rows_per_second) && finite(forecast.lock_seconds));
        }
    }
}
