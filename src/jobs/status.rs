//! `status`: where the rotation stands, who works on it and how fast. Reads the database only, so it works from anywhere.
//! Field names are public: `--output json` prints them.

use std::time::Instant;

use serde::Serialize;
use sqlx::PgConnection;

use super::keys::status::CRYPTOPERIOD_DAYS;
use super::{Session, standing};
use crate::crypto::Fingerprint;
use crate::error::Result;
use crate::rotation::{
    Addressing, Counters, Desired, Direction, KeyRole, PassKind, PassOutcome, State, Step, next,
};
use crate::store::ledger::evidence::{self, Contradiction};
use crate::store::ledger::pass::{self, Pass};
use crate::store::ledger::process::{self, Process};
use crate::store::ledger::standing::{Milestone, promotion_of};
use crate::store::ledger::{Rotation, chunk, quarantine, rotation};
use crate::store::origin::Origin;
use crate::store::{Connector, Purpose, Server, StoreError, audit, facts};

/// What `status` shows. All but the server and the last two are of a rotation, and empty where rekey never ran.
#[derive(Default, Serialize)]
pub struct Status {
    /// Where it is.
    pub server: ServerFacts,
    /// The key that the application is given, where that is settled.
    pub current_key: Option<CurrentKey>,
    /// Rows can still be returned to the old key.
    pub rollback_possible: bool,
    /// Who last moved the deadline.
    pub deadline_by: Option<String>,
    /// The active rotation, or else the latest one.
    pub rotation: Option<Heading>,
    /// The database that the rotation was begun in, if this one is a copy of it.
    pub copied_from: Option<String>,
    /// What the ledger claims and the audit trail contradicts: the tables were changed by other means than rekey.
    pub contradictions: Vec<Contradiction>,
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
    #[serde(skip)]
    pub next: Vec<Step>,
}

/// The server and its database.
#[derive(Default, Serialize)]
pub struct ServerFacts {
    /// User, host, port and database.
    pub database: String,
    /// Major and minor version.
    pub version: String,
    /// A standby, which may be behind.
    pub in_recovery: bool,
    /// The application's table is there.
    pub has_table: bool,
}

/// The key that the application is given.
#[derive(Serialize)]
pub struct CurrentKey {
    /// Which of the rotation's two.
    pub role: KeyRole,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// When rekey promoted it, if it did.
    pub promoted: Option<Milestone>,
    /// Days until it should be replaced; negative when it is overdue.
    pub due_in_days: Option<i64>,
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
    /// Rows there are: an estimate while the first pass is under way, corrected by each chunk that is done.
    pub rows_total: i64,
    /// That is an estimate.
    pub estimated: bool,
    /// How much of it is done.
    pub percent: i64,
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
    /// There is a rotation that is not over yet.
    pub fn has_begun(&self) -> bool {
        self.rotation.as_ref().is_some_and(|heading| heading.rotation.state.is_active())
    }

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

    /// The connection that it looks on.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.conn
    }

    /// One look.
    pub async fn look(&mut self) -> Result<Status> {
        Ok(look(self.session, &self.connector, &mut self.conn).await?)
    }

    /// One look, for which a database that is away is waited for.
    pub async fn look_patiently(&mut self) -> Result<Status> {
        let since = Instant::now();
        loop {
            match look(self.session, &self.connector, &mut self.conn).await {
                Ok(status) => return Ok(status),
                Err(e) => self.connector.again(Purpose::Control, &mut self.conn, since, e).await?,
            }
        }
    }
}

async fn look(
    session: &Session,
    connector: &Connector,
    conn: &mut PgConnection,
) -> Result<Status, StoreError> {
    let server = server(connector, conn).await?;
    let (found, standing) = standing::latest(session, conn).await?;
    let next = next(&standing);
    let Some(r) = found else {
        return Ok(Status { server, next, event_head: audit::head_line(conn).await, ..Status::default() });
    };
    let direction = r.direction();
    let totals = chunk::totals(conn, r.id, direction).await?;
    let processes = process::alive(conn, r.id, session.lease_ttl.as_secs_f64()).await?;
    let (mut progress, mut chunks) = (None, None);
    if let Some(pass) = pass::latest(conn, r.id, direction).await? {
        let (waiting, leased, done) = chunk::census(conn, r.id, pass.number).await?;
        chunks = Some(Census { waiting, leased, done });
        let total = match pass.outcome.is_none() && pass.first {
            true => pass::extent(conn, &pass).await?.rows(pass.addressing, &totals),
            false => totals.settled(),
        };
        progress = Some(progress_of(pass, &totals, total, &processes));
    }
    let copied_from = Origin::if_elsewhere(conn, r.id).await?.map(|origin| origin.to_string());
    let unaccepted = quarantine::unaccepted(conn, r.id).await?;
    let contradictions = evidence::of(conn, r.id).await?.contradicted;
    let (seq, hash) = audit::head(conn).await?;
    Ok(Status {
        server,
        current_key: current_key(conn, &r).await?,
        rollback_possible: standing.can_go_back(),
        deadline_by: match r.deadline {
            Some(_) => rotation::deadline_by(conn, r.id).await?,
            None => None,
        },
        throttle: throttle(&r, &processes),
        copied_from,
        rotation: Some(Heading { direction, rotation: r }),
        quarantine: Some(Quarantine { rows: totals.quarantined, unaccepted }),
        contradictions,
        totals: Some(totals),
        progress,
        chunks,
        processes,
        event_head: Some(format!("{seq}:{hash}")),
        next,
    })
}

async fn server(connector: &Connector, conn: &mut PgConnection) -> Result<ServerFacts, StoreError> {
    let Server { version, in_recovery, .. } = connector.server(conn).await?;
    Ok(ServerFacts {
        database: connector.describe().to_owned(),
        version: format!("{}.{}", version / 10_000, version % 10_000),
        in_recovery,
        has_table: facts::has_table(conn).await?,
    })
}

async fn current_key(conn: &mut PgConnection, r: &Rotation) -> Result<Option<CurrentKey>, StoreError> {
    let Some((role, fingerprint)) = r.application_reads() else { return Ok(None) };
    let promoted = promotion_of(conn, &fingerprint.to_string()).await?;
    let due_in_days =
        promoted.as_ref().map(|p| CRYPTOPERIOD_DAYS - (p.seconds_ago / (24.0 * 3600.0)).floor() as i64);
    Ok(Some(CurrentKey { role, fingerprint, promoted, due_in_days }))
}

fn progress_of(pass: Pass, totals: &Counters, total: i64, processes: &[Process]) -> PassProgress {
    // What a dead process said last is no rate.
    let rate = processes.iter().filter(|p| !p.is_silent()).map(|p| p.rate).fold(0.0, f64::max);
    let done = totals.settled();
    PassProgress {
        pass: pass.number,
        pass_kind: pass.kind,
        addressing: pass.addressing,
        rows_done: done,
        rows_total: total,
        estimated: pass.outcome.is_none() && pass.first,
        percent: if total > 0 { done * 100 / total } else { 100 },
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
            let held_up =
                processes.iter().filter(|p| p.throttle.is_some() && !p.is_silent()).min_by_key(|p| !p.waits);
            held_up.and_then(|p| p.throttle.clone())
        }
    }
}
