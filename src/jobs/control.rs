//! `pause`, `resume`, `abort`: sets what is wanted in the database; every worker obeys within one batch.

use super::preflight::primary_only;
use super::{Session, standing};
use crate::error::Result;
use crate::rotation::permits::JustDone;
use crate::rotation::{Command, Deadline, Desired, Step};
use crate::store::ledger::{Rotation, rotation};
use crate::store::{Purpose, audit};

/// What a change of what is wanted reports.
pub struct Controlled {
    /// The rotation as it stands now.
    pub rotation: Rotation,
    /// What to do next.
    pub next: Vec<Step>,
    /// The head of the audit chain.
    pub event_head: String,
}

/// Sets what is wanted of the workers, and with it a new end of the window.
pub async fn set(session: &Session, desired: Desired, deadline: Option<Deadline>) -> Result<Controlled> {
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    let (command, name) = match desired {
        Desired::Running => (Command::Resume, "resume"),
        Desired::Paused => (Command::Pause, "pause"),
        Desired::Aborted => (Command::Abort, "abort"),
    };
    primary_only(&connector, &mut conn, name).await?;
    let r = standing::permitted(session, &mut conn, command).await?;
    if !rotation::set_desired(&mut conn, r.id, desired, &session.actor).await? {
        // It came to its end meanwhile.
        let over = rotation::by_id(&mut conn, r.id).await?;
        standing::require(session, &mut conn, command, Some(&over)).await?;
    }
    if let Some(deadline) = deadline {
        // One of the environment that has passed was lifted just now.
        if !deadline.standing || !rotation::left_until(&mut conn, deadline.at).await?.is_zero() {
            rotation::set_deadline(&mut conn, r.id, deadline, &session.actor).await?;
        }
    }
    let now = rotation::by_id(&mut conn, r.id).await?;
    let next = standing::next_steps(session, &mut conn, Some(&now), JustDone::Nothing).await?;
    let (seq, hash) = audit::head(&mut conn).await?;
    Ok(Controlled { rotation: now, next, event_head: format!("{seq}:{hash}") })
}
