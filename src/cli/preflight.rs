//! What the commands ask of preflight.

use sqlx::PgConnection;

use crate::error::{Error, Exit, Result};
use crate::store::Connector;

/// Refuses a hot standby for commands that write.
pub async fn primary_only(connector: &Connector, conn: &mut PgConnection, command: &str) -> Result<()> {
    if connector.server(conn).await?.in_recovery {
        return Err(Error::new(
            Exit::Preflight,
            format!("{command} needs the primary: this server is a hot standby"),
        )
        .hint("point DATABASE_URL at the primary; plan, status, verify and run --dry-run work here"));
    }
    Ok(())
}
