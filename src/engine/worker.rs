//! One worker: reads ahead, writes, and survives lost leases and lost connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::task::JoinHandle;

use super::fault::Fault;
use super::gate::{Gate, Lookout};
use super::heartbeat::Over;
use super::reader::{Next, Reader, Segment};
use super::writer::Writer;
use super::{SharedJob, closing};
use crate::error::{Error, Exit};
use crate::rotation::{Bounds, Desired, State};
use crate::store::connect::{close, jitter};
use crate::store::ledger::{Lease, Owner, Pass, chunk, pass, rotation};
use crate::store::{Backend, Class, Connector, Outage, Purpose, StoreError, signals, with_answer_limit};

/// Why a worker ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerEnd {
    /// The pass is over.
    Pass(Over),
    /// A signal, an abort, a deadline, or a rollback.
    Stopped,
}

/// One worker of a process.
pub struct Worker {
    /// The job.
    pub job: SharedJob,
    /// Process and index.
    pub owner: Owner,
    /// The pass to begin with.
    pub pass: Pass,
    /// What it obeys.
    pub gate: Gate,
}

struct Ahead(JoinHandle<(Reader, Result<Next, Fault>)>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Worker {
    /// Works until the pass is over or something ends it. Leases are given back by the supervisor.
    pub async fn run(mut self) -> Result<WorkerEnd, Error> {
        let mut last_lease: Option<Lease> = None;
        let mut faults = Faults::new(&self.job.connector);
        let mut locked_out: Option<Lookout> = None;
        loop {
            let since = Instant::now();
            if let Some(ended) = self.wait_until_wanted().await {
                return Ok(ended);
            }
            // Held up for so long, a fault from before says nothing of now. A throttle that flaps is no such thing.
            if since.elapsed() > self.job.connector.retry_for {
                faults.progress();
            }
            let fault = match self.session(&mut last_lease, &mut faults, &mut locked_out).await {
                Ok(ended) => return Ok(ended),
                Err(fault) => fault,
            };
            match &fault {
                // The table is locked or the server does not answer: stalled until the next piece of work.
                Fault::Store(e) if e.class() == Class::LockTimeout => {
                    self.gate.crew.stuck(self.owner.worker, Vec::new());
                }
                _ => {
                    self.gate.crew.moves(self.owner.worker);
                    locked_out = None;
                }
            }
            match fault {
                Fault::Fatal(e) => return Err(e),
                Fault::Yield if self.gate.stop.is_set() => {}
                Fault::Yield => self.give_back().await,
                Fault::LeaseLost => {
                    self.job.metrics.lease_lost();
                    match self.is_called_off().await {
                        true => tracing::debug!(worker = self.owner.worker, "Lease cancelled with the work"),
                        false => tracing::info!(
                            worker = self.owner.worker,
                            "Lease lost to another process; continuing with another chunk"
                        ),
                    }
                }
                // That ends, or the deadline does.
                Fault::Store(e) if e.class() == Class::LockTimeout => {
                    self.job.metrics.retry(e.sqlstate());
                    self.wait_for_locks(&mut locked_out).await;
                }
                Fault::Store(e) => {
                    self.job.metrics.retry(e.sqlstate());
                    faults.note(e).await?;
                    tracing::debug!(worker = self.owner.worker, "Buffered rows discarded; reconnecting");
                }
            }
        }
    }

    /// Whether the work was aborted, rolled back or past its deadline: each lease is cancelled then, which is no news.
    async fn is_called_off(&self) -> bool {
        let Ok(mut conn) = self.job.connector.try_connect(Purpose::Control).await else { return false };
        let now = rotation::by_id(&mut conn, self.job.rotation).await;
        close(conn).await;
        now.is_ok_and(|now| {
            let workable = State::workable(self.pass.direction).contains(&now.state);
            !workable || now.desired != Desired::Running || now.past_deadline
        })
    }

    /// The table is locked, or a row of the ledger: one worker of the process tries again for all of them.
    async fn wait_for_locks(&self, locked_out: &mut Option<Lookout>) {
        if locked_out.is_none() {
            // Others may wait for long.
            self.give_back().await;
        }
        let mut gate = self.gate.clone();
        tokio::select! {
            () = self.gate.crew.locked_out(locked_out) => {}
            () = gate.shut() => {}
        }
    }

    /// Paused, throttled or aborted: whoever comes next shall not wait for our leases. The next session does it again if this fails.
    async fn give_back(&self) {
        if let Ok(mut conn) = self.job.connector.try_connect(Purpose::Control).await {
            let given = chunk::release(&mut conn, &self.owner.process, &[self.owner.worker]).await;
            if let Err(error) = given {
                tracing::debug!(%error, "Leases will be returned later");
            }
            close(conn).await;
        }
    }

    /// Blocks while paused or throttled; says why to end, if there is a reason.
    async fn wait_until_wanted(&mut self) -> Option<WorkerEnd> {
        let gate = &mut self.gate;
        loop {
            if gate.stop.is_set() {
                return Some(WorkerEnd::Stopped);
            }
            let wish = gate.wish.borrow_and_update().clone();
            let workable = State::workable(self.pass.direction).contains(&wish.state);
            if wish.past_deadline || wish.desired == Desired::Aborted || !workable {
                return Some(WorkerEnd::Stopped);
            }
            let waits = gate.pace.borrow_and_update().waits();
            if wish.work && !waits {
                return None;
            }
            // Others may finish what this process waits to do.
            if let Some(over) = wish.over {
                return Some(WorkerEnd::Pass(over));
            }
            tokio::select! {
                changed = gate.wish.changed() => if changed.is_err() { return Some(WorkerEnd::Stopped) },
                changed = gate.pace.changed() => if changed.is_err() { return Some(WorkerEnd::Stopped) },
                () = gate.stop.wait() => {}
            }
        }
    }

    /// Two connections and everything done on them. Ends with a fault as soon as either is in doubt.
    async fn session(
        &mut self,
        last: &mut Option<Lease>,
        faults: &mut Faults,
        locked_out: &mut Option<Lookout>,
    ) -> Result<WorkerEnd, Fault> {
        let mut reading = self.connect(Purpose::Read).await?;
        tokio::select! {
            settled = Writer::settle(&mut reading, last.as_ref(), &self.owner.process, self.owner.worker) => settled?,
            () = self.gate.stop.wait() => return Err(Fault::Yield),
        }
        *last = None;
        // After a failover to a standby that had not got it yet, this pass may be another one, with another horizon.
        let (rotation, direction) = (self.job.rotation, self.pass.direction);
        self.pass = pass::latest(&mut reading, rotation, direction).await?.ok_or_else(pass::vanished)?;
        let mut writing = self.connect(Purpose::Write).await?;
        let _ours = self.gate.crew.register(signals::backend_pid(&mut writing).await?);
        let mut writer = Writer::new(self.job.clone(), writing, self.gate.clone());
        let reader = Reader::new(self.job.clone(), self.owner.clone(), reading, self.pass.clone());
        let limit = self.job.connector.answer_limit();
        let mut ahead = read_ahead(reader, limit);
        let mut swept: Option<Instant> = None;
        let mut lookout: Option<Lookout> = None;
        loop {
            let (reader, next) = tokio::select! {
                done = &mut ahead.0 => done.map_err(|e| Error::new(Exit::Internal, format!("a reader panicked: {e}")))?,
                () = self.gate.stop.wait() => return Err(Fault::Yield),
            };
            let next = next?;
            *locked_out = None;
            // Rows that are listed may be held by others as before: whether it gets on shows when they are written.
            let listed =
                matches!(&next, Next::Segment(segment) if matches!(segment.lease.bounds(), Bounds::Ids(_)));
            if !matches!(next, Next::Wait) && !listed {
                self.gate.crew.moves(self.owner.worker);
                lookout = None;
            }
            match next {
                Next::Segment(mut segment) => {
                    ahead = read_ahead(reader, limit);
                    *last = Some(segment.lease.clone());
                    let written = self.write(&mut writer, &mut segment).await;
                    let committed = writer.has_committed();
                    if committed {
                        self.gate.crew.moves(self.owner.worker);
                        lookout = None;
                    }
                    if written.is_ok() || committed {
                        faults.progress();
                    }
                    written?;
                    *last = None;
                }
                Next::Proof(_) if !self.gate.is_open() => return Err(Fault::Yield),
                Next::Proof(lease) => {
                    *last = Some((*lease).clone());
                    self.prove(&lease).await?;
                    faults.progress();
                    *last = None;
                    ahead = read_ahead(reader, limit);
                }
                Next::Wait => {
                    // A claim that was given up may have been committed all the same. Nothing is held here, nor by those
                    // that wait for this worker to ask, and the heartbeat would keep it alive for ever.
                    if swept.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                        let mut idle = self.gate.crew.idle();
                        idle.push(self.owner.worker);
                        writer.let_go(&self.owner.process, &idle).await?;
                        swept = Some(Instant::now());
                    }
                    self.pause_until_asking_again(&mut lookout).await?;
                    ahead = read_ahead(reader, limit);
                }
                Next::Ended(over) => return Ok(WorkerEnd::Pass(over)),
            }
        }
    }

    /// Writes; a signal gives the batch under way a few seconds, then cuts its connection: it is in, or it is not.
    async fn write(&mut self, writer: &mut Writer, segment: &mut Segment) -> Result<(), Fault> {
        let mut stop = self.gate.stop.clone();
        let grace = async {
            stop.wait().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        };
        tokio::select! {
            done = writer.write(segment) => done,
            () = grace => Err(Fault::Yield),
        }
    }

    async fn prove(&mut self, lease: &Lease) -> Result<(), Fault> {
        let mut conn = self.connect(Purpose::Control).await?;
        let backend = Backend::of(&mut conn).await?;
        let proving = closing::prove(&self.job, &mut conn, lease);
        let done = tokio::select! {
            done = backend.outlives(&self.job.connector, "prove that none is left", proving) => Some(done),
            () = self.gate.shut() => None,
        };
        match done {
            Some(done) => {
                close(conn).await;
                done
            }
            // Not left to run with its snapshot.
            None => {
                backend.cancel(&self.job.connector).await;
                Err(Fault::Yield)
            }
        }
    }

    /// One worker of a process asks for all of them, so that waiting costs next to nothing whatever their number.
    async fn pause_until_asking_again(&mut self, lookout: &mut Option<Lookout>) -> Result<(), Fault> {
        let crew = self.gate.crew.clone();
        crew.stuck(self.owner.worker, Vec::new());
        let mut gate = self.gate.clone();
        let pause = async {
            match lookout {
                Some(lookout) => tokio::time::sleep(lookout.pause()).await,
                none => *none = Some(crew.lookout(self.owner.worker).await),
            }
        };
        tokio::select! {
            () = pause => {}
            () = gate.shut() => {}
        }
        if self.gate.is_open() { Ok(()) } else { Err(Fault::Yield) }
    }

    async fn connect(&mut self, purpose: Purpose) -> Result<PgConnection, Fault> {
        tokio::select! {
            conn = self.job.connector.connect(purpose) => Ok(conn?),
            () = self.gate.stop.wait() => Err(Fault::Yield),
        }
    }
}

