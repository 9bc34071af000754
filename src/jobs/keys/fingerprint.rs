//! Which key is in a place, without showing it.

use serde_json::json;

use crate::crypto::Fingerprint;
use crate::error::Result;
use crate::jobs::Session;
use crate::jobs::audit_trail::{AuditTrail, KeyEvent};
use crate::secrets::KeySource;

/// What a place holds.
pub struct KeySeen {
    /// Which key.
    pub fingerprint: Fingerprint,
    /// Its length in bytes.
    pub bytes: usize,
    /// Secrets Manager: the secret's ARN.
    pub arn: Option<String>,
    /// Secrets Manager: the version's id.
    pub version: Option<String>,
    /// The head of the audit chain.
    pub head: Option<String>,
}

/// Looks, and records that it did.
pub async fn fingerprint(session: &Session, source: &KeySource) -> Result<KeySeen> {
    let mut trail = AuditTrail::open(session).await;
    let fetched = session.sources.fetch(source).await?;
    let (fingerprint, bytes) = (Fingerprint::of(&fetched.value), fetched.value.len());
    // Nothing below needs the key.
    drop(fetched.value);
    let detail = json!({
        "source": source, "fingerprint": fingerprint, "bytes": bytes,
        "secret": fetched.arn, "version": fetched.version_id,
    });
    let head = trail.record(KeyEvent::Access, detail).await;
    Ok(KeySeen { fingerprint, bytes, arn: fetched.arn, version: fetched.version_id, head })
}
