//! Reads where everything stands from the ledger, for the one table of what may happen next
//! ([`crate::rotation::permits`]). Every job asks it here; nothing is decided in this file.

use std::time::Duration;

use sqlx::PgConnection;

use super::Session;
use crate::engine::VerifyReport;
use crate::engine::lifecycle::busy;
use crate::error::Result;
use crate::rotation::permits::{
    Fact, JustDone, LastPass, LastVerify, Outside, Position, Promotion, Quarantined,
};
use crate::rotation::{
    Claim, Command, Contradicted, PassOutcome, Refusal, Standing, State, Step, next, permits,
};
use crate::secrets::KeySource;
use crate::store::StoreError;
use crate::store::ledger::evidence::{self, Evidence};
use crate::store::ledger::process::SILENT;
use crate::store::ledger::standing::{self, Seen};
use crate::store::ledger::{Rotation, rotation};
use crate::telemetry::ending;

/// The active rotation or else the latest one, and where it stands.
pub async fn latest(
    session: &Session,
    conn: &mut PgConnection,
) -> Result<(Option<Rotation>, Standing), StoreError> {
    let rotation = rotation::latest(conn).await?;
    let standing = of(session, conn, rotation.as_ref()).await?;
    Ok((rotation, standing))
}

/// Where this rotation stands; without one, that none was ever started.
pub async fn of(
    session: &Session,
    conn: &mut PgConnection,
    rotation: Option<&Rotation>,
) -> Result<Standing, StoreError> {
    let Some(r) = rotation else { return Ok(Standing::default()) };
    ending::rotation(r.id);
    let alive = session.lease_ttl.min(SILENT).as_secs_f64();
    let seen = standing::look(conn, r.id, r.direction(), &session.process, alive).await?;
    let evidence = evidence::of(conn, r.id).await?;
    Ok(Standing { rotation: Some(position(r, &seen, &evidence)), just: JustDone::Nothing })
}

/// The latest rotation, if the command fits where it stands.
pub async fn permitted(session: &Session, conn: &mut PgConnection, command: Command) -> Result<Rotation> {
    let (found, standing) = latest(session, conn).await?;
    judge(conn, command, &standing).await?;
    Ok(found.ok_or_else(|| Refusal::no_rotation(command))?)
}

/// Refuses a command that does not fit where this rotation stands.
pub async fn require(
    session: &Session,
    conn: &mut PgConnection,
    command: Command,
    rotation: Option<&Rotation>,
) -> Result<()> {
    let standing = of(session, conn, rotation).await?;
    judge(conn, command, &standing).await
}

/// Asks the table. Where another process is in the way, the server knows which.
async fn judge(conn: &mut PgConnection, command: Command, standing: &Standing) -> Result<()> {
    let Err(refusal) = permits(command, standing) else { return Ok(()) };
    if let Fact::Busy { .. } = refusal.fact
        && let Some(busy) = busy(conn).await?
    {
        return Err(busy);
    }
    Err(refusal.into())
}

/// What comes next for this rotation, after what this process has `just` done.
pub async fn next_steps(
    session: &Session,
    conn: &mut PgConnection,
    rotation: Option<&Rotation>,
    just: JustDone,
) -> Result<Vec<Step>, StoreError> {
    let standing = of(session, conn, rotation).await?;
    Ok(next(&Standing { just, ..standing }))
}

/// What a verify tells of where its rotation stands.
pub fn verdict(report: &VerifyReport) -> LastVerify {
    found(report.clean, report.other_bytes > 0, report.unseen > 0)
}

fn found(clean: bool, other_bytes: bool, unindexed: bool) -> LastVerify {
    match (clean, other_bytes, unindexed) {
        (true, ..) => LastVerify::Clean,
        (false, true, _) => LastVerify::OtherBytes,
        (false, false, true) => LastVerify::Unindexed,
        (false, false, false) => LastVerify::WrongRows,
    }
}

fn position(r: &Rotation, seen: &Seen, evidence: &Evidence) -> Position {
    let age = match r.state {
        State::Promoted => Duration::try_from_secs_f64(seen.state_seconds).unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let writable = KeySource::of(r.target_source.as_ref().unwrap_or(&r.old_source))
        .is_ok_and(|place| place.is_promotable());
    Position {
        id: r.id,
        state: r.state,
        desired: r.desired,
        deadline: r.deadline.as_deref().and_then(|at| at.parse().ok()),
        past_deadline: r.past_deadline,
        workers: usize::try_from(seen.processes).unwrap_or_default(),
        outside: match (seen.rolling_back, seen.promoting) {
            (true, _) => Outside::Rollback,
            (false, true) => Outside::Promotion,
            (false, false) => Outside::Free,
        },
        pass: match seen.pass_outcome {
            Some(PassOutcome::Clean) => LastPass::Clean,
            Some(PassOutcome::Unsettled) => LastPass::Unsettled,
            Some(PassOutcome::Superseded | PassOutcome::Cancelled) | None => LastPass::Open,
        },
        quarantine: Quarantined { open: seen.unaccepted, accepted: seen.accepted },
        verify: match seen.verified_clean {
            Some(_) if seen.outdated || evidence.contradicts(Claim::Verify) => LastVerify::None,
            Some(clean) => found(clean, seen.other_bytes, seen.unseen),
            None => LastVerify::None,
        },
        promotion: r.promoting_at.is_some().then_some(Promotion {
            age,
            verified_since: seen.verified_in_this_state && r.state == State::Promoted,
        }),
        external: r.external || !writable,
        compromised: evidence.compromised,
        contradicted: evidence
            .contradicted
            .iter()
            .find(|found| found.claim.is_acted_upon())
            .map(|found| Contradicted { claim: found.claim, trail: evidence.state }),
    }
}
