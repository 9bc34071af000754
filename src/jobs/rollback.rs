//! `rollback`: the same engine with the keys exchanged, from any state before `finalize`; then what the application
//! reads is changed back. Each half may be repeated, and another process may have done it already.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::exposure::warn_of_git;
use super::interrupt::unless_stopped;
use super::key_pair::{self, KeyPair, NamedKeys, Role};
use super::last_copy::{self, By};
use super::preflight::{PreflightRequest, no_replica, preflight, usable_ledger};
use super::settled::{Ended, Settled, settle};
use super::shared_key::{self, Move};
use super::work::{self, WorkRequest};
use super::{Session, access, cache_after, resumed, standing};
use crate::engine::lifecycle::{Exclusive, Hand, Kept, Target, Yields, clean_up, unpromote};
use crate::engine::{End, Settings, Stop};
use crate::error::Result;
use crate::program::Program;
use crate::rotation::throttle::Limits;
use crate::rotation::{Command, Counters, Desired, Direction, State};
use crate::store::ledger::{Rotation, chunk, quarantine, rotation};
use crate::store::preflight::For;
use crate::store::{Connector, Purpose, connect, schema};

/// What is asked for.
pub struct RollbackRequest {
    /// Whoever asks knows that the old key is compromised, and returns rows to it all the same.
    pub despite_compromise: bool,
    /// What gives the application the old key, where a program gave it the new one.
    pub program: Option<Program>,
    /// Where the keys are.
    pub keys: NamedKeys,
    /// Work settings.
    pub work: WorkRequest,
}

impl RollbackRequest {
    /// The command, for the table of what is permitted.
    pub fn command(&self) -> Command {
        Command::Rollback { deadline: self.work.deadline.is_some(), compromised: self.despite_compromise }
    }
}

/// Returns every row to the old key, and the application to it.
pub async fn rollback(session: &Session, request: &RollbackRequest, mut stop: Stop) -> Result<Settled> {
    let connector = session.connector()?;
    let prepared = prepare(session, request, &connector);
    let Prepared { rotation, keys, how, before } = unless_stopped(&mut stop, prepared).await?;
    let rows = async || {
        let rewrapper = work::rewrapper(&keys, rotation.id, Direction::Backward, None)?;
        work::drive(session, &rotation, Direction::Backward, rewrapper, how.clone(), stop.clone()).await
    };
    let outside = async || leave(session, request, &connector, &rotation, &keys).await;
    let (first, took) = match rotation.state {
        State::Unpromoting => (End::Superseded(State::Unpromoting), Duration::ZERO),
        _ => rows().await?,
    };
    let (end, took, cache) = match first {
        End::Clean => (first, took, outside().await?),
        // Rows were back before the outside was touched, by another process or long ago: whatever the application has
        // written since is swept up once it reads the old key again.
        End::Superseded(State::Unpromoting | State::RolledBack) => {
            let cache = outside().await?;
            let (end, more) = rows().await?;
            (end, took + more, cache)
        }
        _ => (first, took, None),
    };
    drop(keys);
    let mut conn = work::connect_to_tell(&connector, &end).await?;
    let ended = Ended { direction: Direction::Backward, end, took, before, cache };
    settle(session, &mut conn, rotation.id, ended).await
}

/// The outside half, once every row is back: the application is given the old key again. Says what became of the
/// cache. Repeated, it takes off what a killed one left.
async fn leave(
    session: &Session,
    request: &RollbackRequest,
    connector: &Connector,
    rotation: &Rotation,
    keys: &KeyPair,
) -> Result<Option<String>> {
    let mut conn = connector.connect(Purpose::Control).await?;
    if quarantine::unaccepted(&mut conn, rotation.id).await? > 0 {
        return Ok(None);
    }
    let to_be_left = async |conn: &mut PgConnection| {
        Ok(rotation::by_id(conn, rotation.id).await?.state != State::RolledBack)
    };
    let Some(mut alone) = Exclusive::among_rollbacks(&mut conn, session.signed(), to_be_left).await? else {
        // Another process did all of it, and sees to the cache.
        return Ok(None);
    };
    let now = rotation::by_id(alone.conn(), rotation.id).await?;
    let source = request.keys.target_of(&now)?;
    let target = Target { sources: &session.sources, rotation: &now, source };
    match now.state {
        // Whoever got so far may have been killed before the rest.
        State::RolledBack => {
            clean_up(&target).await;
            target.drop_new_key_copy(&keys.new.source);
        }
        _ => {
            // Rows took their time: another database may have begun with this key, or have finalized, meanwhile.
            if now.promoting_at.is_some() && !matches!(target.look().await, Ok(Yields::Old)) {
                let (conn, allowed) = (alone.conn(), &request.work.allowed);
                shared_key::refuse(session, conn, &target, Move::Rollback, allowed).await?;
            }
            let (old, new_found_at) = (&keys.old.key, &keys.new.source);
            let kept = new_key_kept(session, request, &target).await?;
            let hand = match &request.program {
                Some(program) => Hand::Program(program, kept.as_ref()),
                None => Hand::Owner(Duration::ZERO),
            };
            unpromote(&mut alone, &target, old, new_found_at, hand, &session.actor).await?;
        }
    }
    if now.promoting_at.is_some() {
        target.files().iter().for_each(|path| warn_of_git(path));
    }
    let cache = cache_after::purge(session, alone.conn(), &now).await;
    alone.give_back().await?;
    connect::close(conn).await;
    Ok(Some(cache))
}

