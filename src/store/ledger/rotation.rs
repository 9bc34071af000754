//! `rekey.rotations`: one row per move from an old to a new key; at most one active.

pub(super) mod deadline;
pub(super) mod lock;
pub(super) mod turn;

pub use deadline::{Moved, clock, deadline_by, left_until, set_deadline};
pub use turn::{set_desired, turn_back};

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::crypto::Fingerprint;
use crate::rotation::{Desired, Direction, KeyRole, RecordedSource, State};
use crate::store::audit::{self, Actor};
use crate::store::error::{Statement, StoreError};
use crate::store::origin::Origin;
use crate::store::statement::{binds, row, statements};
use crate::store::{encoding, schema};

/// A rotation as recorded.
#[derive(Clone, Debug, Serialize)]
pub struct Rotation {
    /// UUIDv7.
    pub id: Uuid,
    /// Where it stands.
    pub state: State,
    /// What the operator wants.
    pub desired: Desired,
    /// The key rows come from.
    pub old_fingerprint: Fingerprint,
    /// The key rows go to.
    pub new_fingerprint: Fingerprint,
    /// Where the old key was read at the start.
    pub old_source: RecordedSource,
    /// Where the new key was read at the start.
    pub new_source: RecordedSource,
    /// ARN of the old key's secret, if it is in Secrets Manager.
    pub old_arn: Option<String>,
    /// ARN of the new key's secret.
    pub new_arn: Option<String>,
    /// Version id of the old key.
    pub old_version: Option<String>,
    /// Version id of the new key.
    pub new_version: Option<String>,
    /// Where promote wrote, or will write, the new key.
    pub target_source: Option<RecordedSource>,
    /// Version id promote made.
    pub promoted_version: Option<String>,
    /// When `promoting` was first written.
    pub promoting_at: Option<String>,
    /// Promoted by someone's own hand.
    pub external: bool,
    /// The old key is known to others.
    pub compromised: bool,
    /// RFC 3339; past it workers stop with 9.
    pub deadline: Option<String>,
    /// The deadline has passed, by the database's clock.
    pub past_deadline: bool,
    /// Who started it.
    pub operator: String,
    /// Why.
    pub reason: Option<String>,
    /// Last verify.
    pub verified_at: Option<String>,
    /// Its result.
    pub verified_clean: Option<bool>,
    /// Start, RFC 3339.
    pub created_at: String,
    /// Seconds since the start.
    pub age_seconds: f64,
}

macro_rules! columns {
    () => {
        "id, state, desired, old_fingerprint, new_fingerprint, old_source, new_source, old_arn, new_arn, old_version, \
         new_version, target_source, promoted_version, \
         to_char(promoting_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS promoting_at, external, compromised, \
         to_char(deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS deadline, \
         coalesce(deadline < clock_timestamp(), false) AS past_deadline, operator, reason, \
         to_char(verified_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS verified_at, verified_clean, \
         to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS created_at, \
         extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_seconds"
    };
}

row!(Rotation {
    id,
    state,
    desired,
    old_fingerprint,
    new_fingerprint,
    old_source,
    new_source,
    old_arn,
    new_arn,
    old_version,
    new_version,
    target_source,
    promoted_version,
    promoting_at,
    external,
    compromised,
    deadline,
    past_deadline,
    operator,
    reason,
    verified_at,
    verified_clean,
    created_at,
    age_seconds
});

/// What a new rotation starts from.
pub struct NewRotation {
    /// UUIDv7.
    pub id: Uuid,
    /// Fingerprint, source, ARN and version of the old key.
    pub old: KeyRecord,
    /// The same of the new key.
    pub new: KeyRecord,
    /// The old key is known to others.
    pub compromised: bool,
    /// What preflight found, for the record.
    pub plan: Value,
    /// Settings and allowed findings, for the record.
    pub settings: Value,
}

/// How a key is recorded: never its bytes.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// Which key.
    pub fingerprint: Fingerprint,
    /// Where it was read.
    pub source: RecordedSource,
    /// Secret ARN.
    pub arn: Option<String>,
    /// Secret version id.
    pub version: Option<String>,
}

binds!(KeyRecord { fingerprint, source, arn, version });

