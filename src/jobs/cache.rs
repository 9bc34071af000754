//! Deleting the application's stale entries in Redis. Needs no database.

use serde_json::json;

use super::Session;
use super::audit_trail::{AuditTrail, KeyEvent};
use super::interrupt::unless_stopped;
use crate::cache::{self, Mode, Purged, Target};
use crate::engine::Stop;
use crate::error::{Error, Result};

/// What was found, and deleted.
pub struct PurgeOutcome {
    /// By pattern.
    pub purged: Vec<Purged>,
    /// The head of the audit chain, where an event was appended.
    pub head: Option<String>,
}

/// Counts or deletes the entries.
pub async fn purge(session: &Session, target: &Target, mode: Mode, stop: &mut Stop) -> Result<PurgeOutcome> {
    let purging = async { cache::purge(target, mode, session.retry_for).await.map_err(Error::from) };
    let purged = unless_stopped(stop, purging).await?;
    let head = match mode {
        Mode::Delete => {
            let detail = json!({ "server": target.to_string(), "purged": purged });
            AuditTrail::open(session).await.record(KeyEvent::PurgeCache, detail).await
        }
        Mode::DryRun => None,
    };
    Ok(PurgeOutcome { purged, head })
}
