//! `plan`: what stands in the way, what a run would do, and what it would cost. Writes nothing, except that a rehearsal
//! writes rows in transactions that are rolled back.

use serde::Serialize;

use super::key_pair::{self, KeyPair, NamedKeys};
use super::preflight::{self, PreflightRequest};
use super::work::{self, WorkRequest};
use super::{Session, standing};
use crate::engine::{Settings, rehearse};
use crate::error::{Error, Exit, Result};
use crate::rotation::permits::JustDone;
use crate::rotation::{Direction, Forecast, Rehearsal, Step};
use crate::store::ledger::{Rotation, rotation};
use crate::store::preflight::{Asked, Finding, For, Kind, Report, examine};
use crate::store::{self, Connector, audit, schema};

/// What is asked for.
pub struct PlanRequest {
    /// Rows to write in transactions that are rolled back, to measure this database.
    pub rehearse: Option<u64>,
    /// Where the keys are.
    pub keys: NamedKeys,
    /// Work settings of the run that is planned.
    pub work: WorkRequest,
}

/// What a plan shows. Field names are public: `--output json` prints them.
#[derive(Serialize)]
pub struct Plan {
    /// The server that was asked.
    pub server: ServerFacts,
    /// The active rotation.
    pub rotation: Option<Rotation>,
    /// What preflight found.
    #[serde(flatten)]
    pub report: Report,
    /// How a run would walk the table.
    pub run: Walk,
    /// What it would cost.
    pub forecast: Forecast,
    /// Rows that were rehearsed.
    pub rehearsed_rows: Option<u64>,
    /// What to do next.
    #[serde(skip)]
    pub next: Vec<Step>,
    /// The head of the audit chain.
    pub event_head: Option<String>,
}

/// Which server.
#[derive(Serialize)]
pub struct ServerFacts {
    /// Host, port and database.
    pub database: String,
    /// As PostgreSQL writes it: 15.4.
    pub version: String,
    /// It is a standby.
    pub in_recovery: bool,
}

/// How a run would walk the table.
#[derive(Serialize)]
pub struct Walk {
    /// `keys` or `blocks`.
    pub addressing: &'static str,
    /// In one process.
    pub workers: usize,
    /// Rows that a worker leases at a time.
    pub chunk_rows: u32,
    /// Maximum rows per transaction.
    pub batch_rows: u32,
}

/// Looks at everything that a run would meet.
pub async fn plan(session: &Session, request: &PlanRequest) -> Result<Plan> {
    let allowed = &request.work.allowed;
    let connector = session.connector()?;
    // Behind a pooler in transaction mode, which is a finding, nothing may be set in a session.
    let mut conn = match connector.connect(store::Purpose::ReadOnly).await {
        Err(store::StoreError::Pooled { .. }) => connector.bare().await?,
        conn => conn?,
    };
    // What keeps this role from reading it is a finding among the others.
    let readable = schema::is_readable(&mut conn).await?;
    let latest = if readable { rotation::latest(&mut conn).await? } else { None };
    let active = latest.filter(|r| r.state.is_active());
    let direction = active.as_ref().map_or(Direction::Forward, Rotation::direction);
    let limits = request.work.limits(direction);
    let keys = keys(session, &request.keys, active.as_ref()).await?;
    let report = match &keys {
        Ok(keys) => {
            let fresh = active.is_none();
            let asked =
                PreflightRequest { purpose: For::Reading, allowed, limits: &limits, direction, fresh };
            preflight::preflight(session, &connector, &mut conn, keys, asked).await?
        }
        // The other findings are reported anyway.
        Err(finding) => {
            let also = vec![finding.clone()];
            let asked = Asked { purpose: For::Reading, allowed, limits: &limits, keys: None, also };
            examine(&mut conn, &connector, asked).await?
        }
    };
    let settings = request.work.settings(session, &report.facts);
    let rehearsal = match (request.rehearse, &keys, report.exit()) {
        (Some(rows), Ok(keys), Exit::Ok) => {
            preflight::primary_only(&connector, &mut conn, "a rehearsal").await?;
            Some(measure(&connector, keys, direction, rows, &settings).await?)
        }
        _ => None,
    };
    drop(keys);
    let just = if report.exit() == Exit::Ok { JustDone::Planned } else { JustDone::Refused };
    Ok(Plan {
        server: server(&connector, &report),
        forecast: Forecast::new(&report.facts, rehearsal),
        rehearsed_rows: rehearsal.map(|r| r.rows),
        run: Walk {
            addressing: settings.walk.addressing.as_str(),
            workers: settings.workers,
            chunk_rows: settings.chunk.rows,
            batch_rows: settings.batch_rows,
        },
        next: standing::next_steps(session, &mut conn, active.as_ref(), just).await?,
        rotation: active,
        report,
        event_head: audit::head_line(&mut conn).await,
    })
}

/// Both keys; a key that cannot be had is one finding among the others.
async fn keys(
    session: &Session,
    named: &NamedKeys,
    active: Option<&Rotation>,
) -> Result<Result<KeyPair, Finding>> {
    let keys = match active {
        Some(active) => key_pair::for_rotation(session, named, active).await,
        None => key_pair::for_new(session, named).await,
    };
    match keys {
        Ok(keys) => Ok(Ok(keys)),
        Err(Error { exit: Exit::Key, message, hint }) => {
            let remedy = hint.unwrap_or_else(|| "Name another key with `--old-key` or `--new-key`".into());
            Ok(Err(Finding::refuse_key(Kind::Keys, message, remedy)))
        }
        Err(e) => Err(e),
    }
}

async fn measure(
    connector: &Connector,
    keys: &KeyPair,
    direction: Direction,
    rows: u64,
    settings: &Settings,
) -> Result<Rehearsal> {
    let rewrapper = work::rewrapper(keys, crate::entropy::id(), direction, None)?;
    rehearse(connector, &rewrapper, rows, settings.batch_rows).await
}

fn server(connector: &Connector, report: &Report) -> ServerFacts {
    let version = report.server.version;
    ServerFacts {
        database: connector.describe().to_owned(),
        version: format!("{}.{}", version / 10_000, version % 10_000),
        in_recovery: report.server.in_recovery,
    }
}
