//! `rekey report`: evidence for auditors. Every control names the recorded fact that supports it, or says that none
//! does.

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::args::{ReportArgs, ReportFormat};
use super::context::Context;
use crate::error::{Error, Exit, Result};
use crate::rotation::{Counters, Direction};
use crate::store::Purpose;
use crate::store::ledger::{Rotation, chunk, quarantine, rotation};
use crate::store::report::{self, Chain, Event, Proofs};

#[derive(Serialize)]
struct Report {
    generated_by: &'static str,
    chain: Chain,
    rotations: Vec<Rotated>,
    cloudtrail: Vec<String>,
}

#[derive(Serialize)]
struct Rotated {
    rotation: Rotation,
    totals: Option<Counters>,
    totals_rolled_back: Option<Counters>,
    proofs: Vec<Proofs>,
    quarantine: Vec<quarantine::Entry>,
    last_verify: Option<Value>,
    timeline: Vec<Event>,
    controls: Vec<Control>,
}

#[derive(Serialize)]
struct Control {
    control: &'static str,
    requirement: &'static str,
    evidence: String,
}

/// Runs the command.
pub async fn run(args: ReportArgs, context: &Context) -> Result<Exit> {
    let mut conn = context.connector()?.connect(Purpose::Control).await?;
    let Some(latest) = rotation::latest(&mut conn).await? else {
        return Err(Error::new(Exit::State, "there is no rotation to report on").hint("rekey run starts one"));
    };
    if args.affected {
        let id = args.rotation.unwrap_or(latest.id);
        let affected = report::affected(&mut conn, id).await?;
        context.print_json(&json!({ "rotation": id, "affected": affected }))?;
        return Ok(Exit::Ok);
    }
    let ids: Vec<Uuid> = match (args.all, args.rotation) {
        (true, _) => report::rotations(&mut conn).await?,
        (false, Some(id)) => vec![id],
        (false, None) => vec![latest.id],
    };
    let known = report::rotations(&mut conn).await?;
    if let Some(unknown) = ids.iter().find(|id| !known.contains(id)) {
        return Err(Error::new(Exit::Usage, format!("there is no rotation {unknown}"))
            .hint("rekey report --all lists them"));
    }
    let (chain, events) = report::walk(&mut conn, |r| args.all || r.is_none_or(|r| ids.contains(&r))).await?;
    let mut rotations = Vec::new();
    for id in ids {
        rotations.push(one(&mut conn, id, &events, &chain).await?);
    }
    let cloudtrail = rotations.iter().flat_map(|r| cloudtrail(&r.rotation)).collect();
    let intact = chain.intact;
    let report =
        Report { generated_by: concat!("rekey ", env!("CARGO_PKG_VERSION")), chain, rotations, cloudtrail };
    match args.format {
        ReportFormat::Json => context.print_json(&report)?,
        ReportFormat::Html => print!("{}", html(&report)?),
    }
    if !intact {
        return Err(Error::new(Exit::VerifyFailed, "the audit trail's hash chain is broken")
            .hint("compare with the chain heads in shipped logs"));
    }
    Ok(Exit::Ok)
}

async fn one(conn: &mut PgConnection, id: Uuid, events: &[Event], chain: &Chain) -> Result<Rotated> {
    let rotation = rotation::by_id(conn, id).await?;
    let forward = chunk::totals(conn, id, Direction::Forward).await?;
    let proofs = report::proofs(conn, id).await?;
    let back = match rotation.direction() {
        Direction::Backward => Some(chunk::totals(conn, id, Direction::Backward).await?),
        Direction::Forward => None,
    };
    let last_verify = report::verify_result(conn, id).await?;
    let timeline: Vec<Event> = events.iter().filter(|e| e.rotation == Some(id)).cloned().collect();
    let controls = controls(&rotation, &timeline, &proofs, last_verify.as_ref(), chain);
    Ok(Rotated {
        quarantine: quarantine::list(conn, id).await?,
        totals: Some(forward),
        totals_rolled_back: back,
        rotation,
        proofs,
        last_verify,
        timeline,
        controls,
    })
}

const MISSING: &str = "not evidenced";

