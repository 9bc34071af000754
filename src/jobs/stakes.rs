//! What a command is about to change, for the question before it: refuses first what the table does not permit, so that no
//! question is asked in vain.

use super::{Session, standing};
use crate::error::Result;
use crate::rotation::{Claim, Command};
use crate::store::Purpose;
use crate::store::ledger::{Rotation, chunk, evidence, quarantine};

pub use crate::store::ledger::standing::{Milestone, milestone};

/// What is at stake.
pub struct Stakes {
    /// The database, without its password.
    pub database: String,
    /// The rotation.
    pub rotation: Rotation,
    /// Rows of it, by the last count.
    pub rows: i64,
    /// Rows that an operator accepted.
    pub accepted: i64,
    /// The last verify.
    pub verified: Option<Milestone>,
    /// The promotion.
    pub promoted: Option<Milestone>,
}

/// Looks.
pub async fn of(session: &Session, command: Command) -> Result<Stakes> {
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    let rotation = standing::permitted(session, &mut conn, command).await?;
    let totals = chunk::totals(&mut conn, rotation.id, rotation.direction()).await?;
    let unaccepted = quarantine::unaccepted(&mut conn, rotation.id).await?;
    Ok(Stakes {
        database: connector.describe().to_owned(),
        rows: totals.settled(),
        accepted: totals.quarantined - unaccepted,
        verified: match evidence::of(&mut conn, rotation.id).await?.contradicts(Claim::Verify) {
            true => None,
            false => milestone(&mut conn, rotation.id, "verify").await?,
        },
        promoted: milestone(&mut conn, rotation.id, "promoted").await?,
        rotation,
    })
}
