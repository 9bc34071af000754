//! What must hold before anything is written: every finding is collected, each with its remedy, before one is told.
//!
//! Reads only, creates nothing, and works on a hot standby and before schema `rekey` exists. Whether the keys are
//! strong, or their sources durable, is found elsewhere and handed in ([`Asked::also`]).

mod burden;
mod change;
mod finding;
mod horizon;
mod limits;
mod privileges;
mod replication;
mod report;
mod sample;
mod server;
mod shape;

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::connect::{Connector, Server, jitter};
use super::error::{Class, NAME_THE_SERVER, Statement, StoreError};
use super::{facts, pooling, schema};
use crate::rotation::throttle::Limits;

pub use finding::{Allowed, FINDINGS, Finding, Kind, Severity};
pub use report::Report;
pub use sample::{KeyProbe, Sample};

/// What the answers are for: a standby is fine for reading, and a role that only plans need not be able to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// `plan`, and `run --dry-run`: nothing will be written.
    Reading,
    /// `run`.
    Run,
    /// `rollback`, which must be stopped by as little as possible.
    Rollback,
}

/// What to examine, and for what.
pub struct Asked<'a> {
    /// What comes after it.
    pub purpose: For,
    /// Findings the operator lets pass.
    pub allowed: &'a Allowed,
    /// What the throttle will watch.
    pub limits: &'a Limits,
    /// The keys that should open a sample of the rows.
    pub keys: Option<KeyProbe<'a>>,
    /// Findings made elsewhere, to be told with the others.
    pub also: Vec<Finding>,
}

/// Examines the database. `conn` is any connection of `connector`'s.
pub async fn examine(
    conn: &mut PgConnection,
    connector: &Connector,
    mut asked: Asked<'_>,
) -> Result<Report, StoreError> {
    let mut findings = std::mem::take(&mut asked.also);
    let pooled = pooling::probe(conn, connector).await?;
    if pooled {
        findings.push(Finding::refuse(
            Kind::Pooling,
            "a pooler in transaction or statement mode stands in between: settings and locks of a session do not hold",
            NAME_THE_SERVER,
        ));
    }
    let server = connector.server(conn).await?;
    let mut report = Report::new(server);
    // Somebody alters the table, or rewrites it: waited for as long as a database that is away.
    let started = Instant::now();
    let looked = loop {
        let mut found = Vec::new();
        let looked = look(conn, server, &asked, &mut report, &mut found).await;
        match &looked {
            Err(e)
                if matches!(e.class(), Class::LockTimeout | Class::Retry | Class::TookTooLong)
                    && started.elapsed() < connector.retry_for =>
            {
                tracing::debug!(error = %e, "asking again");
                tokio::time::sleep(jitter(Duration::from_millis(250))).await;
            }
            _ => {
                findings.append(&mut found);
                break looked;
            }
        }
    };
    if pooled {
        pooling::leave_nothing(conn).await;
    }
    match looked {
        // Prepared statements go astray behind a pooler: what was found until then must do.
        Err(_) if pooled => {}
        looked => looked?,
    }
    report.findings = asked.allowed.judge(findings);
    Ok(report)
}

async fn look(
    conn: &mut PgConnection,
    server: Server,
    asked: &Asked<'_>,
    report: &mut Report,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    if !server::version(server, findings) {
        return Ok(());
    }
    let Asked { purpose, limits, .. } = *asked;
    server::recovery(server, purpose, findings);
    server::settings(conn, findings).await?;
    server::connection(conn, findings).await?;
    replication::wal_archive(conn, findings).await?;
    replication::replicas(conn, purpose, limits, findings).await?;
    replication::slots(conn, findings).await?;
    burden::reached(conn, server, purpose, limits, findings).await?;
    horizon::held_back(conn, findings).await?;

    let Some(table) = shape::table(conn, findings).await? else { return Ok(()) };
    let may = privileges::look(conn, &table, purpose, findings).await?;
    change::triggers(conn, &table, findings).await?;
    change::rules(conn, &table, findings).await?;
    change::publications(conn, &table, findings).await?;
    change::indexes(conn, &table, findings).await?;
    if may.see_table {
        report.facts = facts::table(conn).await?;
    }
    limits::room(conn, &report.facts, findings).await?;
    if let Some(active) = active_rotation(conn).await? {
        findings.push(active);
    }
    let hidden = shape::row_security(conn, &table, findings).await?;
    if !may.read_rows || hidden || !table.usable {
        return Ok(());
    }
    if !shape::has_rows(conn, &report.facts, findings).await? {
        return Ok(());
    }
    if let Some(keys) = &asked.keys {
        limits::ivs(conn, &report.facts, keys, findings).await?;
        let sample = sample::take(conn, &report.facts, keys).await?;
        sample.judge(keys, findings);
        // The catalogue counts a value that is stored out of line as the pointer to it.
        report.facts.credential_bytes = sample.mean_bytes.unwrap_or(report.facts.credential_bytes);
        report.sample = Some(sample);
    }
    Ok(())
}

async fn active_rotation(conn: &mut PgConnection) -> Result<Option<Finding>, StoreError> {
    if !schema::exists(conn).await? {
        return Ok(None);
    }
    let readable: bool =
        sqlx::query_scalar("SELECT coalesce(has_schema_privilege('rekey', 'USAGE'), false) AND has_table_privilege('rekey.rotations', 'SELECT')")
            .fetch_one(&mut *conn)
            .during("look for an active rotation")
            .await?;
    if !readable {
        return Ok(None);
    }
    let active = super::ledger::rotation::latest(conn).await?.filter(|r| r.state.is_active());
    Ok(active.map(|r| {
        Finding::note(
            Kind::ActiveRotation,
            format!("rotation {} is active, in state {}, since {}", r.id, r.state, r.created_at),
            "rekey status shows it; rekey run joins or resumes it",
        )
    }))
}
