//! `finalize`: ends the rotation on the new key, after one more clean verify. Irreversible.

use std::time::Duration;

use sqlx::PgConnection;

use super::key_pair::{self, NamedKeys, Role};
use super::verify::{self, How};
use super::{Session, preflight, standing};
use crate::engine::Stop;
use crate::engine::lifecycle::{
    self, End, Ending, Exclusive, Target, clean_up, end_pending, is_settled, settle,
};
use crate::error::Result;
use crate::rotation::permits::JustDone;
use crate::rotation::{Command, Direction, State, Step};
use crate::secrets::{AppKey, KeySource, application_source};
use crate::store::ledger::{Rotation, chunk, quarantine, rotation};
use crate::store::preflight::{Allowed, Finding, other_credentials, other_database};
use crate::store::{Purpose, audit};

/// What is asked for.
pub struct FinalizeRequest {
    /// Days in which the temporary secret can still be restored.
    pub recovery_window: u8,
    /// Findings that the operator allows.
    pub allowed: Allowed,
    /// Connections that read at a time while it verifies.
    pub workers: usize,
    /// Where the keys are.
    pub keys: NamedKeys,
}

/// What the end of a rotation reports.
pub struct Finalized {
    /// What was done outside the database.
    pub ending: Ending,
    /// The rotation as it stands now.
    pub rotation: Rotation,
    /// Rows that an operator accepted as they are.
    pub accepted: i64,
    /// Other tables with credentials, which are still on the key that they were on.
    pub others: Option<Finding>,
    /// What to do next.
    pub next: Vec<Step>,
    /// The head of the audit chain.
    pub event_head: String,
}

/// Ends the rotation.
pub async fn finalize(session: &Session, request: &FinalizeRequest, stop: Stop) -> Result<Finalized> {
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    let latest = rotation::latest(&mut conn).await?;
    if let Some(over) = latest.filter(|r| r.state == State::Finalized)
        && other_database(&mut conn, over.id).await?.is_none()
    {
        put_in_order(session, request, &mut conn, &over).await?;
    }
    let r = standing::permitted(session, &mut conn, Command::Finalize).await?;
    let mut alone = Exclusive::take(&mut conn, session.signed()).await?;
    // Before this process held the lock, a rollback may have turned the rotation round.
    let r = rotation::by_id(alone.conn(), r.id).await?;
    standing::require(session, alone.conn(), Command::Finalize, Some(&r)).await?;
    let target = Target { sources: &session.sources, rotation: &r, source: request.keys.target_of(&r)? };
    preflight::primary_only(&connector, alone.conn(), "finalize").await?;
    preflight::same_database(session, alone.conn(), r.id, "finalize", &request.allowed).await?;
    let others = other_credentials(alone.conn()).await?;
    if r.state == State::Promoted {
        target.look_for_either().await?;
        // Promoted from a verify that saw rows: whoever deleted them since did not ask rekey.
        let how = How { workers: request.workers, may_be_empty: true };
        let mut checked =
            verify::check(session, &request.keys, &connector, alone.conn(), &r, how, stop).await?;
        verify::record(session, &connector, alone.conn(), &r, "finalize", &mut checked).await?;
        checked.report.into_clean()?;
    }
    if !is_settled(&target).await? {
        let new = key_pair::one(session, &request.keys, &r, Role::New).await?;
        settle(&mut alone, &target, &new.key).await?;
    }
    let read = application_source(AppKey::Encryption, request.keys.layout, &session.application).ok();
    let end = End {
        recovery_days: request.recovery_window,
        application: read.as_ref().and_then(KeySource::aws),
        actor: &session.actor,
    };
    let ending = lifecycle::finalize(&mut alone, &target, end).await?;
    let now = rotation::by_id(alone.conn(), r.id).await?;
    let quarantined = chunk::totals(alone.conn(), r.id, Direction::Forward).await?.quarantined;
    let accepted = quarantined - quarantine::unaccepted(alone.conn(), r.id).await?;
    let next = standing::next_steps(session, alone.conn(), Some(&now), JustDone::Nothing).await?;
    let (seq, hash) = audit::head(alone.conn()).await?;
    alone.give_back().await?;
    Ok(Finalized { ending, rotation: now, accepted, others, next, event_head: format!("{seq}:{hash}") })
}

/// How long the labels of a rotation that is over may hold the refusal up.
const BRIEFLY: Duration = Duration::from_secs(5);

/// An earlier finalize may have been killed after its last commit, before its labels and its backup were gone.
async fn put_in_order(
    session: &Session,
    request: &FinalizeRequest,
    conn: &mut PgConnection,
    r: &Rotation,
) -> Result<()> {
    if Exclusive::take(conn, session.signed()).await.is_ok() {
        let target = Target { sources: &session.sources, rotation: r, source: request.keys.target_of(r)? };
        let in_order = async {
            end_pending(&target).await;
            clean_up(&target).await;
        };
        if tokio::time::timeout(BRIEFLY, in_order).await.is_err() {
            tracing::warn!("Couldn't look for rekey's staging labels within {BRIEFLY:?}");
        }
    }
    Ok(())
}
