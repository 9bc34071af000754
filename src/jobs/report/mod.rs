//! `report`: evidence for auditors, read from the ledger and the audit chain. Every control names the recorded fact that
//! supports it, or says that none does. How it is printed is in `cli`.

mod affected;
mod controls;
mod head;

pub use affected::{Exposed, affected};
pub use controls::Control;
pub use head::{Expected, Head};

use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Session;
use crate::error::{Error, Exit, Result};
use crate::rotation::{Counters, Direction, State};
use crate::secrets::KeySource;
use crate::store::ledger::{Rotation, chunk, quarantine, rotation};
use crate::store::report::{self, Chain, Encryptions, Event, Proofs};
use crate::store::{Purpose, schema};

/// Which rotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The active one, or else the latest.
    Latest,
    /// One by its id.
    One(Uuid),
    /// All of them, oldest first.
    All,
}

/// The report. Field names are public: they are printed as JSON.
#[derive(Serialize)]
pub struct Report {
    /// This program and its version.
    pub generated_by: &'static str,
    /// The audit chain, every hash of it checked.
    pub chain: Chain,
    /// A head that was noted earlier, and whether the chain still contains it.
    pub expected: Option<Expected>,
    /// The rotations that were asked for.
    pub rotations: Vec<Rotated>,
    /// Events of no rotation: keys generated, read, restored, destroyed, caches purged.
    pub other_events: Vec<Event>,
    /// Commands that show the same from AWS's side.
    pub cloudtrail: Vec<String>,
}

/// One rotation's evidence.
#[derive(Serialize)]
pub struct Rotated {
    /// As recorded.
    pub rotation: Rotation,
    /// Rows by outcome.
    pub totals: Option<Counters>,
    /// Rows by outcome, on the way back.
    pub totals_rolled_back: Option<Counters>,
    /// Proofs by direction.
    pub proofs: Vec<Proofs>,
    /// Under the old key, then under the new one.
    pub encryptions: Vec<Encryptions>,
    /// Rows that neither key opens.
    pub quarantine: Vec<quarantine::Entry>,
    /// What the last verify found.
    pub last_verify: Option<Value>,
    /// Its events.
    pub timeline: Vec<Event>,
    /// What supports each control.
    pub controls: Vec<Control>,
}

/// Reads all of it. `noted` is a head of the chain that was noted earlier.
pub async fn report(session: &Session, which: Which, noted: Option<Head>) -> Result<Report> {
    let (mut conn, ids) = open(session, which).await?;
    let (chain, events) = report::walk(&mut conn, |r| r.is_none_or(|r| ids.contains(&r))).await?;
    if chain.events == 0 {
        return Err(nothing());
    }
    let expected = match noted {
        Some(head) => {
            let there = report::hash_at(&mut conn, head.seq).await?;
            Some(Expected { contained: chain.intact && there.as_ref() == Some(&head.hash), head })
        }
        None => None,
    };
    let mut rotations = Vec::new();
    for id in ids {
        rotations.push(one(&mut conn, id, &events, &chain).await?);
    }
    let cloudtrail = rotations.iter().flat_map(|r| cloudtrail(&r.rotation)).collect();
    let other_events = events.into_iter().filter(|e| e.rotation.is_none()).collect();
    let generated_by = concat!("rekey ", env!("CARGO_PKG_VERSION"));
    Ok(Report { generated_by, chain, expected, rotations, other_events, cloudtrail })
}

/// A connection, and the ids of the rotations that are asked for.
async fn open(session: &Session, which: Which) -> Result<(PgConnection, Vec<Uuid>)> {
    let mut conn = session.connector()?.connect(Purpose::Control).await?;
    if !schema::is_there(&mut conn).await? {
        return Err(nothing());
    }
    let known = report::rotations(&mut conn).await?;
    let ids = match which {
        Which::All => known,
        Which::Latest => rotation::latest(&mut conn).await?.map(|r| r.id).into_iter().collect(),
        Which::One(id) if known.contains(&id) => vec![id],
        Which::One(unknown) => {
            return Err(Error::new(Exit::Usage, format!("there is no rotation {unknown}"))
                .hint("rekey report --all lists them"));
        }
    };
    Ok((conn, ids))
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
            let words = [
                "aws",
                "cloudtrail",
                "lookup-events",
                "--lookup-attributes",
                &format!("AttributeKey=ResourceName,AttributeValue={arn}"),
                "--start-time",
                &r.created_at,
                "--region",
                region,
            ];
            // It is there to be pasted into a shell, and a table says what is in it.
            shlex::try_join(words).unwrap_or_else(|_| "# an ARN in the ledger holds a NUL".to_owned())
        })
        .collect()
}
