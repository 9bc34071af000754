//! Metrics for Prometheus: counters and histograms of this process, gauges of the whole rotation.
//!
//! A cheap handle that the engine gets; recording never fails and never waits. Serving is
//! [`http`](super::http), the text is [`exposition`]; nothing here decides anything.
//!
//! Counters (`…_total`) and histograms count what *this process* committed, so that pods may be summed. Gauges named
//! `rekey_rotation_…` come from the ledger and are the same from every pod: take their maximum.

mod exposition;
mod process;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tokio::sync::watch;

use crate::rotation::throttle::{Reason, Signals};
use crate::rotation::{Counters, Progress, State};

/// Upper bounds in seconds, around the default lock target of 50 ms.
const BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// A handle on this process's metrics.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Mutex<Recorded>>);

#[derive(Debug)]
struct Recorded {
    rows: Counters,
    batches: u64,
    rolled_back: u64,
    batch_seconds: Histogram,
    lock_seconds: Histogram,
    retries: BTreeMap<String, u64>,
    lease_losses: u64,
    /// Since it was last asked for.
    lately: Lately,
    progress: Option<(Progress, Instant)>,
    /// The engine has ended: it no longer reads schema rekey, and the rest happens outside the database.
    rested: bool,
    /// Every reason there is; only the present one is 1.
    throttles: BTreeMap<Reason, bool>,
    /// The last look at the database.
    signals: Option<Signals>,
    exit_code: Option<u8>,
    /// The last look at the ledger that was not for progress.
    ledger: Option<(Ledger, Instant)>,
    /// Host, port and database.
    database: Option<String>,
    /// This command moves rows: it is at work once its engine is.
    moves_rows: bool,
}

/// What happened since it was last asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lately {
    /// The longest that a batch held its row locks.
    pub longest_lock: Duration,
    /// Things tried again.
    pub retries: u64,
}

/// Where the ledger says that everything stands.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The state of the active rotation, or else of the latest one.
    pub state: Option<State>,
    /// When each command last reached its goal, in seconds since 1970.
    pub successes: Vec<(&'static str, f64)>,
    /// The key that the application reads.
    pub key: Option<KeyAge>,
}

/// How old a key is.
#[derive(Clone, Debug)]
pub struct KeyAge {
    /// Which key.
    pub fingerprint: String,
    /// Seconds since its first trace.
    pub age_seconds: f64,
    /// When it should be replaced, in seconds since 1970.
    pub due: f64,
}

