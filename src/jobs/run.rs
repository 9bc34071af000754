//! `run`: starts a rotation, or joins or resumes the active one. Checked in this order: state, keys, preflight, work;
//! usage was checked before it. The rows are re-encrypted by the engine ([`crate::engine::execute`]).

use serde_json::json;
use sqlx::PgConnection;

use super::interrupt::unless_stopped;
use super::key_pair::{self, KeyPair, NamedKeys};
use super::preflight::{PreflightRequest, preflight, usable_ledger};
use super::settled::{Ended, Settled, settle};
use super::work::{self, WorkRequest};
use super::{Session, access, resumed, standing};
use crate::crypto::Rewrapper;
use crate::engine::{Settings, Stop, lifecycle};
use crate::error::{Error, Exit, Result};
use crate::rotation::throttle::Limits;
use crate::rotation::{Command, Counters, Direction, State};
use crate::secrets::KeySource;
use crate::store::ledger::rotation::{self, NewRotation};
use crate::store::ledger::{Rotation, chunk, retention};
use crate::store::preflight::{For, Report};
use crate::store::{Connector, Purpose, connect, schema};
use crate::telemetry::ending;

/// What is asked for.
pub struct RunRequest {
    /// The old key is known to others.
    pub compromised: bool,
    /// A still older key that rows may be on: they move to the new key too.
    pub also_key: Option<KeySource>,
    /// Where the keys are.
    pub keys: NamedKeys,
    /// Work settings.
    pub work: WorkRequest,
}

impl RunRequest {
    fn command(&self) -> Command {
        Command::Run { deadline: self.work.deadline.is_some() }
    }
}

/// Re-encrypts every row, until a closing proof shows that none is left on the old key or something ends it.
pub async fn run(session: &Session, request: &RunRequest, mut stop: Stop) -> Result<Settled> {
    let connector = session.connector()?;
    let prepared = prepare(session, request, &connector);
    let Prepared { rotation, rewrapper, how, before } = unless_stopped(&mut stop, prepared).await?;
    let (end, took) = work::drive(session, &rotation, Direction::Forward, rewrapper, how, stop).await?;
    let mut conn = work::connect_to_tell(&connector, &end).await?;
    let ended = Ended { direction: Direction::Forward, end, took, before, cache: None };
    settle(session, &mut conn, rotation.id, ended).await
}

/// What the engine needs to start.
struct Prepared {
    rotation: Rotation,
    rewrapper: Rewrapper,
    how: (Settings, Limits),
    before: Counters,
}

/// State, keys, preflight; then the rotation is recorded or joined. May be given up anywhere: the
/// rotation's row is one transaction, and earlier events and staging labels do no harm.
async fn prepare(session: &Session, request: &RunRequest, connector: &Connector) -> Result<Prepared> {
    let mut conn = connector.connect(Purpose::Control).await?;
    usable_ledger(&mut conn, &request.work.allowed).await?;
    schema::upgrade(&mut conn).await?;
    let latest = rotation::latest(&mut conn).await?;
    // One that is over by what the ledger says has to be by what the audit trail says, too.
    let over = latest.clone().filter(|r| !r.state.is_active());
    let mut active = latest.filter(|r| r.state.is_active());
    request.work.refuse_early_deadline(&mut conn, active.as_ref()).await?;
    let (command, limits) = (request.command(), request.work.limits(Direction::Forward));
    let (keys, report) = loop {
        if let Some(active) = &active {
            standing::require(session, &mut conn, command, Some(active)).await?;
        }
        let keys = match &active {
            Some(active) => key_pair::for_rotation(session, &request.keys, active).await?,
            None => key_pair::for_new(session, &request.keys).await?,
        };
        if active.is_none() {
            refuse_compromised(&mut conn, &keys).await?;
        }
        let purpose = PreflightRequest {
            purpose: For::Run,
            allowed: &request.work.allowed,
            limits: &limits,
            direction: Direction::Forward,
            fresh: active.is_none(),
        };
        let refused = match preflight(session, connector, &mut conn, &keys, purpose).await?.into_result() {
            Ok(report) => break (keys, report),
            Err(refused) => refused,
        };
        // What is no state to begin in may be where a rotation stands that another process has begun since.
        let begun = rotation::latest(&mut conn).await?.filter(|r| r.state.is_active());
        if active.is_some() || begun.is_none() {
            let fits =
                standing::require(session, &mut conn, command, over.as_ref().or(active.as_ref())).await;
            return Err(fits.err().filter(|e| e.exit == Exit::State).unwrap_or(refused));
        }
        active = begun;
    };
    let settings = request.work.settings(session, &report.facts);
    let resumes = active.is_some();
    let rotation = match active {
        Some(active) => active,
        None => {
            standing::require(session, &mut conn, command, over.as_ref()).await?;
            begin(session, request, &mut conn, &keys, &report).await?
        }
    };
    if request.compromised && !rotation.compromised {
        rotation::set_compromised(&mut conn, rotation.id, &session.actor).await?;
    }
    let mut accessed = access::both(&keys);
    let also = access::also(session, request.also_key.as_ref(), &mut accessed).await?;
    access::record(session, &mut conn, rotation.id, "run", accessed).await?;
    if rotation.state == State::Migrating
        && let Err(error) = lifecycle::pin(&session.sources, &rotation).await
    {
        tracing::warn!(%error, "Couldn't add staging labels to the key versions; `rekey promote` will add \
            them or refuse");
    }
    request.work.store_deadline(session, &mut conn, rotation.id).await?;
    let before = chunk::totals(&mut conn, rotation.id, Direction::Forward).await?;
    if resumes {
        resumed::tell(session, &mut conn, &rotation, Direction::Forward, &before).await?;
    }
    let rewrapper = work::rewrapper(&keys, rotation.id, Direction::Forward, also.as_ref())?;
    drop((keys, also));
    connect::close(conn).await;
    Ok(Prepared { rotation, rewrapper, how: (settings, limits), before })
}

