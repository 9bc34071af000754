//! One process: opens or joins the pass, runs heartbeat and workers, and says how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::gate::{Crew, Gate};
use super::heartbeat::{self, Over, Wish};
use super::throttle::Watchman;
use super::worker::{Worker, WorkerEnd};
use super::{Job, SharedJob, Stop, StopSource};
use crate::error::{Error, Exit};
use crate::rotation::{Counted, Counters, Desired, PassOutcome, Progress, State};
use crate::store::connect::jitter;
use crate::store::ledger::{Owner, Pass, chunk, pass, process, rotation};
use crate::store::{Class, Purpose, StoreError, connect, with_answer_limit};

/// How a process ended, without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A closing proof found nothing left on the source key.
    Clean,
    /// Writers did not stop: rows were left at the last proof.
    Unsettled,
    /// A signal.
    Signalled,
    /// The operator aborted.
    Aborted,
    /// The window closed.
    PastDeadline,
    /// Another process rolled the rotation back or changed its state, to this one.
    Superseded(State),
}

/// Works on a rotation until its pass is over. `progress` is fed about twice a second.
pub async fn execute(job: Job, stop: Stop, progress: watch::Sender<Progress>) -> Result<End, Error> {
    let job = Arc::new(job);
    loop {
        if let Some(end) = attend(&job, stop.clone(), &progress).await? {
            return Ok(end);
        }
    }
}

