//! One task per process, on its own connection: checks the database about once a second and sets the pace.
//!
//! The decision is in `rotation::throttle`. A failed check is repeated for up to `--retry-for`. Meanwhile the workers
//! wait, because their effect on the database is unknown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio::sync::watch;

use super::SharedJob;
use super::fault::Fault;
use super::gate::Crew;
use super::heartbeat::STANDING_STILL;
use crate::error::{Error, Exit};
use crate::rotation::Pace;
use crate::rotation::throttle::{Reason, Throttle, Verdict, Why};
use crate::store::connect::{close, jitter};
use crate::store::signals::Watch;
use crate::store::{Purpose, Statement, StoreError};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A look older than this is none: a restart of the server or of a pooler is shorter.
const STALE: Duration = Duration::from_secs(5);
/// object_not_in_prerequisite_state: a standby has no WAL of its own to tell the end of.
const IN_RECOVERY: &str = "55000";

/// Looks, decides, and tells.
pub struct Watchman {
    job: SharedJob,
    crew: Arc<Crew>,
    throttle: Throttle,
    watch: Watch,
    started: Instant,
    unreadable_since: Option<Instant>,
}

impl Watchman {
    /// Takes the first look, before anybody works.
    pub async fn first_look(
        job: SharedJob,
        crew: Arc<Crew>,
        conn: &mut PgConnection,
    ) -> Result<(Watchman, Verdict), StoreError> {
        let server = job.connector.server(conn).await?;
        let watch = Watch::of(conn, server).await?;
        let (throttle, started) = (Throttle::new(job.limits.clone()), Instant::now());
        let mut watchman = Watchman { job, crew, throttle, watch, started, unreadable_since: None };
        let verdict = watchman.look(conn).await?;
        tell(&Verdict::default(), &verdict);
        Ok((watchman, verdict))
    }

    /// Keeps looking until the process ends, or until a signal could not be read for too long.
    pub async fn keep(mut self, verdict: watch::Sender<Verdict>) -> Error {
        let mut seen = Instant::now();
        loop {
            let error = match self.looks(&verdict, &mut seen).await {
                Fault::Store(error) => error,
                Fault::Fatal(error) => return error,
                Fault::LeaseLost | Fault::Yield => continue,
            };
            tracing::debug!(%error, "the throttle's signals could not be read");
            if seen.elapsed() >= self.job.connector.retry_for.max(STALE) {
                return match error.sqlstate().as_deref() {
                    Some(IN_RECOVERY) => {
                        Error::new(Exit::Unavailable, format!("the server has become a standby: {error}"))
                            .hint("Name the primary in DATABASE_URL, then run the same command again")
                    }
                    _ => error.into(),
                };
            }
            if seen.elapsed() >= STALE {
                let detail =
                    format!("last successful database check: {} s ago; waiting", seen.elapsed().as_secs());
                publish(&verdict, Verdict::wait(Reason::Unreadable, detail));
            }
            tokio::time::sleep(jitter(Duration::from_millis(500))).await;
        }
    }

    /// Looks on one connection until something fails.
    async fn looks(&mut self, verdict: &watch::Sender<Verdict>, seen: &mut Instant) -> Fault {
        let mut conn = match self.job.connector.try_connect(Purpose::Control).await {
            Ok(conn) => conn,
            Err(error) => return error.into(),
        };
        let fault = loop {
            match self.look(&mut conn).await {
                Ok(now) => publish(verdict, now),
                Err(error) => break error.into(),
            }
            *seen = Instant::now();
            if let Some(error) = self.blind_for_too_long(&verdict.borrow()) {
                break error.into();
            }
            let all_wait = self.crew.standstill().is_some_and(|standstill| standstill.all);
            tokio::time::sleep(if all_wait { STANDING_STILL } else { EVERY }).await;
        };
        close(conn).await;
        fault
    }

    async fn look(&mut self, conn: &mut PgConnection) -> Result<Verdict, StoreError> {
        const OP: &str = "look at the database";
        let mut tx = conn.begin().during(OP).await?;
        let signals = self.watch.look(&mut tx, &self.crew.backends()).await?;
        tx.commit().during(OP).await?;
        self.job.metrics.looked(&signals);
        let mut verdict = self.throttle.decide(self.started.elapsed(), &signals);
        if let (Pace::Go, Some(rate)) = (verdict.pace, self.crew.held_to()) {
            let detail = format!("held to {:.0} rows/s", rate.rows_per_second());
            verdict.why = Some(Why { reason: Reason::MaxRate, detail });
        }
        Ok(verdict)
    }

    /// A signal that this role can't read ends the process instead of making it wait forever.
    fn blind_for_too_long(&mut self, verdict: &Verdict) -> Option<Error> {
        let Some(why) = verdict.why.as_ref().filter(|why| why.reason == Reason::Unreadable) else {
            self.unreadable_since = None;
            return None;
        };
        let since = *self.unreadable_since.get_or_insert_with(Instant::now);
        (since.elapsed() >= self.job.connector.retry_for).then(|| {
            Error::new(Exit::Preflight, format!("monitoring: {}; the checkpoint is saved", why.detail)).hint(
                "Grant the missing privilege or add `--allow monitoring`, then run the same command \
                    again",
            )
        })
    }
}

fn publish(verdict: &watch::Sender<Verdict>, now: Verdict) {
    tell(&verdict.borrow(), &now);
    verdict.send_replace(now);
}

/// One line for each change of reason.
fn tell(before: &Verdict, now: &Verdict) {
    let key = |v: &Verdict| (v.why.as_ref().map(|why| why.reason), v.waits());
    if key(before) == key(now) {
        return;
    }
    match &now.why {
        Some(why) => tracing::info!(
            reason = why.reason.as_str(),
            waiting = now.waits(),
            detail = why.detail,
            "Throttled"
        ),
        None => tracing::info!("No longer throttled"),
    }
}