statements! {
    fn active_or_latest() -> Optional<Rotation> during READ:
        concat!(
            "SELECT ", columns!(), " FROM rekey.rotations WHERE table_name = 'public.provider_connections' \
             ORDER BY (state NOT IN ('finalized', 'rolled_back')) DESC, created_at DESC, id DESC LIMIT 1"
        );

    // By the table or by its events: whoever may write the one does not write the other with it.
    fn all_compromised() -> All<(Uuid, Fingerprint, Fingerprint)> during "read the compromised rotations":
        "SELECT id, old_fingerprint, new_fingerprint FROM rekey.rotations \
         WHERE table_name = 'public.provider_connections' AND compromised UNION \
         SELECT s.rotation, s.detail->>'old_fingerprint', s.detail->>'new_fingerprint' FROM rekey.events s \
         WHERE s.action = 'start' AND s.rotation IS NOT NULL AND (coalesce((s.detail->>'compromised')::boolean, false) \
         OR EXISTS (SELECT FROM rekey.events e WHERE e.rotation = s.rotation AND e.action = 'compromised')) ORDER BY 1 DESC";

    /// Ids of the rotations that are over.
    pub fn over() -> All<Uuid> during "list the rotations that are over":
        "SELECT id FROM rekey.rotations WHERE state IN ('finalized', 'rolled_back')";

    // 0.1.0 recorded no version at the end: it is the one that the old key was read from.
    fn retired(key: Fingerprint) -> All<Option<String>> during "list the keys that were retired":
        "SELECT coalesce((SELECT e.detail->>'retired_version' FROM rekey.events e WHERE e.rotation = r.id \
         AND e.action = 'finalized' ORDER BY e.seq DESC LIMIT 1), r.old_version) \
         FROM rekey.rotations r WHERE r.state = 'finalized' AND r.old_fingerprint = $1";

    /// One rotation by id.
    pub fn by_id(id: Uuid) -> One<Rotation> during READ:
        concat!("SELECT ", columns!(), " FROM rekey.rotations WHERE id = $1");

    fn insert(
        id: Uuid, old: &KeyRecord, new: &KeyRecord, compromised: bool, settings: &Value, actor: &Actor
    ) during "record the rotation":
        "INSERT INTO rekey.rotations (id, table_name, state, old_fingerprint, old_source, old_arn, old_version, \
         new_fingerprint, new_source, new_arn, new_version, compromised, settings, operator, reason, created_at) \
         VALUES ($1, 'public.provider_connections', 'migrating', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
         greatest(clock_timestamp(), (SELECT max(created_at) + interval '1 microsecond' FROM rekey.rotations)))";

    fn change_state(id: Uuid, from: &[State], to: State) -> Affected during "change the rotation's state":
        "UPDATE rekey.rotations SET state = $3, state_since = clock_timestamp(), \
         promoting_at = CASE WHEN $3 = 'promoting' THEN coalesce(promoting_at, clock_timestamp()) ELSE promoting_at END, \
         desired = CASE WHEN $3 = 'rolled_back' THEN 'running' ELSE desired END, \
         deadline = CASE WHEN $3 = 'rolled_back' THEN NULL ELSE deadline END \
         WHERE id = $1 AND state = ANY($2)";

    fn mark_compromised(id: Uuid) -> Affected during COMPROMISED:
        "UPDATE rekey.rotations SET compromised = true WHERE id = $1 AND NOT compromised";

    /// Records where a promotion writes, and whether by someone else's hand.
    pub fn set_target(id: Uuid, target: &RecordedSource, external: bool) during "record the promotion's target":
        "UPDATE rekey.rotations SET target_source = $2, external = $3 WHERE id = $1";

    /// Records the version a promotion made current.
    pub fn set_promoted_version(id: Uuid, version: Option<&str>) during "record the promoted version":
        "UPDATE rekey.rotations SET promoted_version = coalesce($2, promoted_version) WHERE id = $1";

    fn set_verified(id: Uuid, clean: bool, result: &Value, states: &[State]) -> Affected during VERIFIED:
        "UPDATE rekey.rotations SET verified_at = clock_timestamp(), verified_clean = $2, verify_result = $3 \
         WHERE id = $1 AND state = ANY($4) \
         AND NOT EXISTS (SELECT FROM rekey.rotations n WHERE n.created_at > rotations.created_at)";
}

const READ: &str = "read the rotation";
const COMPROMISED: &str = "record that the old key is compromised";
const VERIFIED: &str = "record the verify";

/// The active rotation, or else the latest one. `None` where rekey never ran.
pub async fn latest(conn: &mut PgConnection) -> Result<Option<Rotation>, StoreError> {
    match schema::is_there(conn).await? {
        true => active_or_latest(conn).await,
        false => Ok(None),
    }
}

/// Every rotation whose old key others know, as its row or the trail says. Empty where rekey never ran.
pub async fn compromised(conn: &mut PgConnection) -> Result<Vec<Compromised>, StoreError> {
    let found = match schema::is_there(conn).await? {
        true => all_compromised(conn).await?,
        false => Vec::new(),
    };
    let of = |(id, old_fingerprint, new_fingerprint)| Compromised { id, old_fingerprint, new_fingerprint };
    Ok(found.into_iter().map(of).collect())
}

/// A rotation away from a key that others know.
pub struct Compromised {
    /// Its id.
    pub id: Uuid,
    /// The key that others know.
    pub old_fingerprint: Fingerprint,
    /// The key that rows went to.
    pub new_fingerprint: Fingerprint,
}

