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
    meaning: "the rotation was begun in another database, of which this one is a copy: acting on it could change the original's \
              keys",
    remedy: "Act on the original. If this database has taken its place for good, let it pass",
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
            "rotation {rotation} was begun in {origin}, and this is {}, a copy of it",
            Origin::here(conn).await?
        ),
        "point DATABASE_URL at the original. In a copy for tests, DROP SCHEMA rekey CASCADE and begin a rotation of its own. If \
         this database has taken the original's place for good (a restored dump, another cluster), let it pass",
    )))
}
