//! A rotation is under way: not a reason to refuse, but to be known.

use sqlx::PgConnection;

use super::finding::{About, Finding, Kind};
use crate::store::error::StoreError;
use crate::store::{ledger, schema};

pub(super) const ACTIVE: About = About {
    name: "active-rotation",
    may_be_allowed: true,
    meaning: "A rotation is active",
    remedy: "Run `rekey status` to see it, or `rekey run` to join or resume it",
};

pub(super) async fn look(conn: &mut PgConnection, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    if !schema::is_readable(conn).await? {
        return Ok(());
    }
    let active = ledger::rotation::latest(conn).await?.filter(|r| r.state.is_active());
    findings.extend(active.map(|r| {
        Finding::note(
            Kind::ActiveRotation,
            format!("Rotation {} is active, in state {}, since {}", r.id, r.state, r.created_at),
            ACTIVE.remedy,
        )
    }));
    Ok(())
}
