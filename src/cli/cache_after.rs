//! After a promotion or a rollback: cached connections hold ciphertext of the other key.

use std::time::Duration;

use serde_json::json;
use sqlx::PgConnection;

use super::context::Context;
use crate::cache::{Mode, Target, purge as delete};
use crate::store::audit;
use crate::store::ledger::Rotation;

/// An unreachable Redis does not hold the end of a rotation up for longer than this: entries expire after 300 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Purges the cache when REDIS_URL is set; says in one line what was, or has to be, done.
pub async fn purge(context: &Context, conn: &mut PgConnection, rotation: &Rotation) -> String {
    let url = zeroize::Zeroizing::new(std::env::var("REDIS_URL").unwrap_or_default());
    if url.trim().is_empty() {
        return "cached connections are stale now: REDIS_URL=… rekey cache purge --yes".to_owned();
    }
    let prefix = std::env::var("REKEY_PREFIX").ok().filter(|prefix| !prefix.is_empty());
    let prefix = prefix.as_deref().unwrap_or("dashtam");
    let purged = match Target::parse(&url, prefix) {
        Ok(target) => delete(&target, Mode::Delete, PATIENCE).await,
        Err(e) => Err(e),
    };
    match purged {
        Ok(purged) => {
            let deleted: u64 = purged.iter().map(|p| p.deleted).sum();
            let detail = json!({ "purged": purged });
            if let Err(error) = audit::append(conn, Some(rotation.id), "purge", &context.actor, detail).await
            {
                tracing::warn!(%error, "the purge is missing from the audit trail");
            }
            format!("{deleted} stale cache entries deleted")
        }
        Err(e) => {
            tracing::warn!(error = %e, "the cache could not be purged");
            format!("the cache could not be purged ({e}): rekey cache purge --yes")
        }
    }
}
