//! What a worker obeys between batches: signals, the operator, the throttle, `--max-rate`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Stop;
use super::fault::Fault;
use super::heartbeat::Wish;
use crate::rotation::throttle::Verdict;
use crate::rotation::{Limiter, Pace, Rate, share};

/// One worker's view of all that may hold it back.
#[derive(Clone)]
pub struct Gate {
    /// Asked to stop?
    pub stop: Stop,
    /// What the ledger wants.
    pub wish: watch::Receiver<Wish>,
    /// What the database can bear.
    pub pace: watch::Receiver<Verdict>,
    /// What the process's workers share.
    pub crew: Arc<Crew>,
}

impl Gate {
    /// Whether work may be done now.
    pub fn is_open(&self) -> bool {
        !self.stop.is_set() && self.wish.borrow().work && !self.pace.borrow().waits()
    }

    /// At most this many rows in a batch, so that the rate stays even and nobody is in the others' way.
    pub fn batch_rows(&self, rows: usize) -> usize {
        let rows = rows.min(share(self.crew.batch_rows, self.crew.company.load(Ordering::Relaxed)));
        self.crew.rate.map_or(rows, |rate| rows.min(rate.batch_rows()))
    }

    /// Before a batch of so many rows: returns when it may begin, or that it may not.
    pub async fn pass(&mut self, rows: usize) -> Result<(), Fault> {
        let booked = self.crew.book(rows);
        let pause = match self.pace.borrow_and_update().pace {
            Pace::Go => booked,
            Pace::Slow(pause) => booked.max(pause),
            Pace::Wait => return Err(Fault::Yield),
        };
        let over = tokio::time::Instant::now() + pause;
        while self.is_open() {
            if pause.is_zero() || tokio::time::Instant::now() >= over {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep_until(over) => {}
                () = self.stop.wait() => {}
                changed = self.wish.changed() => if changed.is_err() { break },
                changed = self.pace.changed() => if changed.is_err() { break },
            }
        }
        Err(Fault::Yield)
    }
}

/// What the workers of a process share: the rate, and the backends that hold their locks.
pub struct Crew {
    rate: Option<Rate>,
    limiter: Option<Mutex<Booked>>,
    batch_rows: usize,
    /// Workers of all processes.
    company: AtomicUsize,
    backends: Mutex<BTreeSet<i32>>,
    started: Instant,
}

impl Crew {
    /// For a process with this rate, so many rows in a batch, and so many workers.
    pub fn new(rate: Option<Rate>, batch_rows: u32, workers: usize) -> Arc<Crew> {
        Arc::new(Crew {
            rate,
            batch_rows: batch_rows as usize,
            company: AtomicUsize::new(workers),
            limiter: rate
                .map(|rate| Mutex::new(Booked { limiter: Limiter::new(rate), until: Duration::ZERO })),
            backends: Mutex::default(),
            started: Instant::now(),
        })
    }

    /// So many workers are at work by now, those of other processes included.
    pub fn in_company(&self, workers: usize) {
        self.company.store(workers, Ordering::Relaxed);
    }

    fn book(&self, rows: usize) -> Duration {
        let Some(limiter) = &self.limiter else { return Duration::ZERO };
        let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.started.elapsed();
        let wait = limiter.limiter.book(now, rows);
        if !wait.is_zero() {
            limiter.until = now + wait;
        }
        wait
    }

    /// The rate, if it holds anybody up, or did so just now.
    pub fn held_to(&self) -> Option<Rate> {
        let limiter = self.limiter.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let held =
            !limiter.until.is_zero() && self.started.elapsed() <= limiter.until + Duration::from_secs(2);
        held.then_some(self.rate?)
    }

    /// The backends whose locks are ours.
    pub fn backends(&self) -> Vec<i32> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Notes a backend that will hold our locks, until what is returned is dropped.
    pub fn register(self: &Arc<Self>, pid: i32) -> Registered {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
        Registered { crew: self.clone(), pid }
    }
}

/// The rate's limiter.
struct Booked {
    limiter: Limiter,
    /// Until when it holds somebody up, since the start.
    until: Duration,
}

/// A backend of ours.
pub struct Registered {
    crew: Arc<Crew>,
    pid: i32,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.crew.backends.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid);
    }
}
