//! How far a run is: one shape for bars, log lines, metrics and `status`.

use std::time::Duration;

use super::throttle::Why;
use super::words::words;
use super::{Counters, PassKind};

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
    /// Rows expected: the planner's estimate until the first pass has counted.
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
