//! A rotation that was begun in another database: this one is a copy of that, and its ledger points at keys that are not
//! its own.

use sqlx::PgConnection;
use uuid::Uuid;

use super::For;
use super::finding::{About, Finding, Kind};
use crate::store::error::StoreError;
use crate::store::ledger::rotation;
use crate::store::origin::Origin;
use crate::store::schema;

pub(super) const OTHER: About = About {
    name: "other-database",
    may_be_allowed: true,
    meaning: "The rotation began in another database, of which this one is a copy; acting on it could change \
        the original's keys",
    remedy: "Run commands on the original. If this database has replaced it permanently, allow the finding",
};

/// Of the rotation that a run would join, or a rollback would roll back.
pub(super) async fn look(
    conn: &mut PgConnection,
    purpose: For,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    if schema::is_readable(conn).await?
        && let Some(r) =
            rotation::latest(conn).await?.filter(|r| r.state.is_active() || purpose == For::Rollback)
    {
        findings.extend(of(conn, r.id).await?);
    }
    Ok(())
}

/// Of one rotation, for commands that have no other preflight.
pub async fn of(conn: &mut PgConnection, rotation: Uuid) -> Result<Option<Finding>, StoreError> {
    let Some(origin) = Origin::if_elsewhere(conn, rotation).await? else { return Ok(None) };
    Ok(Some(Finding::refuse(
        Kind::OtherDatabase,
        format!(
            "Rotation {rotation} began in {origin}, and this is {}, a copy of it",
            Origin::here(conn).await?
        ),
        "Name the original in DATABASE_URL. In a copy for tests, run `DROP SCHEMA rekey CASCADE` and start a \
         new rotation. If this database has replaced the original permanently (a restored dump, another \
         cluster), allow the finding",
    )))
}
