//! What a worker obeys between batches: signals, the operator, the throttle, `--max-rate`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::Stop;
use super::fault::Fault;
use super::heartbeat::Wish;
use crate::rotation::throttle::{Reason, Verdict};
use crate::rotation::{Limiter, Pace, Rate, share};
use crate::store::connect::jitter;

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

    /// Whether whatever is under way, a long statement too, is to be given up: asked to stop, aborted, paused, past the
    /// deadline, rolled back elsewhere, or outside the window. Other reasons to wait do not concern what only reads.
    fn is_shut(&self) -> bool {
        let pace = self.pace.borrow();
        let window = pace.waits() && pace.why.as_ref().is_some_and(|why| why.reason == Reason::Window);
        self.stop.is_set() || !self.wish.borrow().work || window
    }

    /// Returns once whatever is under way is to be given up.
    pub async fn shut(&mut self) {
        while !self.is_shut() {
            let told = tokio::select! {
                () = self.stop.wait() => Ok(()),
                told = self.wish.changed() => told,
                told = self.pace.changed() => told,
            };
            if told.is_err() {
                return;
            }
        }
    }

    /// Maximum rows in a batch, so that the rate stays even and workers don't block each other.
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
    /// Workers of this process.
    workers: usize,
    /// Workers of all processes.
    company: AtomicUsize,
    /// All processes.
    processes: AtomicUsize,
    backends: Mutex<BTreeSet<i32>>,
    /// Workers that stand still, and what each of them has met.
    stuck: Mutex<BTreeMap<i32, Stuck>>,
    /// Held by the one worker that keeps asking whether there is anything to do.
    lookout: Arc<tokio::sync::Mutex<()>>,
    /// Held by the one worker that keeps trying whether the table is still locked.
    locked_out: Arc<tokio::sync::Mutex<()>>,
    /// Workers that wait for that one.
    idle: Mutex<BTreeSet<i32>>,
    started: Instant,
}

/// A worker that stands still.
struct Stuck {
    since: Instant,
    /// Rows that another session holds; empty if there is nothing to claim or the table is locked.
    rows: Vec<Uuid>,
}

/// How a process's workers stand still.
pub struct Standstill {
    /// Rows that another session holds.
    pub rows: Vec<Uuid>,
    /// None of the workers gets on.
    pub all: bool,
}

impl Crew {
    /// For a process with this rate, so many rows in a batch, and so many workers.
    pub fn new(rate: Option<Rate>, batch_rows: u32, workers: usize) -> Arc<Crew> {
        Arc::new(Crew {
            rate,
            batch_rows: batch_rows as usize,
            company: AtomicUsize::new(workers),
            processes: AtomicUsize::new(1),
            limiter: rate
                .map(|rate| Mutex::new(Booked { limiter: Limiter::new(rate), until: Duration::ZERO })),
            backends: Mutex::default(),
            stuck: Mutex::default(),
            lookout: Arc::default(),
            locked_out: Arc::default(),
            idle: Mutex::default(),
            workers,
            started: Instant::now(),
        })
    }

    /// So many workers, in so many processes, are at work by now, this one included.
    pub fn in_company(&self, workers: usize, processes: usize) {
        self.company.store(workers, Ordering::Relaxed);
        self.processes.store(processes, Ordering::Relaxed);
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

    /// A worker is stalled: another session holds these rows, or there is nothing to do.
    pub fn stuck(&self, worker: i32, rows: Vec<Uuid>) {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        let since = stuck.get(&worker).map_or_else(Instant::now, |before| before.since);
        stuck.insert(worker, Stuck { since, rows });
    }

    /// A worker gets on.
    pub fn moves(&self, worker: i32) {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).remove(&worker);
    }

    /// What keeps workers from work, if that has been so for a moment: all of them, or some with rows that are held.
    pub fn standstill(&self) -> Option<Standstill> {
        let stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        let all = stuck.len() >= self.workers;
        let rows: Vec<Uuid> = stuck.values().flat_map(|stuck| stuck.rows.iter().copied()).take(20).collect();
        let settled = stuck.values().any(|stuck| stuck.since.elapsed() > Duration::from_secs(1));
        (settled && (all || !rows.is_empty())).then_some(Standstill { rows, all })
    }

    /// The right to ask whether there is anything to do: one worker asks, and the others wait for it to be busy. Whoever
    /// waits here holds no lease.
    pub async fn lookout(self: &Arc<Self>, worker: i32) -> Lookout {
        let idle = Idle::new(self, worker);
        let only = self.lookout.clone().lock_owned().await;
        drop(idle);
        Lookout::new(only, self, Duration::from_secs(1))
    }

    /// Waits before trying again what a lock has stopped: one worker tries, and the others wait for it to get on.
    pub async fn locked_out(self: &Arc<Self>, lookout: &mut Option<Lookout>) {
        match lookout {
            Some(lookout) => tokio::time::sleep(lookout.pause()).await,
            none => {
                let only = self.locked_out.clone().lock_owned().await;
                // Whoever tries again connects again, most often.
                *none = Some(Lookout::new(only, self, Duration::from_secs(2)));
            }
        }
    }

    /// Workers that wait for another one to ask.
    pub fn idle(&self) -> Vec<i32> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
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
    /// The time since the start until which it makes others wait.
    until: Duration,
}

/// A worker that waits for another one to ask.
struct Idle<'a> {
    crew: &'a Crew,
    worker: i32,
}

impl<'a> Idle<'a> {
    fn new(crew: &'a Crew, worker: i32) -> Idle<'a> {
        crew.idle.lock().unwrap_or_else(PoisonError::into_inner).insert(worker);
        Idle { crew, worker }
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.crew.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.worker);
    }
}

/// The one worker that asks whether there is anything to do, or the table still locked, ever less often.
pub struct Lookout {
    _only: tokio::sync::OwnedMutexGuard<()>,
    crew: Arc<Crew>,
    pause: Duration,
    longest: Duration,
}

impl Lookout {
    fn new(only: tokio::sync::OwnedMutexGuard<()>, crew: &Arc<Crew>, longest: Duration) -> Lookout {
        Lookout { _only: only, crew: crew.clone(), pause: Duration::from_millis(25), longest }
    }

    /// How long to wait before asking again: up to a second or two, and longer where other processes ask as well.
    pub fn pause(&mut self) -> Duration {
        let pause = self.pause;
        let processes = self.crew.processes.load(Ordering::Relaxed).clamp(1, 4) as u32;
        self.pause = (pause * 2).min(self.longest * processes);
        jitter(pause)
    }
}

/// One of rekey's server processes.
pub struct Registered {
    crew: Arc<Crew>,
    pid: i32,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.crew.backends.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid);
    }
}
