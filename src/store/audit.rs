//! The audit trail: `rekey.events`, append-only and hash-chained, and the application's `audit_logs` beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::{Statement, StoreError};
use super::schema;
use super::statement::binds;

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

/// Appends one event in the caller's transaction and returns the chain's new head, in hex. The head's row stays
/// locked until that transaction ends, so keep it short.
pub async fn append(
    conn: &mut PgConnection,
    rotation: Option<Uuid>,
    action: &str,
    actor: &Actor,
    detail: Value,
) -> Result<String, StoreError> {
    // Pods that start together append one after the other, over links of any length: the chain's head is waited for
    // longer than a session's lock_timeout, which is short for the application's sake, allows for a row. Past that the
    // server's message names the session that holds it.
    let appended = sqlx::query_as(
        "SELECT set_config('lock_timeout', '5s', true), encode(rekey.append_event($1, $2, $3, $4, $5), 'hex'), \
         set_config('lock_timeout', before.lock_timeout, true) \
         FROM (SELECT current_setting('lock_timeout') AS lock_timeout OFFSET 0) before",
    );
    let (_, hash, _): (String, String, String) = appended
        .bind(rotation)
        .bind(action)
        .bind(&actor.operator)
        .bind(&actor.reason)
        .bind(detail)
        .fetch_one(conn)
        .during("append to the audit trail")
        .await?;
    actor.appended.store(true, Ordering::Relaxed);
    Ok(hash)
}

/// Writes the event to the application's own trail, where it exists and we may. `resource_id` there is a uuid: it
/// takes the rotation's, where there is one; everything else goes into `context`, which is always an object. A
/// trail of another form than ours must not stop a rotation: what it does not take is said, and ours has it.
pub async fn append_to_application(
    conn: &mut PgConnection,
    id: Uuid,
    rotation: impl Into<Option<Uuid>>,
    action: &str,
    actor: &Actor,
    detail: &Value,
) -> Result<bool, StoreError> {
    let usable: bool = sqlx::query_scalar(
        "SELECT coalesce(has_table_privilege(to_regclass('public.audit_logs'), 'INSERT'), false)",
    )
    .fetch_one(&mut *conn)
    .during("look for audit_logs")
    .await?;
    if !usable {
        return Ok(false);
    }
    let rotation = rotation.into();
    let resource_type = if rotation.is_some() { "encryption_key" } else { "secret" };
    let mut context = json!({ "operator": actor.operator, "reason": actor.reason });
    for (name, value) in subject(conn, rotation, detail).await? {
        context[name] = value;
    }
    context["detail"] = detail.clone();
    let mut savepoint = conn.begin().during("write to audit_logs").await?;
    let written = sqlx::query(
        "INSERT INTO public.audit_logs (id, action, resource_type, resource_id, user_agent, context) \
         VALUES ($1, $2, $6, $3, $4, $5::json)",
    )
    .bind(id)
    .bind(action)
    .bind(rotation)
    .bind(concat!("rekey/", env!("CARGO_PKG_VERSION")))
    .bind(context)
    .bind(resource_type)
    .execute(&mut *savepoint)
    .during("write to audit_logs")
    .await;
    match written {
        Ok(_) => savepoint.commit().during("write to audit_logs").await.map(|()| true),
        Err(error) => {
            savepoint.rollback().during("write to audit_logs").await?;
            tracing::warn!(%error, action, "the application's audit_logs did not take an entry; rekey.events has it");
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
    let (secret, old, new): (String, String, String) = sqlx::query_as(
        "SELECT coalesce(target_source, old_source), coalesce(old_version, old_fingerprint), \
         coalesce(promoted_version, new_version, new_fingerprint) FROM rekey.rotations WHERE id = $1",
    )
    .bind(rotation)
    .fetch_one(conn)
    .during("write to audit_logs")
    .await?;
    Ok(vec![("secret", json!(secret)), ("old_version", json!(old)), ("new_version", json!(new))])
}

/// The head of the chain: last sequence number and hash in hex.
pub async fn head(conn: &mut PgConnection) -> Result<(i64, String), StoreError> {
    sqlx::query_as("SELECT seq, encode(hash, 'hex') FROM rekey.chain")
        .fetch_one(conn)
        .during("read the head of the audit trail")
        .await
}

/// The same as the last line of a command's output says it; nothing where there is no trail that we may read.
pub async fn head_line(conn: &mut PgConnection) -> Option<String> {
    if !schema::exists(conn).await.unwrap_or(false) {
        return None;
    }
    let (seq, hash) = head(conn).await.ok()?;
    Some(format!("{seq}:{hash}"))
}

/// Whether an event of this kind was ever written for a rotation.
pub async fn happened(conn: &mut PgConnection, rotation: Uuid, action: &str) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM rekey.events WHERE rotation = $1 AND action = $2)")
        .bind(rotation)
        .bind(action)
        .fetch_one(conn)
        .during("read the audit trail")
        .await
}

/// What the last event of this kind says of a rotation; `None` where there is none.
pub async fn detail(
    conn: &mut PgConnection,
    rotation: Uuid,
    action: &str,
) -> Result<Option<Value>, StoreError> {
    sqlx::query_scalar(
        "SELECT detail FROM rekey.events WHERE rotation = $1 AND action = $2 ORDER BY seq DESC LIMIT 1",
    )
    .bind(rotation)
    .bind(action)
    .fetch_optional(conn)
    .during("read the audit trail")
    .await
}
