//! The audit trail: `rekey.events`, append-only and hash-chained, and the application's `audit_logs` beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::{Statement, StoreError};
use super::statement::binds;
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
        .bind(operator)
        .bind(reason)
        .bind(detail)
        .fetch_one(conn)
        .during("append to the audit trail")
        .await?;
    actor.appended.store(true, Ordering::Relaxed);
    Ok(hash)
}

/// The longest that the application's trail may hold a command up, whatever limits the transaction has: locks on it, its
/// triggers and its constraints are the application's business.
const TRAIL_LIMITS: [&str; 2] = ["2s", "3s"];

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
    let usable: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'public' AND c.relname = 'audit_logs' AND has_schema_privilege(n.oid, 'USAGE') \
         AND has_table_privilege(c.oid, 'INSERT'))",
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
    let context = encoding::fit_json(conn, context).await?;
    const OP: &str = "write to audit_logs";
    let mut savepoint = conn.begin().during(OP).await?;
    let written = async {
        let before = limit(&mut savepoint, TRAIL_LIMITS).await?;
        sqlx::query(
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
        .during(OP)
        .await?;
        // What is deferred would fail the commit, and everything in it. rekey's own tables have no such constraints.
        sqlx::query("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *savepoint).during(OP).await?;
        limit(&mut savepoint, [&before.0, &before.1]).await
    }
    .await;
    match written {
        Ok(_) => savepoint.commit().during(OP).await.map(|()| true),
        Err(error) => {
            savepoint.rollback().during(OP).await?;
            tracing::warn!(%error, action, "the application's audit_logs did not take an entry; rekey.events has it");
            Ok(false)
        }
    }
}

/// Sets the transaction's lock and statement timeouts, and returns what they were.
async fn limit(conn: &mut PgConnection, limits: [&str; 2]) -> Result<(String, String), StoreError> {
    let set = sqlx::query_as(
        "SELECT lock_timeout, statement_timeout, set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true) \
         FROM (SELECT current_setting('lock_timeout') AS lock_timeout, \
         current_setting('statement_timeout') AS statement_timeout OFFSET 0) before",
    );
    let (lock, statement, _, _): (String, String, String, String) =
        set.bind(limits[0]).bind(limits[1]).fetch_one(conn).during("write to audit_logs").await?;
    Ok((lock, statement))
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
