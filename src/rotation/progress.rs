//! How far a run is: one shape for bars, log lines, metrics and `status`.

use std::time::Duration;

use super::throttle::Why;
use super::words::words;
use super::{Addressing, Counters, PassKind};

words! {
    /// What a process does to the table.
    Activity {
        /// Walks over all of it.
        Full = "full",
        /// Moves known stragglers.
        Sweep = "sweep",
        /// Tries every row, and writes nothing.
        DryRun = "dry run",
    }
}

impl From<PassKind> for Activity {
    fn from(kind: PassKind) -> Activity {
        match kind {
            PassKind::Full => Activity::Full,
            PassKind::Sweep => Activity::Sweep,
        }
    }
}

/// Rows and seconds.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Rows settled in this direction, by all processes.
    pub rows_done: i64,
    /// Rows expected: until the first pass has counted, the planner's estimate as far as no chunk has corrected it.
    pub rows_total: i64,
    /// The rows expected are an estimate.
    pub estimated: bool,
    /// Rows a second, by all processes, over the last seconds.
    pub rows_per_second: f64,
    /// Seconds left at that rate.
    pub eta_seconds: Option<f64>,
    /// The pass under way.
    pub pass: i32,
    /// What it is; none before anything is known.
    pub activity: Option<Activity>,
    /// Counters so far.
    pub totals: Counters,
    /// Why this process is slow or waiting.
    pub throttle: Option<Why>,
    /// It waits, and is not merely slow.
    pub waiting: bool,
    /// The database is away.
    pub outage: Option<Outage>,
}

/// What a walk over the table knows of its size so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The planner's estimate of rows when it began.
    pub estimated: i64,
    /// Rows of the chunks that are carved, where they are carved by keys.
    pub carved_rows: i64,
    /// Every chunk is carved.
    pub carved: bool,
    /// Blocks of the heap, and of the chunks that are done, where they are carved by blocks.
    pub blocks: i64,
    /// Of the chunks that are done.
    pub blocks_done: i64,
    /// Rows of the chunks that are done, quarantined ones apart.
    pub rows_done: i64,
}

impl Extent {
    /// Rows of the whole table: what was counted counts, and of the rest the estimate. Never less than was settled.
    pub fn rows(&self, addressing: Addressing, totals: &Counters) -> i64 {
        let expected = match addressing {
            Addressing::Keys if self.carved => self.carved_rows,
            Addressing::Keys => self.estimated.max(self.carved_rows),
            Addressing::Blocks => {
                let walked = self.blocks_done as f64 / self.blocks.max(1) as f64;
                let rest = self.estimated as f64 * (1.0 - walked).max(0.0);
                self.rows_done + totals.quarantined + rest.round() as i64
            }
        };
        expected.max(totals.settled())
    }
}

/// A database that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// For how long it has been.
    pub lasting: Duration,
    /// How often it was tried since.
    pub attempts: u32,
}

/// How much of the table a pass has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// All of it: the pass is over.
    Whole,
    /// The total is still an estimate.
    Partly,
}

impl Progress {
    /// This process has stopped working, at these totals; `counted` tells whether the table is known to the end.
    pub fn finish(&mut self, totals: Counters, counted: Counted) {
        self.rows_done = totals.settled();
        self.rows_total = match counted {
            Counted::Whole => self.rows_done,
            Counted::Partly => self.rows_total.max(self.rows_done),
        };
        self.estimated &= counted == Counted::Partly;
        self.outage = None;
        self.eta_seconds = None;
        self.pass = self.pass.max(1);
        self.totals = totals;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_corrected_by_what_was_counted() {
        let known = Extent {
            estimated: 100,
            carved_rows: 0,
            carved: false,
            blocks: 10,
            blocks_done: 0,
            rows_done: 0,
        };
        let settled = |rows| Counters { re_encrypted: rows, ..Counters::default() };
        let bad = Counters { quarantined: 9, ..settled(60) };
        for (known, addressing, totals, rows) in [
            // There turn out to be more rows than the planner thought …
            (known, Addressing::Keys, settled(5), 100),
            (Extent { carved_rows: 120, ..known }, Addressing::Keys, settled(90), 120),
            (known, Addressing::Keys, settled(103), 103),
            (Extent { blocks_done: 5, rows_done: 80, ..known }, Addressing::Blocks, settled(85), 130),
            (Extent { blocks_done: 5, rows_done: 60, ..known }, Addressing::Blocks, bad, 119),
            // … or fewer.
            (Extent { carved_rows: 70, carved: true, ..known }, Addressing::Keys, settled(60), 70),
            (Extent { blocks_done: 5, rows_done: 20, ..known }, Addressing::Blocks, settled(20), 70),
            (Extent { blocks_done: 10, rows_done: 40, ..known }, Addressing::Blocks, settled(40), 40),
            // The planner knew nothing.
            (Extent { estimated: 0, blocks: 0, ..known }, Addressing::Blocks, settled(7), 7),
        ] {
            assert_eq!(known.rows(addressing, &totals), rows, "{known:?} {addressing} {totals:?}");
        }
    }

    #[test]
    fn what_is_finished_is_whole_or_at_least_as_much_as_was_done() {
        let totals = Counters { re_encrypted: 30, null_rows: 5, bytes: 9, ..Counters::default() };
        for (estimate, counted, total) in [
            (10, Counted::Whole, 35),
            (90, Counted::Whole, 35),
            (10, Counted::Partly, 35),
            (90, Counted::Partly, 90),
        ] {
            let mut progress =
                Progress { rows_total: estimate, eta_seconds: Some(3.0), ..Progress::default() };
            progress.finish(totals, counted);
            assert_eq!((progress.rows_done, progress.rows_total), (35, total), "{estimate} {counted:?}");
            assert_eq!((progress.eta_seconds, progress.pass, progress.totals), (None, 1, totals));
        }
    }
}
