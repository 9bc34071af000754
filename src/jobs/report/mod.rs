//! `report`: evidence for auditors, read from the ledger and the audit chain. Every control names the recorded fact that
//! supports it, or says that none does. How it is printed is in `cli`.

mod affected;
mod controls;
mod head;
mod story;
mod throughput;
mod verdict;

pub use affected::{Exposed, Listing, Sums, affected};
pub use controls::Control;
pub use head::{Expected, Head};
pub use story::{Found, Pause, Phase, VerifyOf};
pub use throughput::Throughput;
pub use verdict::{Level, Verdict};

use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Session, standing};
use crate::error::{Error, Exit, Result};
use crate::rotation::{Claim, Counters, Direction, State};
use crate::secrets::KeySource;
use crate::store::ledger::evidence::{self, Contradiction};
use crate::store::ledger::{Rotation, chunk, pass, quarantine, rotation};
use crate::store::report::{self, Chain, Encryptions, Event, PassOf, Proofs};
use crate::store::{Connector, Purpose, Server, StoreError, TABLE, schema};

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
    /// Where and when it was made.
    pub made: Made,
    /// What the latest of the rotations came to, unless the audit trail itself is in question.
    pub verdict: Verdict,
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

/// Where and when a report was made.
#[derive(Serialize)]
pub struct Made {
    /// By the database's clock, RFC 3339.
    pub at: String,
    /// The commit that this program was built from and its date, where that is known.
    pub commit: Option<&'static str>,
    /// User, host, port and database.
    pub database: String,
    /// Major and minor version of the server.
    pub server_version: String,
    /// The server is a standby, which may be behind.
    pub standby: bool,
    /// The table that was re-encrypted.
    pub table: &'static str,
    /// Who made it.
    pub operator: String,
}

/// One rotation's evidence.
#[derive(Serialize)]
pub struct Rotated {
    /// What it came to.
    pub verdict: Verdict,
    /// As recorded.
    pub rotation: Rotation,
    /// Each state that it was in, and how long.
    pub phases: Vec<Phase>,
    /// When its workers were stopped by an operator.
    pub pauses: Vec<Pause>,
    /// Its walks over the table.
    pub passes: Vec<PassOf>,
    /// How fast it was, and why it was not faster.
    pub throughput: Throughput,
    /// Each verify.
    pub verifies: Vec<VerifyOf>,
    /// Rows by outcome.
    pub totals: Option<Counters>,
    /// Rows by outcome, on the way back.
    pub totals_rolled_back: Option<Counters>,
    /// Proofs by direction; those that were removed too.
    pub proofs: Vec<Proofs>,
    /// When the proofs were removed, RFC 3339: their numbers are what the audit trail says.
    pub proofs_removed_at: Option<String>,
    /// Under the old key, then under the new one.
    pub encryptions: Vec<Encryptions>,
    /// Rows that neither key decrypts.
    pub quarantine: Vec<quarantine::Entry>,
    /// What the last verify found.
    pub last_verify: Option<Value>,
    /// Its events.
    pub timeline: Vec<Event>,
    /// What supports each control.
    pub controls: Vec<Control>,
    /// What the ledger claims and the audit trail contradicts.
    pub contradictions: Vec<Contradiction>,
}

impl Report {
    /// Ledger and audit trail disagree on more than what only describes.
    pub fn contradicts(&self) -> bool {
        let mut found = self.rotations.iter().flat_map(|r| &r.contradictions);
        found.any(|found| found.claim != Claim::Secrets)
    }
}

/// Reads all of it. `noted` is a head of the chain that was noted earlier.
pub async fn report(session: &Session, which: Which, noted: Option<Head>) -> Result<Report> {
    let (connector, mut conn, ids) = open(session, which).await?;
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
    let made = made(session, &connector, &mut conn).await?;
    let doubted = verdict::on_trail(&chain, expected.as_ref());
    let mut rotations = Vec::new();
    for id in ids {
        let timeline = events.iter().filter(|e| e.rotation == Some(id)).cloned().collect();
        let mut rotated = one(session, &mut conn, id, timeline, &made.at, &chain).await?;
        if let Some(doubted) = &doubted {
            rotated.verdict = doubted.clone();
        }
        rotations.push(rotated);
    }
    let latest = rotations.last().map(|latest| latest.verdict.clone());
    let verdict = doubted.or(latest).unwrap_or_else(Verdict::of_nothing);
    let cloudtrail = rotations.iter().flat_map(|r| cloudtrail(&r.rotation)).collect();
    let other_events = events.into_iter().filter(|e| e.rotation.is_none()).collect();
    let generated_by = concat!("rekey ", env!("CARGO_PKG_VERSION"));
    Ok(Report { generated_by, made, verdict, chain, expected, rotations, other_events, cloudtrail })
}

