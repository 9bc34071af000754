//! After a promotion or a rollback: cached connections hold ciphertext of the other key.

use std::time::Duration;

use serde_json::json;
use sqlx::PgConnection;

use super::Session;
use crate::cache::{Mode, Target, purge as delete};
use crate::store::audit;
use crate::store::ledger::Rotation;

/// An unreachable Redis does not hold the end of a rotation up for longer than this: entries expire after 300 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Purges the cache where the session names one; says in one line what was, or has to be, done.
pub async fn purge(session: &Session, conn: &mut PgConnection, rotation: &Rotation) -> String {
    let Some(cache) = &session.cache else {
        return "The application's cache is stale. Run `REDIS_URL=… rekey cache purge --yes`".to_owned();
    };
    let purged = match Target::parse(&cache.url, &cache.prefix) {
        Ok(target) => delete(&target, Mode::Delete, PATIENCE).await,
        Err(e) => Err(e),
    };
    match purged {
        Ok(purged) => {
            let deleted: u64 = purged.iter().map(|p| p.deleted).sum();
            let detail = json!({ "purged": purged });
            if let Err(error) = audit::append(conn, Some(rotation.id), "purge", &session.actor, detail).await
            {
                tracing::warn!(%error, "The purge is missing from the audit trail");
            }
            format!("{deleted} stale cache entries deleted")
        }
        Err(e) => {
            tracing::warn!(error = %e, "Couldn't purge the cache");
            format!("Couldn't purge the cache ({e}). Run `rekey cache purge --yes`")
        }
    }
}