fn controls(
    r: &Rotation,
    timeline: &[Event],
    proofs: &[Proofs],
    verify: Option<&Value>,
    chain: &Chain,
) -> Vec<Control> {
    let event = |action: &str| timeline.iter().rev().find(|e| e.action == action);
    let at = |action: &str| {
        event(action)
            .map_or_else(|| MISSING.to_owned(), |e| format!("event {} at {} by {}", e.seq, e.at, e.operator))
    };
    let rows: i64 = proofs.iter().map(|p| p.rows).sum();
    let control = |control, requirement, evidence| Control { control, requirement, evidence };
    vec![
        control("PCI-DSS 3.6", "keys are changed at the end of their cryptoperiod", at("promoted")),
        control(
            "PCI-DSS 3.6",
            "retired keys are kept only as long as needed, and identified",
            event("finalized")
                .and_then(|e| e.detail["retired_label"].as_str())
                .map_or_else(|| MISSING.to_owned(), |l| format!("label {l}")),
        ),
        control(
            "PCI-DSS 3.6",
            "key-custody actions name a person and a reason",
            match &r.reason {
                Some(reason) => format!("started by {}: {reason}", r.operator),
                None => format!("started by {}; reason {MISSING}", r.operator),
            },
        ),
        control(
            "SOC 2 CC6",
            "changes to keys are authorised and logged",
            format!(
                "{} events, hash chain {}",
                timeline.len(),
                if chain.intact { "intact" } else { "BROKEN" }
            ),
        ),
        control(
            "NIST SP 800-57",
            "re-encryption is complete and verified",
            match (r.verified_clean, &r.verified_at, verify) {
                (Some(true), Some(at), Some(v)) => {
                    format!("clean verify at {at}: {} rows, {} byte-identical", v["rows"], v["identical"])
                }
                _ => MISSING.to_owned(),
            },
        ),
        control(
            "NIST SP 800-57",
            "old and new keys are distinct and identified",
            format!("fingerprints {} and {}", r.old_fingerprint, r.new_fingerprint),
        ),
        control(
            "NIST SP 800-38D §8.3",
            "at most 2^32 encryptions with random 96-bit IVs under one key",
            match rows {
                0 => MISSING.to_owned(),
                n => format!(
                    "{n} encryptions by this rotation, {:.6} % of 2^32; the application's own come on top",
                    n as f64 / 2f64.powi(32) * 100.0
                ),
            },
        ),
    ]
}

fn cloudtrail(r: &Rotation) -> Vec<String> {
    let mut secrets: Vec<&str> = [r.old_arn.as_deref(), r.new_arn.as_deref()].into_iter().flatten().collect();
    secrets.dedup();
    secrets
        .into_iter()
        .map(|arn| format!("aws cloudtrail lookup-events --lookup-attributes AttributeKey=ResourceName,AttributeValue={arn} --start-time {}", r.created_at))
        .collect()
}

fn html(report: &Report) -> Result<String> {
    let internal = |e: serde_json::Error| Error::new(Exit::Internal, format!("cannot print the report: {e}"));
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut out = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>rekey report</title><style>body{font:15px/1.5 system-ui;max-width:60rem;margin:2rem auto;\
         padding:0 1rem}table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #8884;padding:.3rem .6rem;text-align:left;\
         vertical-align:top}pre{overflow:auto}</style><h1>rekey report</h1>",
    );
    out += &format!(
        "<p>Audit chain: {} events, {}. Head <code>{}</code></p>",
        report.chain.events,
        if report.chain.intact { "intact" } else { "<b>broken</b>" },
        report.chain.head
    );
    for r in &report.rotations {
        out += &format!(
            "<h2>Rotation {}</h2><p>{}, {} → {}</p>",
            r.rotation.id, r.rotation.state, r.rotation.old_fingerprint, r.rotation.new_fingerprint
        );
        out += "<h3>Controls</h3><table><tr><th>Control<th>Requirement<th>Evidence</tr>";
        for c in &r.controls {
            out += &format!(
                "<tr><td>{}<td>{}<td>{}</tr>",
                c.control,
                escape(c.requirement),
                escape(&c.evidence)
            );
        }
        out += "</table><h3>Timeline</h3><table><tr><th>#<th>When<th>What<th>Who<th>Why</tr>";
        for e in &r.timeline {
            let why = e.reason.as_deref().unwrap_or("");
            out += &format!(
                "<tr><td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
                e.seq,
                e.at,
                escape(&e.action),
                escape(&e.operator),
                escape(why)
            );
        }
        let counts = serde_json::to_string_pretty(&json!({ "totals": r.totals, "rolled_back": r.totals_rolled_back, "proofs": r.proofs, "verify": r.last_verify })).map_err(internal)?;
        out += &format!("</table><h3>Counts</h3><pre>{}</pre>", escape(&counts));
    }
    Ok(out)
}