fn read_ahead(mut reader: Reader, limit: Duration) -> Ahead {
    Ahead(tokio::spawn(with_answer_limit(limit, async move {
        let next = reader.next().await;
        (reader, next)
    })))
}

/// Faults without progress between them. Patience ends after `retry_for`.
struct Faults {
    outage: Arc<Outage>,
    patience: Duration,
    since: Option<Instant>,
    pause: Duration,
}

impl Faults {
    fn new(connector: &Connector) -> Faults {
        let outage = connector.outage.clone();
        Faults { outage, patience: connector.retry_for, since: None, pause: Duration::from_millis(50) }
    }

    fn progress(&mut self) {
        (self.since, self.pause) = (None, Duration::from_millis(50));
        self.outage.worked();
    }

    /// Waits before another attempt, or gives the error back when trying again cannot help or has not.
    async fn note(&mut self, e: StoreError) -> Result<(), Error> {
        let hopeless = match e.class() {
            Class::ConnectionLost
            | Class::Retry
            | Class::TookTooLong
            | Class::LockTimeout
            | Class::Exhausted => false,
            Class::Data | Class::Denied | Class::Fatal => true,
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        if hopeless || since.elapsed() > self.patience {
            return Err(e.into());
        }
        self.outage.interrupted(&e);
        tokio::time::sleep(jitter(self.pause)).await;
        self.pause = (self.pause * 2).min(Duration::from_secs(3));
        Ok(())
    }
}
