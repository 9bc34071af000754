//! `rekey report`: evidence for auditors. Every control names the recorded fact that supports it, or says that none
//! does.

mod affected;
mod controls;
mod html;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::context::Context;
use super::refusal;
use crate::error::{Error, Exit, Result};
use crate::rotation::{Counters, Direction, State};
use crate::secrets::KeySource;
use crate::store::ledger::{Rotation, chunk, quarantine, rotation};
use crate::store::report::{self, Chain, Encryptions, Event, Proofs};
use crate::store::{Purpose, schema};
use controls::Control;

/// `--format` of `report`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For machines.
    #[default]
    Json,
    /// For people.
    Html,
}

#[derive(Args)]
pub struct ReportArgs {
    /// How
    #[arg(long, env = "REKEY_FORMAT", hide_env_values = true, value_enum, default_value_t)]
    pub format: ReportFormat,
    /// Which rotation [default: the active one, or the latest]
    #[arg(long, env = "REKEY_ROTATION", hide_env_values = true, value_name = "ID", conflicts_with = "all")]
    pub rotation: Option<Uuid>,
    /// All rotations
    #[arg(long, env = "REKEY_ALL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub all: bool,
    /// Users and providers whose credentials were under the old key, and should reconnect after a compromise
    #[arg(long, env = "REKEY_AFFECTED", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub affected: bool,
}

#[derive(Serialize)]
struct Report {
    generated_by: &'static str,
    chain: Chain,
    rotations: Vec<Rotated>,
    /// Events of no rotation: keys generated, read, restored, destroyed, caches purged.
    other_events: Vec<Event>,
    cloudtrail: Vec<String>,
}

#[derive(Serialize)]
struct Rotated {
    rotation: Rotation,
    totals: Option<Counters>,
    totals_rolled_back: Option<Counters>,
    proofs: Vec<Proofs>,
    /// Under the old key, then under the new one.
    encryptions: Vec<Encryptions>,
    quarantine: Vec<quarantine::Entry>,
    last_verify: Option<Value>,
    timeline: Vec<Event>,
    controls: Vec<Control>,
}

/// Runs the command.
pub async fn run(args: ReportArgs, context: &Context) -> Result<Exit> {
    let mut conn = context.connector()?.connect(Purpose::Control).await?;
    let known = match schema::exists(&mut conn).await? {
        true => report::rotations(&mut conn).await?,
        false => return Err(nothing()),
    };
    if let Some(unknown) = args.rotation.filter(|id| !known.contains(id)) {
        return Err(Error::new(Exit::Usage, format!("there is no rotation {unknown}"))
            .hint("rekey report --all lists them"));
    }
    let latest = rotation::latest(&mut conn).await?.map(|r| r.id);
    let ids: Vec<Uuid> = match (args.all, args.rotation.or(latest)) {
        (true, _) => known,
        (false, one) => one.into_iter().collect(),
    };
    if args.affected {
        return affected::print(context, &mut conn, ids).await;
    }
    let (chain, events) = report::walk(&mut conn, |r| r.is_none_or(|r| ids.contains(&r))).await?;
    if chain.events == 0 {
        return Err(nothing());
    }
    let mut rotations = Vec::new();
    for id in ids {
        rotations.push(one(&mut conn, id, &events, &chain).await?);
    }
    let cloudtrail = rotations.iter().flat_map(|r| cloudtrail(&r.rotation)).collect();
    let other_events = events.into_iter().filter(|e| e.rotation.is_none()).collect();
    let generated_by = concat!("rekey ", env!("CARGO_PKG_VERSION"));
    let report = Report { generated_by, chain, rotations, other_events, cloudtrail };
    match args.format {
        ReportFormat::Json => context.print_json(&report)?,
        ReportFormat::Html => html::print(&report)?,
    }
    if !report.chain.intact {
        // The report is the result; a refusal beside it would be a second one.
        let broken = Error::new(Exit::VerifyFailed, "the audit trail's hash chain is broken")
            .hint("compare with the chain heads in shipped logs");
        refusal::tell(&broken, context.global.log_format);
        return Ok(broken.exit);
    }
    Ok(Exit::Ok)
}

fn nothing() -> Error {
    Error::new(Exit::State, "there is nothing to report on").hint("rekey run starts a rotation")
}

async fn one(conn: &mut PgConnection, id: Uuid, events: &[Event], chain: &Chain) -> Result<Rotated> {
    let rotation = rotation::by_id(conn, id).await?;
    let forward = chunk::totals(conn, id, Direction::Forward).await?;
    let proofs = report::proofs(conn, id).await?;
    let back = match rotation.direction() {
        Direction::Backward => Some(chunk::totals(conn, id, Direction::Backward).await?),
        Direction::Forward => None,
    };
    let encryptions = encryptions(conn, &rotation).await?;
    let last_verify = report::verify_result(conn, id).await?;
    let timeline: Vec<Event> = events.iter().filter(|e| e.rotation == Some(id)).cloned().collect();
    let controls = controls::of(&rotation, &timeline, &encryptions, last_verify.as_ref(), chain);
    Ok(Rotated {
        quarantine: quarantine::list(conn, id).await?,
        totals: Some(forward),
        totals_rolled_back: back,
        rotation,
        proofs,
        encryptions,
        last_verify,
        timeline,
        controls,
    })
}

/// The application's share is under the old key until it reads the new one, and from then on under either: how much of
/// it under which, nobody counted, and each is a bound.
async fn encryptions(conn: &mut PgConnection, r: &Rotation) -> Result<Vec<Encryptions>> {
    let written = report::written_by_application(conn).await?;
    let promoted = matches!(r.state, State::Promoted | State::Finalizing | State::Finalized);
    let under_new = if promoted { written } else { 0 };
    let mut under = Vec::new();
    for (fingerprint, by_application) in [(r.old_fingerprint, written), (r.new_fingerprint, under_new)] {
        let by_rekey = report::sealed(conn, fingerprint).await?;
        under.push(Encryptions { fingerprint, by_rekey, by_application });
    }
    Ok(under)
}

fn cloudtrail(r: &Rotation) -> Vec<String> {
    let elsewhere = r.target_source.as_ref().filter(|target| **target != r.old_source);
    let target = elsewhere.and_then(|target| KeySource::of(target).ok());
    let target = target.as_ref().and_then(KeySource::aws).map(|aws| aws.secret_id.as_str());
    let mut secrets: Vec<&str> =
        [r.old_arn.as_deref(), r.new_arn.as_deref(), target].into_iter().flatten().collect();
    secrets.dedup();
    secrets
        .into_iter()
        .map(|arn| {
            let region = arn.split(':').nth(3).unwrap_or_default();
            format!(
                "aws cloudtrail lookup-events --lookup-attributes AttributeKey=ResourceName,AttributeValue={arn} \
                 --start-time {} --region {region}",
                r.created_at
            )
        })
        .collect()
}
