//! The audit trail: `rekey.events`, append-only and hash-chained, and the application's `audit_logs` beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::{Statement, StoreError};
use super::statement::{binds, statements};
use super::{encoding, schema};

/// Who does something, and why; goes into every event.
#[derive(Clone, Debug)]
pub struct Actor {
    /// `--operator`: the OS user, or pod name and service account.
    pub operator: String,
    /// `--reason`.
    pub reason: Option<String>,
    /// Shared by all clones.
    appended: Arc<AtomicBool>,
}

binds!(Actor { operator, reason });

statements! {
    // Pods that start together append one after the other, over links of any length: the chain's head is waited for
    // longer than a session's lock_timeout, which is short for the application's sake, allows for a row. Past that the
    // server's message names the session that holds it.
    fn append_patiently(
        rotation: Option<Uuid>, action: &str, operator: &str, reason: Option<&str>, detail: &Value
    ) -> One<(String, String, String)> during "append to the audit trail":
        "SELECT set_config('lock_timeout', '5s', true), encode(rekey.append_event($1, $2, $3, $4, $5), 'hex'), \
         set_config('lock_timeout', before.lock_timeout, true) \
         FROM (SELECT current_setting('lock_timeout') AS lock_timeout OFFSET 0) before";

    fn application_has_a_trail() -> One<bool> during "look for audit_logs":
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'public' AND c.relname = 'audit_logs' AND has_schema_privilege(n.oid, 'USAGE') \
         AND has_table_privilege(c.oid, 'INSERT'))";

    fn insert_into_application(
        id: Uuid, action: &str, rotation: Option<Uuid>, agent: &str, context: &Value, resource_type: &str
    ) during OP:
        "INSERT INTO public.audit_logs (id, action, resource_type, resource_id, user_agent, context) \
         VALUES ($1, $2, $6, $3, $4, $5::jsonb::json)";

    // What is deferred would fail the commit, and everything in it. rekey's own tables have no such constraints.
    fn check_now() during OP: "SET CONSTRAINTS ALL IMMEDIATE";

    // Returns what they were.
    fn set_limits(lock: &str, statement: &str) -> One<(String, String, String, String)> during OP:
        "SELECT lock_timeout, statement_timeout, set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true) \
         FROM (SELECT current_setting('lock_timeout') AS lock_timeout, \
         current_setting('statement_timeout') AS statement_timeout OFFSET 0) before";

    // Keys outside Secrets Manager have no versions: their fingerprints tell them apart.
    fn keys_of(rotation: Uuid) -> One<(String, String, String)> during OP:
        "SELECT coalesce(target_source, old_source), coalesce(old_version, old_fingerprint), \
         coalesce(promoted_version, new_version, new_fingerprint) FROM rekey.rotations WHERE id = $1";

    /// The head of the chain: last sequence number and hash in hex.
    pub fn head() -> One<(i64, String)> during "read the head of the audit trail":
        "SELECT seq, encode(hash, 'hex') FROM rekey.chain";

    /// Whether an event of this kind was ever written for a rotation.
    pub fn happened(rotation: Uuid, action: &str) -> One<bool> during "read the audit trail":
        "SELECT EXISTS (SELECT FROM rekey.events WHERE rotation = $1 AND action = $2)";

    /// What the last event of this kind says of a rotation; `None` where there is none.
    pub fn detail(rotation: Uuid, action: &str) -> Optional<Value> during "read the audit trail":
        "SELECT detail FROM rekey.events WHERE rotation = $1 AND action = $2 ORDER BY seq DESC LIMIT 1";
}

const OP: &str = "write to audit_logs";

impl Actor {
    /// Has done nothing yet.
    pub fn new(operator: String, reason: Option<String>) -> Actor {
        Actor { operator, reason, appended: Arc::default() }
    }

    /// Whether an event of this actor's was appended, be it in a transaction that was rolled back.
    pub fn has_appended(&self) -> bool {
        self.appended.load(Ordering::Relaxed)
    }
}

impl Actor {
    /// The same, in characters that the database at the other end can hold.
    pub(super) async fn fitting(&self, conn: &mut PgConnection) -> Result<Actor, StoreError> {
        let operator = encoding::fit(conn, &self.operator).await?.into_owned();
        let reason = encoding::fit_remark(conn, self.reason.as_deref()).await?.map(Into::into);
        Ok(Actor { operator, reason, ..self.clone() })
    }
}