/// A key that others know is never rotated to again, and the pair of a compromised rotation is used up, whichever
/// way it ended.
async fn refuse_compromised(conn: &mut PgConnection, keys: &KeyPair) -> Result<()> {
    let (old, new) = (keys.old.record.fingerprint, keys.new.record.fingerprint);
    let refuse = |what: String| {
        Err(Error::new(Exit::Key, what).hint(
            "Generate a new key with `rekey keys generate encryption --to SOURCE` and name it with \
             `--new-key SOURCE`",
        ))
    };
    for earlier in rotation::compromised(conn).await? {
        if earlier.old_fingerprint == new {
            return refuse(format!("the new key is the compromised key of rotation {}", earlier.id));
        }
        if earlier.old_fingerprint == old && earlier.new_fingerprint == new {
            return refuse(format!("rotation {} was compromised and had this same pair of keys", earlier.id));
        }
    }
    Ok(())
}

/// Records the rotation, or joins the one that another pod recorded in the same second.
async fn begin(
    session: &Session,
    request: &RunRequest,
    conn: &mut PgConnection,
    keys: &KeyPair,
    preflight: &Report,
) -> Result<Rotation> {
    schema::ensure(conn).await?;
    let new = NewRotation {
        id: crate::entropy::id(),
        old: keys.old.record.clone(),
        new: keys.new.record.clone(),
        compromised: request.compromised,
        plan: json!({ "findings": preflight.findings, "rows_estimated": preflight.facts.rows, "sample": preflight.sample }),
        settings: json!({
            "workers": request.work.workers, "batch_rows": request.work.batch_rows, "chunk_rows": request.work.chunk_rows,
            "allow": request.work.allowed.names(), "version": env!("CARGO_PKG_VERSION"),
        }),
    };
    let (rotation, ours) = rotation::begin(conn, &new, &session.actor).await?;
    ending::rotation(rotation.id);
    if ours {
        let (old, new) = (rotation.old_fingerprint, rotation.new_fingerprint);
        tracing::info!(rotation = %rotation.id, %old, %new, "Rotation started");
        // Nothing depends on it: what is left goes when the next rotation begins.
        if let Err(error) = retention::remove(conn, rotation.id, &session.actor).await {
            tracing::warn!(%error, "Couldn't remove the proofs of an ended rotation; the next rotation will");
        }
        return Ok(rotation);
    }
    standing::require(session, conn, request.command(), Some(&rotation)).await?;
    if rotation.old_fingerprint != keys.old.record.fingerprint
        || rotation.new_fingerprint != keys.new.record.fingerprint
    {
        return Err(Error::new(
            Exit::Key,
            format!("another process started rotation {} with other keys", rotation.id),
        )
        .hint("Run `rekey status` to see its fingerprints"));
    }
    Ok(rotation)
}
