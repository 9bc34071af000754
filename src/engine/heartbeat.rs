//! One task a process, on a connection of its own: keeps leases alive, reads what the operator wants, measures.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::watch;

use super::SharedJob;
use super::gate::Crew;
use crate::rotation::throttle::{Reason, Verdict};
use crate::rotation::{Desired, PassOutcome, Progress, State};
use crate::store::ledger::{chunk, pass, process, rotation};
use crate::store::{Purpose, StoreError};

/// What workers should be doing, as the ledger says.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Claim and write.
    pub work: bool,
    /// The rotation's state.
    pub state: State,
    /// What the operator wants.
    pub desired: Desired,
    /// The deadline is over.
    pub past_deadline: bool,
    /// How the pass ended, once it has.
    pub over: Option<PassOutcome>,
}

/// Runs until the process ends; a lost connection is made again, for as long as it takes: the workers decide
/// when a database has been away for too long.
pub async fn run(
    job: SharedJob,
    crew: Arc<Crew>,
    wish: watch::Sender<Wish>,
    pace: watch::Receiver<Verdict>,
    progress: watch::Sender<Progress>,
) -> Infallible {
    let mut rate = Speed::default();
    loop {
        let mut conn = match job.connector.try_connect(Purpose::Control).await {
            Ok(conn) => conn,
            Err(error) => {
                tracing::debug!(%error, "heartbeat cannot connect");
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
        };
        if let Err(error) = beat(&job, &crew, &mut conn, &wish, &pace, &progress, &mut rate).await {
            tracing::debug!(%error, "heartbeat interrupted");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn beat(
    job: &SharedJob,
    crew: &Crew,
    conn: &mut PgConnection,
    wish: &watch::Sender<Wish>,
    pace: &watch::Receiver<Verdict>,
    progress: &watch::Sender<Progress>,
    rate: &mut Speed,
) -> Result<(), StoreError> {
    let ttl = job.settings.lease_ttl;
    let pause = (ttl / 4).min(Duration::from_millis(500));
    let mut renewed: Option<Instant> = None;
    loop {
        if renewed.is_none_or(|at| at.elapsed() >= ttl / 3) {
            chunk::heartbeat(conn, &job.process, ttl).await?;
            renewed = Some(Instant::now());
        }
        let now = rotation::by_id(conn, job.rotation).await?;
        let workable = State::workable(job.direction).contains(&now.state);
        let pass = pass::latest(conn, job.rotation, job.direction).await?;
        let over = pass.as_ref().and_then(|pass| pass.outcome).filter(|o| *o != PassOutcome::Superseded);
        let verdict = match now.desired {
            Desired::Paused => Verdict::wait(Reason::Paused, ""),
            _ => pace.borrow().clone(),
        };
        let (waiting, throttle) = (verdict.waits(), verdict.why);
        wish.send_replace(Wish {
            work: workable && now.desired == Desired::Running && !now.past_deadline,
            state: now.state,
            desired: now.desired,
            past_deadline: now.past_deadline,
            over,
        });
        let totals = chunk::totals(conn, job.rotation, job.direction).await?;
        if let Some(pass) = pass {
            let done = totals.settled();
            rate.observe(totals.re_encrypted + totals.already_on_key);
            // An estimate until the first pass has counted: the one made as it began. Today's would count what was moved twice.
            let estimated = if pass.first { pass.estimated_rows } else { done };
            let total = estimated.max(done);
            let per_second = rate.rows_per_second();
            progress.send_replace(Progress {
                rows_done: done,
                rows_total: total,
                rows_per_second: per_second,
                eta_seconds: (per_second > 0.0).then(|| (total - done) as f64 / per_second),
                pass: pass.number,
                activity: Some(pass.kind.into()),
                totals,
                throttle: throttle.clone(),
                waiting,
            });
            let workers = job.settings.workers as i32;
            let why = throttle.map(|why| why.to_string());
            process::report(conn, &job.process, job.rotation, workers, per_second, why.as_deref()).await?;
            crew.in_company(process::workers(conn, job.rotation, ttl.as_secs_f64()).await?);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Rows a second over the last ten seconds or so.
#[derive(Default)]
struct Speed(std::collections::VecDeque<(Instant, i64)>);

impl Speed {
    fn observe(&mut self, rows: i64) {
        let now = Instant::now();
        self.0.push_back((now, rows));
        while self.0.len() > 2 && self.0.front().is_some_and(|(at, _)| now - *at > Duration::from_secs(10)) {
            self.0.pop_front();
        }
    }

    fn rows_per_second(&self) -> f64 {
        match (self.0.front(), self.0.back()) {
            (Some((from, a)), Some((to, b))) if to > from => {
                (b - a).max(0) as f64 / (*to - *from).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}
