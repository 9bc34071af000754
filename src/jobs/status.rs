//! `status`: where the rotation stands, who works on it and how fast. Reads the database only, so it works from anywhere.
//! Field names are public: `--output json` prints them.

use std::time::Instant;

use serde::Serialize;
use sqlx::PgConnection;

use super::{Session, standing};
use crate::error::Result;
use crate::rotation::permits::JustDone;
use crate::rotation::{Addressing, Counters, Desired, Direction, PassKind, PassOutcome, State, Step};
use crate::store::ledger::pass::{self, Pass};
use crate::store::ledger::process::{self, Process};
use crate::store::ledger::{Rotation, chunk, quarantine, rotation};
use crate::store::{Connector, Purpose, StoreError, audit};

/// What `status` shows. All but the last two are of a rotation, and empty where rekey never ran.
#[derive(Default, Serialize)]
pub struct Status {
    /// The active rotation, or else the latest one.
    pub rotation: Option<Heading>,
    /// Rows by outcome.
    pub totals: Option<Counters>,
    /// The latest pass of its direction.
    pub progress: Option<PassProgress>,
    /// Chunks of that pass.
    pub chunks: Option<Census>,
    /// Who works on it.
    pub processes: Vec<Process>,
    /// Rows that neither key opens.
    pub quarantine: Option<Quarantine>,
    /// Why it is slow or waits.
    pub throttle: Option<String>,
    /// The head of the audit chain.
    pub event_head: Option<String>,
    /// What to do next.
    pub next: Vec<Step>,
}

/// A rotation, and which way its rows move.
#[derive(Serialize)]
pub struct Heading {
    /// As recorded.
    #[serde(flatten)]
    pub rotation: Rotation,
    /// Which way.
    pub direction: Direction,
}

/// How far a pass is.
#[derive(Serialize)]
pub struct PassProgress {
    /// Its number within the rotation, from 1.
    pub pass: i32,
    /// The whole table, or stragglers.
    pub pass_kind: PassKind,
    /// How its chunks are addressed.
    pub addressing: Addressing,
    /// How it ended; none while it is under way.
    pub outcome: Option<PassOutcome>,
    /// Rows settled.
    pub rows_done: i64,
    /// Rows there are, by the planner while it is under way.
    pub rows_total: i64,
    /// By all processes together.
    pub rows_per_second: f64,
    /// Time left.
    pub eta_seconds: Option<f64>,
}

/// Chunks by what becomes of them.
#[derive(Serialize)]
pub struct Census {
    /// No worker has a lease.
    pub waiting: i64,
    /// A worker does.
    pub leased: i64,
    /// Through.
    pub done: i64,
}

/// Rows in quarantine.
#[derive(Serialize)]
pub struct Quarantine {
    /// All of them.
    pub rows: i64,
    /// Those that no operator accepted.
    pub unaccepted: i64,
}

impl Status {
    /// Nothing changes by itself any more. Rows that are to be moved may have no pass yet: it is being opened.
    pub fn is_at_rest(&self) -> bool {
        let rotation = self.rotation.as_ref().map(|r| &r.rotation);
        let moving = rotation
            .is_some_and(|r| matches!(r.state, State::Migrating | State::RollingBack | State::Unpromoting));
        // Aborted, or past its deadline: its pass stays open, and no process works on it any more.
        let ended = rotation.is_some_and(|r| r.desired == Desired::Aborted || r.past_deadline);
        ended && self.processes.is_empty()
            || self.progress.as_ref().map_or(!moving, |pass| pass.outcome.is_some())
    }
}

/// Looks at the database, once or again and again.
pub struct Watch<'a> {
    session: &'a Session,
    connector: Connector,
    conn: PgConnection,
}

impl Watch<'_> {
    /// Connects.
    pub async fn open(session: &Session) -> Result<Watch<'_>> {
        let connector = session.connector()?;
        let conn = connector.connect(Purpose::Control).await?;
        Ok(Watch { session, connector, conn })
    }

    /// One look.
    pub async fn look(&mut self) -> Result<Status> {
        Ok(look(self.session, &mut self.conn).await?)
    }

    /// One look, for which a database that is away is waited for.
    pub async fn look_patiently(&mut self) -> Result<Status> {
        let since = Instant::now();
        loop {
            match look(self.session, &mut self.conn).await {
                Ok(status) => return Ok(status),
                Err(e) => self.connector.again(Purpose::Control, &mut self.conn, since, e).await?,
            }
        }
    }
}

async fn look(session: &Session, conn: &mut PgConnection) -> Result<Status, StoreError> {
    let found = rotation::latest(conn).await?;
    let next = standing::next_steps(session, conn, found.as_ref(), JustDone::Nothing).await?;
    let Some(r) = found else {
        return Ok(Status { next, event_head: audit::head_line(conn).await, ..Status::default() });
    };
    let direction = r.direction();
    let totals = chunk::totals(conn, r.id, direction).await?;
    let processes = process::alive(conn, r.id, session.lease_ttl.as_secs_f64()).await?;
    let (mut progress, mut chunks) = (None, None);
    if let Some(pass) = pass::latest(conn, r.id, direction).await? {
        let (waiting, leased, done) = chunk::census(conn, r.id, pass.number).await?;
        chunks = Some(Census { waiting, leased, done });
        progress = Some(progress_of(pass, &totals, &processes));
    }
    let unaccepted = quarantine::unaccepted(conn, r.id).await?;
    let (seq, hash) = audit::head(conn).await?;
    Ok(Status {
        throttle: throttle(&r, &processes),
        rotation: Some(Heading { direction, rotation: r }),
        quarantine: Some(Quarantine { rows: totals.quarantined, unaccepted }),
        totals: Some(totals),
        progress,
        chunks,
        processes,
        event_head: Some(format!("{seq}:{hash}")),
        next,
    })
}

fn progress_of(pass: Pass, totals: &Counters, processes: &[Process]) -> PassProgress {
    let rate = processes.iter().map(|p| p.rate).fold(0.0, f64::max);
    let done = totals.settled();
    let estimate = if pass.outcome.is_some() || !pass.first { done } else { pass.estimated_rows };
    let total = estimate.max(done);
    PassProgress {
        pass: pass.number,
        pass_kind: pass.kind,
        addressing: pass.addressing,
        rows_done: done,
        rows_total: total,
        rows_per_second: rate.round(),
        eta_seconds: (rate > 0.0 && pass.outcome.is_none()).then(|| ((total - done) as f64 / rate).round()),
        outcome: pass.outcome,
    }
}

fn throttle(r: &Rotation, processes: &[Process]) -> Option<String> {
    match r.desired {
        Desired::Paused => Some("paused by the operator".to_owned()),
        Desired::Aborted => Some("aborted by the operator".to_owned()),
        Desired::Running if r.past_deadline => Some("past the deadline".to_owned()),
        // One that waits rather than one that is slow.
        Desired::Running => {
            let held_up = processes.iter().filter(|p| p.throttle.is_some()).min_by_key(|p| !p.waits);
            held_up.and_then(|p| p.throttle.clone())
        }
    }
}
