//! `rekey plan`: what stands in the way, what a run would do, and what it would cost. Writes nothing.

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::options::{KeyArgs, WorkArgs};
use super::plan_text;
use crate::engine::{Settings, rehearse};
use crate::error::{Error, Exit, Result};
use crate::jobs::key_pair::{self, KeyPair, NamedKeys};
use crate::jobs::preflight::{self, Purpose};
use crate::jobs::work;
use crate::rotation::{Direction, Forecast, Rehearsal};
use crate::store::ledger::{Rotation, rotation};
use crate::store::preflight::{Asked, Finding, For, Kind, Report, examine};
use crate::store::{self, Connector, audit};

#[derive(Args)]
pub struct PlanArgs {
    /// Measure: write this many rows in transactions that are rolled back
    #[arg(long, env = "REKEY_REHEARSE", hide_env_values = true, value_parser = clap::value_parser!(u64).range(1..=10_000_000), value_name = "ROWS")]
    pub rehearse: Option<u64>,
    #[command(flatten)]
    pub keys: KeyArgs,
    #[command(flatten)]
    pub work: WorkArgs,
}

/// What is printed.
#[derive(Serialize)]
pub(super) struct Plan {
    pub(super) outcome: &'static str,
    pub(super) exit_code: u8,
    pub(super) meaning: &'static str,
    pub(super) server: ServerFacts,
    pub(super) rotation: Option<Rotation>,
    #[serde(flatten)]
    pub(super) report: Report,
    pub(super) run: Walk,
    pub(super) forecast: Forecast,
    pub(super) rehearsed_rows: Option<u64>,
    pub(super) next: &'static str,
    pub(super) event_head: Option<String>,
}

#[derive(Serialize)]
pub(super) struct ServerFacts {
    pub(super) database: String,
    pub(super) version: String,
    pub(super) in_recovery: bool,
}

/// How a run would walk the table.
#[derive(Serialize)]
pub(super) struct Walk {
    pub(super) addressing: &'static str,
    pub(super) workers: usize,
    pub(super) chunk_rows: u32,
    pub(super) batch_rows: u32,
}

/// Runs the command.
pub async fn run(args: PlanArgs, context: &Context) -> Result<Exit> {
    let (named, asked_work) = (args.keys.named()?, args.work.request()?);
    let allowed = &asked_work.allowed;
    let connector = context.connector()?;
    // Behind a pooler in transaction mode, which is a finding, nothing may be set in a session.
    let mut conn = match connector.connect(store::Purpose::ReadOnly).await {
        Err(store::StoreError::Pooled { .. }) => connector.bare().await?,
        conn => conn?,
    };
    let active = rotation::latest(&mut conn).await?.filter(|r| r.state.is_active());
    let direction = active.as_ref().map_or(Direction::Forward, Rotation::direction);
    let limits = asked_work.limits(direction);
    let keys = keys(context, &named, active.as_ref()).await?;
    let report = match &keys {
        Ok(keys) => {
            let fresh = active.is_none();
            let asked = Purpose { purpose: For::Reading, allowed, limits: &limits, direction, fresh };
            preflight::preflight(context, &connector, &mut conn, keys, asked).await?
        }
        // Whatever else stands in the way is told all the same.
        Err(finding) => {
            let also = vec![finding.clone()];
            let asked = Asked { purpose: For::Reading, allowed, limits: &limits, keys: None, also };
            examine(&mut conn, &connector, asked).await?
        }
    };
    let settings = asked_work.settings(context, &report.facts);
    let exit = report.exit();
    let rehearsal = match (args.rehearse, &keys, exit) {
        (Some(rows), Ok(keys), Exit::Ok) => {
            preflight::primary_only(&connector, &mut conn, "a rehearsal").await?;
            Some(measure(&connector, keys, direction, rows, &settings).await?)
        }
        _ => None,
    };
    drop(keys);
    let mut plan = put_together(&connector, exit, active, report, &settings, rehearsal);
    plan.event_head = audit::head_line(&mut conn).await;
    context.last_word.say(plan.outcome, Some(plan.next));
    if context.json() {
        context.print_json(&plan)?;
    } else {
        plan_text::print(&plan);
    }
    Ok(exit)
}

/// Both keys; a key that cannot be had is one finding among the others.
async fn keys(
    context: &Context,
    named: &NamedKeys,
    active: Option<&Rotation>,
) -> Result<Result<KeyPair, Finding>> {
    let keys = match active {
        Some(active) => key_pair::for_rotation(context, named, active).await,
        None => key_pair::for_new(context, named).await,
    };
    match keys {
        Ok(keys) => Ok(Ok(keys)),
        Err(Error { exit: Exit::Key, message, hint }) => {
            let remedy = hint.unwrap_or_else(|| "name another with --old-key or --new-key".into());
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

fn put_together(
    connector: &Connector,
    exit: Exit,
    active: Option<Rotation>,
    report: Report,
    settings: &Settings,
    rehearsal: Option<Rehearsal>,
) -> Plan {
    let version = report.server.version;
    let (outcome, next) = match exit {
        Exit::Ok if active.is_some() => ("nothing stands in the way of going on", "rekey run"),
        Exit::Ok => ("nothing stands in the way of a run", "rekey run --dry-run"),
        _ => ("refused: see the findings", "mend what is refused below, then rekey plan"),
    };
    Plan {
        outcome,
        exit_code: exit.code(),
        meaning: exit.meaning(),
        server: ServerFacts {
            database: connector.describe().to_owned(),
            version: format!("{}.{}", version / 10_000, version % 10_000),
            in_recovery: report.server.in_recovery,
        },
        rotation: active,
        forecast: Forecast::new(&report.facts, rehearsal),
        rehearsed_rows: rehearsal.map(|r| r.rows),
        run: Walk {
            addressing: settings.walk.addressing.as_str(),
            workers: settings.workers,
            chunk_rows: settings.chunk.rows,
            batch_rows: settings.batch_rows,
        },
        report,
        next,
        event_head: None,
    }
}
