//! The audit entry of a key that was read: which, from where, by which command. Never the key.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::Session;
use super::key_pair::{self, Held, KeyPair};
use crate::crypto::EncryptionKey;
use crate::error::Result;
use crate::secrets::KeySource;
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

/// Reads a still older key that rows may be on, where one is named, and adds it to what was read.
pub async fn also(
    session: &Session,
    source: Option<&KeySource>,
    read: &mut Vec<Value>,
) -> Result<Option<EncryptionKey>> {
    let Some(source) = source else { return Ok(None) };
    let key = key_pair::fetch(session, source).await?;
    read.push(json!({ "role": "also", "source": source, "fingerprint": key.fingerprint() }));
    Ok(Some(key))
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
