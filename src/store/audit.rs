//! The audit trail: `rekey.events`, append-only and hash-chained, and the application's `audit_logs` beside it.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::error::{Statement, StoreError};

/// Who does something, and why; goes into every event.
#[derive(Clone, Debug)]
pub struct Actor {
    /// `--operator`: the OS user, or pod name and service account.
    pub operator: String,
    /// `--reason`.
    pub reason: Option<String>,
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
    sqlx::query_scalar("SELECT encode(rekey.append_event($1, $2, $3, $4, $5), 'hex')")
        .bind(rotation)
        .bind(action)
        .bind(&actor.operator)
        .bind(&actor.reason)
        .bind(detail)
        .fetch_one(conn)
        .during("append to the audit trail")
        .await
}

/// Writes the event to the application's own trail, where it exists and we may. `resource_id` there is a uuid: it
/// takes the rotation's, where there is one; everything else goes into `context`.
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
    let context = serde_json::json!({ "operator": actor.operator, "reason": actor.reason, "detail": detail });
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
    .execute(conn)
    .during("write to audit_logs")
    .await?;
    Ok(true)
}

/// The head of the chain: last sequence number and hash in hex.
pub async fn head(conn: &mut PgConnection) -> Result<(i64, String), StoreError> {
    sqlx::query_as("SELECT seq, encode(hash, 'hex') FROM rekey.chain")
        .fetch_one(conn)
        .during("read the head of the audit trail")
        .await
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
