//! The audit entry of a key that was read: which, from where, by which command. Never the key.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::Session;
use super::key_pair::{Held, KeyPair};
use crate::error::Result;
use crate::store::{Statement, audit};

/// What is written of one key.
pub fn of(role: &str, held: &Held) -> Value {
    let r = &held.record;
    json!({
        "role": role, "source": r.source, "fingerprint": r.fingerprint, "secret": r.arn, "version": r.version,
    })
}

/// Both keys of a rotation.
pub fn both(keys: &KeyPair) -> Vec<Value> {
    vec![of("old", &keys.old), of("new", &keys.new)]
}

/// Writes the entry, here and to the application's trail.
pub async fn record(
    session: &Session,
    conn: &mut PgConnection,
    rotation: Uuid,
    by: &str,
    keys: Vec<Value>,
) -> Result<()> {
    let detail = json!({ "by": by, "keys": keys, "result": "read" });
    let mut tx = conn.begin().during("record the access").await?;
    let actor = &session.actor;
    audit::append_to_application(&mut tx, crate::entropy::id(), rotation, "KEY_ACCESSED", actor, &detail)
        .await?;
    // Last: until the transaction ends, every other process waits for the chain's head.
    audit::append(&mut tx, Some(rotation), "access", actor, detail).await?;
    tx.commit().during("record the access").await?;
    Ok(())
}