/// Appends one event in the caller's transaction and returns the chain's new head, in hex. The head's row stays
/// locked until that transaction ends, so keep it short.
pub async fn append(
    conn: &mut PgConnection,
    rotation: Option<Uuid>,
    action: &str,
    actor: &Actor,
    detail: Value,
) -> Result<String, StoreError> {
    let operator = encoding::fit(conn, &actor.operator).await?;
    let reason = encoding::fit_remark(conn, actor.reason.as_deref()).await?;
    let detail = encoding::fit_json(conn, detail).await?;
    let (_, hash, _) =
        append_patiently(conn, rotation, action, &operator, reason.as_deref(), &detail).await?;
    actor.appended.store(true, Ordering::Relaxed);
    Ok(hash)
}

/// The longest that the application's trail may hold a command up, whatever limits the transaction has: locks on it, its
/// triggers and its constraints are the application's business.
const TRAIL_LIMITS: (&str, &str) = ("2s", "3s");

/// Writes the event to the application's own trail, where it exists and rekey may. `resource_id` there is a uuid: it
/// takes the rotation's, where there is one; everything else goes into `context`, which is always an object. A
/// trail that does not take it must not stop a rotation: that is said, and `rekey.events` has it.
pub async fn append_to_application(
    conn: &mut PgConnection,
    id: Uuid,
    rotation: impl Into<Option<Uuid>>,
    action: &str,
    actor: &Actor,
    detail: &Value,
) -> Result<bool, StoreError> {
    if !application_has_a_trail(conn).await? {
        return Ok(false);
    }
    let rotation = rotation.into();
    let resource_type = if rotation.is_some() { "encryption_key" } else { "secret" };
    let mut context = json!({ "operator": actor.operator, "reason": actor.reason });
    for (name, value) in subject(conn, rotation, detail).await? {
        context[name] = value;
    }
    context["detail"] = detail.clone();
    let context = encoding::fit_json(conn, context).await?;
    let mut savepoint = conn.begin().during(OP).await?;
    let written = async {
        let (lock, statement, _, _) = set_limits(&mut savepoint, TRAIL_LIMITS.0, TRAIL_LIMITS.1).await?;
        let agent = concat!("rekey/", env!("CARGO_PKG_VERSION"));
        insert_into_application(&mut savepoint, id, action, rotation, agent, &context, resource_type).await?;
        check_now(&mut savepoint).await?;
        set_limits(&mut savepoint, &lock, &statement).await
    }
    .await;
    match written {
        Ok(_) => savepoint.commit().during(OP).await.map(|()| true),
        Err(error) => {
            savepoint.rollback().during(OP).await?;
            tracing::warn!(%error, action, "Couldn't write an entry to the application's audit_logs; \
                rekey.events has it");
            Ok(false)
        }
    }
}

/// What the guide's example of an entry says: which secret, and the versions before and after. Keys outside Secrets
/// Manager have no versions: their fingerprints tell them apart.
async fn subject(
    conn: &mut PgConnection,
    rotation: Option<Uuid>,
    detail: &Value,
) -> Result<Vec<(&'static str, Value)>, StoreError> {
    let Some(rotation) = rotation else {
        let key = detail.get("key").unwrap_or(detail);
        let secret = key.get("target").or_else(|| key.get("source")).cloned();
        let version = |role: &str| detail.get(role).filter(|v| !v.is_null()).cloned();
        let found = [
            ("secret", secret),
            ("old_version", version("old_version")),
            ("new_version", version("new_version")),
        ];
        return Ok(found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect());
    };
    let (secret, old, new) = keys_of(conn, rotation).await?;
    Ok(vec![("secret", json!(secret)), ("old_version", json!(old)), ("new_version", json!(new))])
}

/// The same, as a command's last line prints it; `None` if there is no trail that this role can read.
pub async fn head_line(conn: &mut PgConnection) -> Option<String> {
    if !schema::exists(conn).await.unwrap_or(false) {
        return None;
    }
    let (seq, hash) = head(conn).await.ok()?;
    Some(format!("{seq}:{hash}"))
}