/// What stays of the new key where rekey does not write the old one back itself: rows that are saved until the application
/// is restarted open with the new key alone.
async fn new_key_kept(
    session: &Session,
    request: &RollbackRequest,
    target: &Target<'_>,
) -> Result<Option<Kept>> {
    let r = target.rotation;
    let by_rekey = r.promoting_at.is_none() || target.is_writable() && !r.external;
    if by_rekey || !matches!(target.look().await, Ok(Yields::New)) {
        return Ok(None);
    }
    let by = if request.program.is_some() { By::Program } else { By::Owner };
    last_copy::look(session, &request.keys, target, Role::New, by).await
}

/// What the engine needs to start, and the keys for what comes after it.
struct Prepared {
    rotation: Rotation,
    keys: KeyPair,
    how: (Settings, Limits),
    before: Counters,
}

/// Checks state, keys and preflight, then starts the rollback in one transaction. May be interrupted anywhere.
async fn prepare(session: &Session, request: &RollbackRequest, connector: &Connector) -> Result<Prepared> {
    let mut conn = connector.connect(Purpose::Control).await?;
    usable_ledger(&mut conn, &request.work.allowed).await?;
    schema::upgrade(&mut conn).await?;
    let rotation = standing::permitted(session, &mut conn, request.command()).await?;
    let keys = key_pair::for_rotation(session, &request.keys, &rotation).await?;
    // Before anything turns: a rollback that could not be finished is worse than none.
    let limits = request.work.limits(Direction::Backward);
    let asked = PreflightRequest {
        purpose: For::Rollback,
        allowed: &request.work.allowed,
        limits: &limits,
        direction: Direction::Backward,
        fresh: false,
    };
    let report = preflight(session, connector, &mut conn, &keys, asked).await?.into_result()?;
    let settings = request.work.settings(session, &report.facts);

    if rotation.state.may_roll_back() {
        // Not while another process is promoting.
        let to_be_turned = async |conn: &mut PgConnection| {
            Ok(rotation::by_id(conn, rotation.id).await?.state.may_roll_back())
        };
        let ours = match Exclusive::among_rollbacks(&mut conn, session.signed(), to_be_turned).await? {
            Some(mut alone) => {
                let ours = turn(session, request, &mut alone, rotation.id).await?;
                alone.give_back().await?;
                ours
            }
            None => false,
        };
        if !ours {
            tracing::info!("Another process started the rollback; joining it");
        }
    } else if rotation.desired == Desired::Aborted {
        rotation::set_desired(&mut conn, rotation.id, Desired::Running, &session.actor).await?;
    }
    request.work.store_deadline(session, &mut conn, rotation.id).await?;
    access::record(session, &mut conn, rotation.id, "rollback", access::both(&keys)).await?;
    let before = chunk::totals(&mut conn, rotation.id, Direction::Backward).await?;
    if !rotation.state.may_roll_back() {
        resumed::tell(session, &mut conn, &rotation, Direction::Backward, &before).await?;
    }
    let rotation = rotation::by_id(&mut conn, rotation.id).await?;
    connect::close(conn).await;
    Ok(Prepared { rotation, keys, how: (settings, limits), before })
}

/// Turns the rotation round, as it stands now that this process holds the lock: a promotion may have ended since it was
/// read. False where another process has turned it.
async fn turn(
    session: &Session,
    request: &RollbackRequest,
    alone: &mut Exclusive<'_>,
    id: Uuid,
) -> Result<bool> {
    let now = rotation::by_id(alone.conn(), id).await?;
    standing::require(session, alone.conn(), request.command(), Some(&now)).await?;
    if !now.state.may_roll_back() {
        return Ok(false);
    }
    if now.promoting_at.is_some() {
        let source = request.keys.target_of(&now)?;
        let target = Target { sources: &session.sources, rotation: &now, source };
        let (conn, allowed) = (alone.conn(), &request.work.allowed);
        shared_key::refuse(session, conn, &target, Move::Rollback, allowed).await?;
        // A rollback that could not be finished is worse than none.
        if target.is_writable() && !now.external {
            no_replica(session, &target).await?;
        }
        new_key_kept(session, request, &target).await?;
    }
    Ok(rotation::turn_back(alone.conn(), id, &session.actor).await?)
}
