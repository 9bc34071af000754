//! One task a process, on a connection of its own: keeps leases alive, reads what the operator wants, measures.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use uuid::Uuid;

use super::SharedJob;
use super::gate::{Crew, Standstill};
use crate::rotation::throttle::{Reason, Verdict, Why};
use crate::rotation::{Desired, Outage, Pace, PassOutcome, Progress, State};
use crate::store::ledger::{chunk, pass, process, rotation, sample};
use crate::store::{Class, Purpose, Statement, StoreError, waits};

/// Between two samples for the report.
const SAMPLE: Duration = Duration::from_secs(5);
/// So long every beat is a sample: a short run has a curve, too. They are merged in the ledger.
const CLOSELY: Duration = Duration::from_secs(20);
/// Between two looks of a process that stands still: orders are obeyed within 10 s all the same.
pub(super) const STANDING_STILL: Duration = Duration::from_secs(3);

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
    pub over: Option<Over>,
}

/// A pass that has ended, and no other goes on from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Its number.
    pub pass: i32,
    /// How it ended.
    pub outcome: PassOutcome,
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
    let mut seen = Seen::default();
    loop {
        let mut conn = match job.connector.try_connect(Purpose::Control).await {
            Ok(conn) => conn,
            Err(error) => {
                tracing::debug!(%error, "heartbeat cannot connect");
                let away = job.connector.outage.lasting();
                if let Some(outage) = away.map(|(lasting, attempts)| Outage { lasting, attempts }) {
                    progress.send_modify(|progress| progress.outage = Some(outage));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
        };
        if let Err(error) = beat(&job, &crew, &mut conn, &wish, &pace, &progress, &mut seen).await {
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
    seen: &mut Seen,
) -> Result<(), StoreError> {
    let ttl = job.settings.lease_ttl;
    let mut renewed: Option<Instant> = None;
    let mut waits = Waits::default();
    loop {
        if renewed.is_none_or(|at| at.elapsed() >= ttl / 3) {
            chunk::heartbeat(conn, &job.process, ttl).await?;
            renewed = Some(Instant::now());
        }
        // One transaction, which holds no lock that another process could wait for.
        let mut tx = conn.begin().during("begin a heartbeat").await?;
        let standstill = crew.standstill();
        let held_up = waits.look(job, crew, &mut tx, standstill.as_ref()).await?;
        let now = rotation::by_id(&mut tx, job.rotation).await?;
        announce(&mut tx, job.rotation, &now.deadline, &mut seen.deadline).await?;
        seen.announce_wish(now.desired, now.past_deadline);
        let workable = State::workable(job.direction).contains(&now.state);
        let pass = pass::latest(&mut tx, job.rotation, job.direction).await?;
        let over = pass.as_ref().and_then(|pass| {
            let outcome = pass.outcome.filter(|outcome| *outcome != PassOutcome::Superseded)?;
            Some(Over { pass: pass.number, outcome })
        });
        let verdict = match now.desired {
            Desired::Paused => Verdict::wait(Reason::Paused, ""),
            _ => pace.borrow().clone(),
        };
        let (waiting, throttle) = match (verdict.why, held_up) {
            (None, Some(why)) => (standstill.as_ref().is_some_and(|standstill| standstill.all), Some(why)),
            (why, _) => (verdict.pace == Pace::Wait, why),
        };
        wish.send_replace(Wish {
            work: workable && now.desired == Desired::Running && !now.past_deadline,
            state: now.state,
            desired: now.desired,
            past_deadline: now.past_deadline,
            over,
        });
        let totals = chunk::totals(&mut tx, job.rotation, job.direction).await?;
        let mut sampled = None;
        if let Some(pass) = pass {
            // Until the first pass has counted. Today's estimate would count what was moved twice.
            let counts = pass.first && pass.outcome.is_none();
            let total = match counts {
                true => pass::extent(&mut tx, &pass).await?.rows(pass.addressing, &totals),
                false => totals.settled(),
            };
            let done = totals.settled();
            seen.speed.observe(totals.re_encrypted + totals.already_on_key);
            let per_second = seen.speed.rows_per_second();
            progress.send_replace(Progress {
                rows_done: done,
                rows_total: total,
                estimated: counts,
                rows_per_second: per_second,
                eta_seconds: (per_second > 0.0).then(|| (total - done) as f64 / per_second),
                pass: pass.number,
                activity: Some(pass.kind.into()),
                totals,
                throttle: throttle.clone(),
                waiting,
                outage: None,
            });
            let report = process::Report {
                process: &job.process,
                rotation: job.rotation,
                operator: &job.actor.operator,
                workers: job.settings.workers as i32,
                rate: per_second,
                why: throttle.as_ref(),
                waits: waiting,
            };
            process::report(&mut tx, &report).await?;
            let (workers, processes) = process::workers(&mut tx, job.rotation, ttl.as_secs_f64()).await?;
            crew.in_company(workers, processes);
            sampled = seen.wants_sample().then_some(done);
        }
        tx.commit().during("end a heartbeat").await?;
        if let Some(done) = sampled {
            take_sample(job, conn, done, throttle.as_ref(), waiting).await;
        }
        // Whoever stands still has time.
        let pause = if waiting { STANDING_STILL } else { Duration::from_millis(500) };
        tokio::time::sleep(pause.min(ttl / 4)).await;
    }
}

/// What the workers wait for, asked about once a second, and less often where all of them do.
#[derive(Default)]
struct Waits {
    found: Option<(Instant, Option<Why>)>,
}

impl Waits {
    async fn look(
        &mut self,
        job: &SharedJob,
        crew: &Crew,
        conn: &mut PgConnection,
        standstill: Option<&Standstill>,
    ) -> Result<Option<Why>, StoreError> {
        let Some(standstill) = standstill else {
            self.found = None;
            return Ok(None);
        };
        let every = if standstill.all { STANDING_STILL } else { Duration::from_secs(1) };
        if let Some((at, why)) = &self.found
            && at.elapsed() < every.mul_f64(0.9)
        {
            return Ok(why.clone());
        }
        let (rows, ours) = (standstill.rows.clone(), crew.backends());
        const OP: &str = "look what is waited for";
        let mut savepoint = conn.begin().during(OP).await?;
        let waiting = match waits::look(&mut savepoint, job.rotation, &job.process, rows, &ours).await {
            // Somebody has just locked the table: who that is shows at the next look.
            Err(error) if error.class() == Class::LockTimeout => {
                savepoint.rollback().during(OP).await?;
                None
            }
            waiting => {
                let waiting = waiting?;
                savepoint.commit().during(OP).await?;
                waiting
            }
        };
        let why = waiting.as_ref().map(Why::from);
        let before = self.found.as_ref().and_then(|(_, why)| why.as_ref()).map(|why| why.reason);
        if let Some(why) = why.as_ref().filter(|why| before != Some(why.reason)) {
            tracing::info!(reason = why.reason.as_str(), detail = why.detail, "waiting");
        }
        self.found = Some((Instant::now(), why.clone()));
        Ok(why)
    }
}

/// For the report. It is not worth a worker's time: one that is not recorded is left out.
async fn take_sample(job: &SharedJob, conn: &mut PgConnection, rows: i64, why: Option<&Why>, waits: bool) {
    let lately = job.metrics.lately();
    let measured = sample::Measured {
        rotation: job.rotation,
        direction: job.direction,
        rows,
        reason: why.map(|why| why.reason.as_str()),
        waits,
        lock_seconds: lately.longest_lock.as_secs_f64(),
        retries: lately.retries as i64,
    };
    if let Err(error) = sample::add(conn, &measured).await {
        tracing::debug!(%error, "a sample was not recorded");
    }
}

/// What was seen before, over all connections.
#[derive(Default)]
struct Seen {
    speed: Speed,
    /// When the first and the last sample were recorded.
    sampled: Option<(Instant, Instant)>,
    /// None before the first look.
    deadline: Option<Option<String>>,
    /// What the operator wants, and whether the deadline is over; none before the first look.
    wish: Option<(Desired, bool)>,
}

impl Seen {
    /// Says what changed since the last look. What was so when this process began is no news.
    fn announce_wish(&mut self, desired: Desired, past_deadline: bool) {
        let Some((before, was_past)) = self.wish.replace((desired, past_deadline)) else { return };
        match desired {
            Desired::Paused if before != desired => {
                tracing::info!("Paused by the operator. Run `rekey resume` to continue");
            }
            Desired::Aborted if before != desired => {
                tracing::info!("Aborted by the operator; stopping after the current batch");
            }
            Desired::Running if before == Desired::Paused => tracing::info!("Resumed by the operator"),
            _ => {}
        }
        if past_deadline && !was_past {
            tracing::info!("The deadline has passed; stopping after the current batch");
        }
    }
}

impl Seen {
    /// Whether it is time for a sample, which is then taken for recorded.
    fn wants_sample(&mut self) -> bool {
        let now = Instant::now();
        let (first, last) = self.sampled.unwrap_or((now, now));
        let wanted = now - first < CLOSELY || now - last >= SAMPLE;
        if wanted {
            self.sampled = Some((first, now));
        }
        wanted
    }
}

/// The deadline is every process's: each says when it was moved, and by whom. The first one seen is no news.
async fn announce(
    conn: &mut PgConnection,
    rotation: Uuid,
    now: &Option<String>,
    known: &mut Option<Option<String>>,
) -> Result<(), StoreError> {
    match known.replace(now.clone()) {
        Some(was) if was != *now => {
            let by = rotation::deadline_by(conn, rotation).await?;
            match now {
                Some(now) => tracing::info!(was, %now, by, "The deadline was changed"),
                None => tracing::info!(was, by, "The deadline was cleared"),
            }
        }
        _ => {}
    }
    Ok(())
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