#[derive(Clone, Debug, Default)]
struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.sum += seconds;
        if let Some(at) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.counts[at] += 1;
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics(Arc::new(Mutex::new(Recorded {
            rows: Counters::default(),
            batches: 0,
            rolled_back: 0,
            batch_seconds: Histogram::default(),
            lock_seconds: Histogram::default(),
            retries: BTreeMap::new(),
            lease_losses: 0,
            lately: Lately::default(),
            progress: None,
            rested: false,
            throttles: Reason::ALL.iter().map(|reason| (*reason, false)).collect(),
            signals: None,
            exit_code: None,
            ledger: None,
            database: None,
            moves_rows: false,
        })))
    }
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch begins. Dropped without [`Batch::committed`], it counts as rolled back.
    pub fn batch(&self) -> Batch<'_> {
        Batch { metrics: self, begun: Instant::now(), committed: false }
    }

    /// A chunk is done: what was committed with it, and how many rows were quarantined.
    pub fn finished(&self, add: &Counters, quarantined: usize) {
        let mut recorded = self.lock();
        recorded.rows += *add;
        recorded.rows.quarantined += quarantined as i64;
    }

    /// Something is tried again, for this SQLSTATE; none means that the connection went away or fell silent.
    pub fn retry(&self, sqlstate: Option<String>) {
        let sqlstate = sqlstate.unwrap_or_else(|| "connection".to_owned());
        let mut recorded = self.lock();
        *recorded.retries.entry(sqlstate).or_default() += 1;
        recorded.lately.retries += 1;
    }

    /// What happened since this was last asked.
    pub fn lately(&self) -> Lately {
        std::mem::take(&mut self.lock().lately)
    }

    /// A worker lost its lease.
    pub fn lease_lost(&self) {
        self.lock().lease_losses += 1;
    }

    /// What the throttle saw of the database.
    pub fn looked(&self, signals: &Signals) {
        self.lock().signals = Some(signals.clone());
    }

    /// Keeps the rotation's gauges up to date from now on.
    pub fn follow(&self, mut progress: watch::Receiver<Progress>) {
        let metrics = self.clone();
        tokio::spawn(async move {
            while progress.changed().await.is_ok() {
                let now = progress.borrow_and_update().clone();
                metrics.lock().see(now);
            }
            metrics.lock().rested = true;
        });
    }

    /// The rotation's totals as read at the end.
    pub fn settled(&self, totals: Counters) {
        let mut recorded = self.lock();
        let mut last = recorded.progress.take().map(|(progress, _)| progress).unwrap_or_default();
        last.rows_done = totals.settled();
        last.rows_total = last.rows_total.max(last.rows_done);
        last.totals = totals;
        recorded.see(last);
    }

    /// The database that this process works on: host, port and name.
    pub fn works_on(&self, database: &str) {
        self.lock().database = Some(database.to_owned());
    }

    /// Whether this process is ready only once its engine moves rows.
    pub fn wait_for_rows(&self, moves_rows: bool) {
        self.lock().moves_rows = moves_rows;
    }

    /// What a look at the ledger found.
    pub fn stands(&self, ledger: Ledger) {
        self.lock().ledger = Some((ledger, Instant::now()));
    }

    /// The process ends with this code.
    pub fn ended(&self, code: u8) {
        self.lock().exit_code = Some(code);
    }

    /// Everything, in Prometheus' text format 0.0.4.
    pub fn text(&self) -> String {
        exposition::write(&self.lock())
    }

    /// Replaces `path` atomically with [`Metrics::text`], as node_exporter's textfile collector wants it.
    pub fn write_file(&self, path: &Path) -> std::io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}.tmp", std::process::id()));
        // In a folder that others may write to, something of that name may wait: it is not followed, and stays.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o644).custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let mut file = options.open(&beside)?;
        let written = file.write_all(self.text().as_bytes()).and_then(|()| std::fs::rename(&beside, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        written
    }

    /// Whether work is under way, or else why not. `silence` is how old news from the ledger may be.
    pub fn ready(&self, silence: Duration) -> Result<(), String> {
        let recorded = self.lock();
        let silent = |at: &Instant| {
            Err(format!("the last successful database check was {} s ago", at.elapsed().as_secs()))
        };
        match (&recorded.progress, &recorded.ledger) {
            // A plan, a verify, a promotion: at work as soon as the database has answered, for as long as it does.
            (None, Some((_, at))) if !recorded.moves_rows => {
                if at.elapsed() > silence {
                    silent(at)
                } else {
                    Ok(())
                }
            }
            (None, _) => Err("starting: the database has not been read yet".into()),
            (Some(_), _) if recorded.rested => Ok(()),
            (Some((_, at)), _) if at.elapsed() > silence => silent(at),
            (Some((Progress { throttle: Some(why), waiting: true, .. }, _)), _) => Err(why.to_string()),
            (Some(_), _) => Ok(()),
        }
    }
}

impl Recorded {
    fn see(&mut self, progress: Progress) {
        for active in self.throttles.values_mut() {
            *active = false;
        }
        if let Some(why) = &progress.throttle {
            self.throttles.insert(why.reason, true);
        }
        // What is known while the database is away is as old as it was.
        let heard = match (&progress.outage, &self.progress) {
            (Some(_), Some((_, heard))) => *heard,
            _ => Instant::now(),
        };
        self.progress = Some((progress, heard));
    }
}

/// A batch under way.
pub struct Batch<'a> {
    metrics: &'a Metrics,
    begun: Instant,
    committed: bool,
}

impl Batch<'_> {
    /// It is in. `locked` is how long its row locks were held.
    pub fn committed(mut self, add: &Counters, locked: Duration) {
        self.committed = true;
        let mut recorded = self.metrics.lock();
        recorded.batches += 1;
        recorded.rows += *add;
        recorded.batch_seconds.observe(self.begun.elapsed());
        recorded.lock_seconds.observe(locked);
        recorded.lately.longest_lock = recorded.lately.longest_lock.max(locked);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.metrics.lock().rolled_back += 1;
        }
    }
}

#[cfg(test)]
mod tests;