/// Versions of secrets that finished rotations of this ledger have labelled as retired, holding this key.
pub async fn retired_versions(conn: &mut PgConnection, key: Fingerprint) -> Result<Vec<String>, StoreError> {
    Ok(retired(conn, key).await?.into_iter().flatten().collect())
}

/// Records a new rotation unless another process has just done so; returns the active one and whether it is ours.
pub async fn begin(
    conn: &mut PgConnection,
    new: &NewRotation,
    actor: &Actor,
) -> Result<(Rotation, bool), StoreError> {
    let mut tx = conn.begin().during("begin").await?;
    lock::lock(&mut tx).await?;
    if let Some(active) = latest(&mut tx).await?.filter(|r| r.state.is_active()) {
        tx.rollback().during("roll back").await?;
        return Ok((active, false));
    }
    turn::fence_what_is_over(&mut tx).await?;
    let named = actor.fitting(&mut tx).await?;
    let settings = encoding::fit_json(&mut tx, new.settings.clone()).await?;
    insert(&mut tx, new.id, &new.old, &new.new, new.compromised, &settings, &named).await?;
    Origin::record(&mut tx, new.id).await?;
    let detail = json!({
        "old_fingerprint": new.old.fingerprint, "new_fingerprint": new.new.fingerprint,
        "old_source": new.old.source, "new_source": new.new.source,
        "old_version": new.old.version, "new_version": new.new.version,
        "old_arn": new.old.arn, "new_arn": new.new.arn,
        "compromised": new.compromised, "settings": new.settings,
    });
    audit::append(&mut tx, Some(new.id), "plan", actor, new.plan.clone()).await?;
    audit::append(&mut tx, Some(new.id), "start", actor, detail.clone()).await?;
    audit::append_to_application(
        &mut tx,
        crate::entropy::id(),
        new.id,
        "ENCRYPTION_KEY_ROTATION_STARTED",
        actor,
        &detail,
    )
    .await?;
    let rotation = by_id(&mut tx, new.id).await?;
    tx.commit().during("record the rotation").await?;
    Ok((rotation, true))
}

/// Moves a rotation to another state if it is in one of `from`; true if it did. Writes the event beside it. One that is
/// rolled back cannot be paused or resumed any more, and yet late writers are swept up: nothing of that may stay.
/// Call inside a transaction of the caller's.
pub async fn advance(
    conn: &mut PgConnection,
    id: Uuid,
    from: &[State],
    to: State,
    actor: &Actor,
    detail: Value,
) -> Result<bool, StoreError> {
    let moved = change_state(conn, id, from, to).await? == 1;
    if moved {
        record(conn, id, to, actor, detail).await?;
    }
    Ok(moved)
}

/// Writes the event of a state, here and to the application's trail. Call inside a transaction of the caller's.
pub async fn record(
    conn: &mut PgConnection,
    id: Uuid,
    state: State,
    actor: &Actor,
    detail: Value,
) -> Result<(), StoreError> {
    audit::append(conn, Some(id), state.as_str(), actor, detail.clone()).await?;
    let action = format!("ENCRYPTION_KEY_{}", state.as_str().to_uppercase());
    audit::append_to_application(conn, crate::entropy::id(), id, &action, actor, &detail).await.map(drop)
}

/// Records that the old key is known to others, which may become known while a rotation is under way.
pub async fn set_compromised(conn: &mut PgConnection, id: Uuid, actor: &Actor) -> Result<(), StoreError> {
    let mut tx = conn.begin().during("begin").await?;
    if mark_compromised(&mut tx, id).await? == 1 {
        audit::append(&mut tx, Some(id), "compromised", actor, json!({})).await?;
    }
    tx.commit().during(COMPROMISED).await
}

/// Records a verify's result with its event. Records nothing, and returns `false`, if a rollback has begun meanwhile.
pub async fn record_verify(
    conn: &mut PgConnection,
    rotation: &Rotation,
    clean: bool,
    result: Value,
    actor: &Actor,
) -> Result<bool, StoreError> {
    let (id, direction) = (rotation.id, rotation.direction());
    let states: Vec<State> =
        State::ALL.iter().copied().filter(|state| state.direction() == direction).collect();
    let mut tx = conn.begin().during("begin").await?;
    lock::be_patient(&mut tx).await?;
    if set_verified(&mut tx, id, clean, &result, &states).await? == 0 {
        return Ok(false);
    }
    audit::append(&mut tx, Some(id), "verify", actor, result).await?;
    tx.commit().during(VERIFIED).await.map(|()| true)
}

impl Rotation {
    /// The key that the application is given, where that is settled, and its fingerprint.
    pub fn application_reads(&self) -> Option<(KeyRole, Fingerprint)> {
        let role = self.state.application_reads(self.promoting_at.is_some())?;
        Some((role, if role == KeyRole::Old { self.old_fingerprint } else { self.new_fingerprint }))
    }

    /// Where rows should be moving, or have moved, in its state.
    pub fn direction(&self) -> Direction {
        self.state.direction()
    }
}