/// What a rotation has come to so far, for a page that is made again and again: its audit trail is not walked.
pub async fn verdict_now(
    session: &Session,
    conn: &mut PgConnection,
    rotation: &Rotation,
) -> std::result::Result<Verdict, StoreError> {
    let direction = rotation.direction();
    let totals = chunk::totals(conn, rotation.id, direction).await?;
    let found = match rotation.verified_clean {
        Some(_) => report::verify_result(conn, rotation.id).await?,
        None => None,
    };
    let found = found.and_then(|found| Found::deserialize(found).ok());
    judged(session, conn, rotation, &totals, found.as_ref(), &[]).await
}

async fn judged(
    session: &Session,
    conn: &mut PgConnection,
    rotation: &Rotation,
    totals: &Counters,
    verify: Option<&Found>,
    disagreements: &[String],
) -> std::result::Result<Verdict, StoreError> {
    let Some(at) = standing::of(session, conn, Some(rotation)).await?.rotation else {
        return Ok(Verdict::of_nothing());
    };
    let direction = rotation.direction();
    let first = pass::latest(conn, rotation.id, direction).await?.filter(|pass| pass.first);
    Ok(verdict::on(&verdict::Facts {
        at: &at,
        key: match direction {
            Direction::Forward => rotation.new_fingerprint,
            Direction::Backward => rotation.old_fingerprint,
        },
        totals,
        expected_rows: first.map_or(0, |pass| pass.estimated_rows),
        verify,
        disagreements,
    }))
}

/// A connection, and the ids of the rotations that are asked for.
async fn open(session: &Session, which: Which) -> Result<(Connector, PgConnection, Vec<Uuid>)> {
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    if !schema::is_there(&mut conn).await? {
        return Err(nothing());
    }
    let known = report::rotations(&mut conn).await?;
    let ids = match which {
        Which::All => known,
        Which::Latest => rotation::latest(&mut conn).await?.map(|r| r.id).into_iter().collect(),
        Which::One(id) if known.contains(&id) => vec![id],
        Which::One(unknown) => {
            return Err(Error::new(Exit::Usage, format!("rotation {unknown} does not exist"))
                .hint("Run `rekey report --all` to list every rotation"));
        }
    };
    Ok((connector, conn, ids))
}

fn nothing() -> Error {
    Error::new(Exit::State, "there is no rotation to report").hint("Run `rekey run` to start a rotation")
}

async fn made(session: &Session, connector: &Connector, conn: &mut PgConnection) -> Result<Made> {
    let Server { version, in_recovery, .. } = connector.server(conn).await?;
    Ok(Made {
        at: report::now(conn).await?,
        commit: option_env!("REKEY_BUILT_FROM").filter(|commit| !commit.is_empty()),
        database: connector.describe().to_owned(),
        server_version: format!("{}.{}", version / 10_000, version % 10_000),
        standby: in_recovery,
        table: TABLE,
        operator: session.actor.operator.clone(),
    })
}

async fn one(
    session: &Session,
    conn: &mut PgConnection,
    id: Uuid,
    timeline: Vec<Event>,
    now: &str,
    chain: &Chain,
) -> Result<Rotated> {
    let rotation = rotation::by_id(conn, id).await?;
    let direction = rotation.direction();
    let forward = chunk::totals(conn, id, Direction::Forward).await?;
    let back = match direction {
        Direction::Backward => Some(chunk::totals(conn, id, Direction::Backward).await?),
        Direction::Forward => None,
    };
    let last_verify = report::verify_result(conn, id).await?;
    let encryptions = encryptions(conn, &rotation).await?;
    let (proofs, proofs_removed_at) = match story::proofs_removed(&timeline) {
        Some((proofs, at)) => (proofs, Some(at)),
        None => (report::proofs(conn, id).await?, None),
    };
    let verifies = story::verifies(&timeline);
    let quarantine = quarantine::list(conn, id).await?;
    let evidence = evidence::of(conn, id).await?;
    let mut disagreements = story::disagreements(rotation.state, rotation.verified_clean, &timeline);
    let others = evidence.contradicted.iter().filter(|c| !matches!(c.claim, Claim::State | Claim::Secrets));
    disagreements
        .extend(others.map(|c| format!("The ledger and the audit trail disagree on {}", c.claim.describe())));
    let found = verifies.last().map(|verify| &verify.found).filter(|_| rotation.verified_clean.is_some());
    let totals = back.as_ref().unwrap_or(&forward);
    let verdict = judged(session, conn, &rotation, totals, found, &disagreements).await?;
    let controls = controls::of(&controls::Facts {
        rotation: &rotation,
        timeline: &timeline,
        encryptions: &encryptions,
        verify: verifies.last(),
        chain,
        quarantine: &quarantine,
    });
    Ok(Rotated {
        verdict,
        phases: story::phases(&timeline, now),
        pauses: story::pauses(&timeline, now),
        passes: report::passes(conn, id).await?,
        throughput: Throughput::read(conn, id).await?,
        verifies,
        quarantine,
        totals: Some(forward),
        totals_rolled_back: back,
        proofs,
        proofs_removed_at,
        rotation,
        encryptions,
        last_verify,
        timeline,
        controls,
        contradictions: evidence.contradicted,
    })
}

/// The application encrypts under the old key until it reads the new one, and then under either; each number is an
/// upper bound.
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