/// Works until everybody has stopped; `None` where the reason they stopped for has passed: promoted meanwhile, say, or
/// given another deadline.
async fn attend(
    job: &SharedJob,
    stop: Stop,
    progress: &watch::Sender<Progress>,
) -> Result<Option<End>, Error> {
    let crew = Crew::new(job.limits.max_rate, job.settings.batch_rows, job.settings.workers);
    let open = async || {
        let mut conn = job.connector.connect(Purpose::Control).await?;
        let pass = pass::open_or_join(&mut conn, job.rotation, job.direction, job.settings.walk).await?;
        let now = rotation::by_id(&mut conn, job.rotation).await?;
        let watching = Watchman::first_look(job.clone(), crew.clone(), &mut conn).await?;
        connect::close(conn).await;
        Ok::<_, StoreError>((pass, now, watching))
    };
    let opened = async {
        let (since, mut pause) = (Instant::now(), Duration::from_millis(100));
        loop {
            let again = match open().await {
                Err(error)
                    if matches!(
                        error.class(),
                        Class::ConnectionLost | Class::Retry | Class::TookTooLong | Class::LockTimeout
                    ) =>
                {
                    error
                }
                done => return done,
            };
            // Frozen in the midst of it, say, until the server ended its idle transaction; or a statement that a busy
            // server cut off.
            if since.elapsed() > job.connector.retry_for {
                return Err(again);
            }
            job.connector.outage.interrupted(&again);
            tokio::time::sleep(jitter(pause)).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    };
    let mut signal = stop.clone();
    let (pass, now, (watchman, verdict)) = tokio::select! {
        opened = opened => opened?,
        () = signal.wait() => return Ok(Some(End::Signalled)),
    };
    let Some(pass) = pass else { return Ok(Some(End::Superseded(now.state))) };

    let (pace_sender, pace) = watch::channel(verdict);
    let (wish_sender, wish) = watch::channel(Wish {
        work: now.desired == Desired::Running && !now.past_deadline,
        state: now.state,
        desired: now.desired,
        past_deadline: now.past_deadline,
        over: None,
    });
    let limit = job.connector.answer_limit();
    // Kept open here: workers are stopped by who knows why a task ended, not by its channel, which closes sooner.
    let _open = (wish_sender.clone(), pace_sender.clone());
    let beating = heartbeat::run(job.clone(), crew.clone(), wish_sender, pace.clone(), progress.clone());
    let mut tasks = JoinSet::<Error>::new();
    tasks.spawn(with_answer_limit(limit, async { match beating.await {} }));
    tasks.spawn(with_answer_limit(limit, watchman.keep(pace_sender)));

    // One worker's failure stops the others between batches.
    let (give_up, given_up) = StopSource::new();
    let give_up = Arc::new(give_up);
    let relay = {
        let (give_up, mut stop) = (give_up.clone(), stop.clone());
        tokio::spawn(async move {
            stop.wait().await;
            give_up.stop();
        })
    };
    let mut workers = JoinSet::new();
    for n in 0..job.settings.workers {
        let worker = Worker {
            job: job.clone(),
            owner: Owner { process: job.process.clone(), worker: n as i32 },
            pass: pass.clone(),
            gate: Gate { stop: given_up.clone(), wish: wish.clone(), pace: pace.clone(), crew: crew.clone() },
        };
        workers.spawn(with_answer_limit(limit, worker.run()));
    }
    let mut outcome: Option<WorkerEnd> = None;
    let mut failed: Option<Error> = None;
    loop {
        let done = tokio::select! {
            done = workers.join_next() => match done {
                Some(done) => done,
                None => break,
            },
            Some(ended) = tasks.join_next() => {
                let gone = |e| Error::new(Exit::Internal, format!("the heartbeat or the throttle panicked: {e}"));
                failed = failed.or(Some(ended.unwrap_or_else(gone)));
                give_up.stop();
                continue;
            }
        };
        match done {
            Ok(Ok(WorkerEnd::Pass(p))) => outcome = Some(WorkerEnd::Pass(p)),
            Ok(Ok(WorkerEnd::Stopped)) => outcome = outcome.or(Some(WorkerEnd::Stopped)),
            Ok(Err(e)) => {
                failed = failed.or(Some(e));
                give_up.stop();
            }
            Err(e) => {
                failed = failed.or(Some(Error::new(Exit::Internal, format!("a worker panicked: {e}"))));
                give_up.stop();
            }
        }
    }
    tasks.abort_all();
    relay.abort();
    let signalled = stop.is_set();
    let last = sign_off(job, signalled || failed.is_some()).await;
    if let Ok(last) = &last {
        let counted =
            if matches!(outcome, Some(WorkerEnd::Pass(_))) { Counted::Whole } else { Counted::Partly };
        progress.send_modify(|p| p.finish(last.totals, counted));
    }
    match failed {
        // After a signal, an unreachable database is not worth an error.
        Some(e) if signalled && e.exit == Exit::Unavailable => return Ok(Some(End::Signalled)),
        Some(e) => return Err(e),
        None => {}
    }
    let last = match last {
        Ok(last) => last,
        Err(_) if signalled => return Ok(Some(End::Signalled)),
        Err(e) => return Err(e),
    };
    let (now, ended) =
        (&last.rotation, matches!(outcome, Some(WorkerEnd::Pass(ended)) if last.still_says(ended)));
    Ok(Some(match outcome {
        Some(WorkerEnd::Pass(Over { outcome: PassOutcome::Clean, .. })) if ended => End::Clean,
        Some(WorkerEnd::Pass(Over { outcome: PassOutcome::Unsettled, .. })) if ended => End::Unsettled,
        _ if signalled => End::Signalled,
        // Turned, or another rotation began after this one had ended.
        Some(WorkerEnd::Pass(Over { outcome: PassOutcome::Cancelled, .. })) => End::Superseded(now.state),
        _ if !State::workable(job.direction).contains(&now.state) => End::Superseded(now.state),
        _ if now.desired == Desired::Aborted => End::Aborted,
        _ if now.past_deadline => End::PastDeadline,
        _ => return Ok(None),
    }))
}

/// What the ledger says at the end, read again from whichever server answers by then.
struct Last {
    rotation: rotation::Rotation,
    pass: Option<Pass>,
    totals: Counters,
}

impl Last {
    /// Whether it still says that a pass ended like that: a failover may have lost the commit that concluded it.
    fn still_says(&self, ended: Over) -> bool {
        let concluded = ended.outcome != PassOutcome::Clean || self.rotation.state != State::Migrating;
        let pass = self.pass.as_ref();
        let known =
            pass.is_some_and(|p| p.number > ended.pass || (p.number == ended.pass && p.outcome.is_some()));
        concluded && known
    }
}

/// Gives leases back and says good-bye; in a hurry, only as far as three seconds go.
async fn sign_off(job: &Job, hurry: bool) -> Result<Last, Error> {
    let work = async {
        let mut conn = if hurry {
            job.connector.try_connect(Purpose::Control).await?
        } else {
            job.connector.connect(Purpose::Control).await?
        };
        let mut released = chunk::release_all(&mut conn, &job.process).await;
        for _ in 0..5 {
            if released.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            released = chunk::release_all(&mut conn, &job.process).await;
        }
        if let Err(error) = released {
            tracing::warn!(%error, "Leases were not returned and will expire");
        }
        process::leave(&mut conn, &job.process).await?;
        let rotation = rotation::by_id(&mut conn, job.rotation).await?;
        let pass = pass::latest(&mut conn, job.rotation, job.direction).await?;
        let totals = chunk::totals(&mut conn, job.rotation, job.direction).await?;
        connect::close(conn).await;
        Ok::<_, Error>(Last { rotation, pass, totals })
    };
    if !hurry {
        return work.await;
    }
    match tokio::time::timeout(Duration::from_secs(3), work).await {
        Ok(done) => done,
        Err(_) => {
            Err(Error::new(Exit::Unavailable, "The database didn't answer while rekey returned its leases"))
        }
    }
}
