//! What must hold before anything is written. All findings, each with its remedy, are collected before any is printed.
//!
//! Reads only, creates nothing, and works on a hot standby and before schema `rekey` exists. Whether the keys are
//! strong, or their sources durable, is found elsewhere and handed in ([`Asked::also`]).

mod active;
mod burden;
mod copiers;
mod finding;
mod for_what;
mod horizon;
mod indexes;
mod ledger;
mod limits;
mod other_columns;
mod other_database;
mod privileges;
mod publications;
mod rejected;
mod replica_identity;
mod replication;
mod report;
mod rules;
mod sample;
mod server;
mod shape;
mod sources;
mod triggers;

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::connect::{Connector, Purpose, Server, jitter};
use super::error::{Class, NAME_THE_SERVER, StoreError};
use super::statement::Declaration;
use super::{facts, pooling};
use crate::error::{Error, Exit};
use crate::rotation::throttle::Limits;

pub use finding::{About, Allowed, FINDINGS, Finding, Kind, Severity};
pub use for_what::For;
pub use other_columns::look as other_credentials;
pub use other_database::of as other_database;
pub use report::{Report, refuse};
pub use sample::{KeyProbe, Sample};

/// Every statement of the checks.
pub(super) const STATEMENTS: [&[Declaration]; 15] = [
    horizon::STATEMENTS,
    limits::STATEMENTS,
    privileges::STATEMENTS,
    replication::STATEMENTS,
    sample::STATEMENTS,
    server::STATEMENTS,
    shape::STATEMENTS,
    indexes::STATEMENTS,
    ledger::STATEMENTS,
    other_columns::STATEMENTS,
    publications::STATEMENTS,
    rejected::STATEMENTS,
    replica_identity::STATEMENTS,
    rules::STATEMENTS,
    triggers::STATEMENTS,
];

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
            "rekey is connected through a pooler in transaction or statement mode, where session settings \
             and locks have no effect",
            NAME_THE_SERVER,
        ));
    }
    let server = connector.server(conn).await?;
    let mut report = Report::new(server);
    // The table is being altered or rewritten: rekey waits as long as for an unreachable database.
    let started = Instant::now();
    let looked = loop {
        let mut found = Vec::new();
        let looked = look(conn, server, &asked, &mut report, &mut found).await;
        match &looked {
            Err(e)
                if matches!(e.class(), Class::LockTimeout | Class::Retry | Class::TookTooLong)
                    && started.elapsed() < connector.retry_for =>
            {
                tracing::debug!(error = %e, "Repeating the query");
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

/// What stands in the way of creating or upgrading schema `rekey`, for a command that does nothing else.
pub async fn examine_schema(conn: &mut PgConnection, allowed: &Allowed) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    ledger::look(conn, For::Run, &mut findings).await?;
    publications::of_our_own(conn, For::Run, &mut findings).await?;
    Ok(allowed.judge(findings))
}

/// Whether the table is no more what it was when a command began, and a statement failed for that: a column was renamed,
/// say. `None` where it is as it should be, or cannot be asked.
pub async fn changed_table(connector: &Connector) -> Option<Error> {
    let mut findings = Vec::new();
    let looked = async {
        let mut conn = connector.try_connect(Purpose::ReadOnly).await?;
        shape::table(&mut conn, &mut findings).await
    };
    tokio::time::timeout(Duration::from_secs(10), looked).await.ok()?.ok()?;
    let found = findings.into_iter().find(Finding::refuses)?;
    let message = format!(
        "{}: {}. This changed during the command; everything up to the last committed batch is saved",
        found.name, found.message
    );
    Some(
        Error::new(Exit::Preflight, message)
            .hint(format!("{}, then run the same command again", found.remedy)),
    )
}

async fn look(
    conn: &mut PgConnection,
    server: Server,
    asked: &Asked<'_>,
    report: &mut Report,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let Asked { purpose, limits, .. } = *asked;
    if !server::version(server, purpose, findings) {
        return Ok(());
    }
    server::recovery(server, purpose, findings);
    server::settings(conn, findings).await?;
    server::connection(conn, findings).await?;
    replication::wal_archive(conn, findings).await?;
    replication::replicas(conn, purpose, limits, findings).await?;
    replication::slots(conn, findings).await?;
    burden::reached(conn, server, purpose, limits, findings).await?;
    horizon::held_back(conn, findings).await?;

    ledger::look(conn, purpose, findings).await?;
    publications::of_our_own(conn, purpose, findings).await?;
    let Some(table) = shape::table(conn, findings).await? else { return Ok(()) };
    let may = privileges::look(conn, &table, purpose, findings).await?;
    triggers::look(conn, table.oid, findings).await?;
    rules::look(conn, table.oid, findings).await?;
    replica_identity::look(conn, table.oid, findings).await?;
    publications::look(conn, table.oid, findings).await?;
    indexes::look(conn, table.oid, findings).await?;
    findings.extend(other_columns::look(conn).await?);
    if may.see_table {
        report.facts = facts::table(conn).await?;
    }
    limits::room(conn, &report.facts, findings).await?;
    active::look(conn, findings).await?;
    other_database::look(conn, purpose, findings).await?;
    let hidden = shape::row_security(conn, &table, findings).await?;
    if !may.read_rows || hidden || !table.usable {
        return Ok(());
    }
    if !shape::has_rows(conn, &report.facts, findings).await? {
        return Ok(());
    }
    report.rejected_rows = rejected::look(conn, table.oid, findings).await?;
    if let Some(keys) = &asked.keys {
        limits::ivs(conn, &report.facts, keys, findings).await?;
        let sample = sample::take(conn, &report.facts, keys).await?;
        sample.judge(keys, findings);
        // The catalogue counts a value that is stored out of line as the pointer to it.
        report.facts.credential_bytes = sample.mean_bytes.unwrap_or(report.facts.credential_bytes);
        report.facts.on_page.clone_from(&sample.on_page);
        report.sample = Some(sample);
    }
    Ok(())
}
