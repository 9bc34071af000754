//! How `run`, `rollback` and `quarantine retry` ended, read from the ledger once the engine is through: what is true
//! now, rows by outcome, and what comes next. The words for it are in `cli`.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Session, standing};
use crate::engine::End;
use crate::error::{Exit, Result};
use crate::rotation::permits::{JustDone, overtaken};
use crate::rotation::{Counters, Direction, State, Step};
use crate::store::audit;
use crate::store::ledger::{Rotation, chunk, quarantine, rotation};

/// How the engine's work ended.
pub struct Ended {
    /// Which way rows moved.
    pub direction: Direction,
    /// Why it ended.
    pub end: End,
    /// How long it took.
    pub took: Duration,
    /// Totals before it.
    pub before: Counters,
    /// What became of the application's cache, where that was to be looked after.
    pub cache: Option<String>,
}

/// What is true now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Every row is on the key it was to be on.
    Reached,
    /// The same, except for rows that an operator accepted.
    ReachedButAccepted,
    /// The pass is over, and some quarantined rows are not accepted.
    Quarantined,
    /// A rollback found rows that rekey had written with other contents than before the rotation.
    OtherBytes,
    /// Writers kept saving rows under the wrong key.
    Unsettled,
    /// A signal stopped it; the checkpoint is saved.
    Signalled,
    /// An operator aborted it; the checkpoint is saved.
    Aborted,
    /// The window is over; the checkpoint is saved.
    PastDeadline,
    /// Another process took the rotation to this state meanwhile.
    Superseded(State),
}

impl Goal {
    /// The exit code it stands for.
    pub const fn exit(self) -> Exit {
        match self {
            Goal::Reached | Goal::ReachedButAccepted => Exit::Ok,
            Goal::Quarantined => Exit::Quarantined,
            Goal::OtherBytes => Exit::VerifyFailed,
            Goal::Unsettled => Exit::VerifyFailed,
            Goal::Signalled => Exit::Signalled,
            Goal::Aborted | Goal::PastDeadline => Exit::Stopped,
            Goal::Superseded(state) => overtaken(state),
        }
    }
}

/// What a job that moved rows reports.
pub struct Settled {
    /// What is true now.
    pub goal: Goal,
    /// Which way rows moved.
    pub direction: Direction,
    /// The rotation as it stands now.
    pub rotation: Rotation,
    /// Rows by outcome, over all processes and since the rotation began.
    pub totals: Counters,
    /// Quarantined rows that are not accepted.
    pub unaccepted: i64,
    /// How long the engine took, in this process.
    pub took: Duration,
    /// Rows re-encrypted a second, by all processes together, while this one worked.
    pub rows_per_second: f64,
    /// What became of the application's cache, where that was to be looked after.
    pub cache: Option<String>,
    /// What to do next, the first thing first.
    pub next: Vec<Step>,
    /// The head of the audit chain.
    pub event_head: String,
}

/// Reads how it ended from the ledger, and tells metrics.
pub async fn settle(
    session: &Session,
    conn: &mut PgConnection,
    rotation_id: Uuid,
    ended: Ended,
) -> Result<Settled> {
    let Ended { direction, end, took, before, cache } = ended;
    let rotation = rotation::by_id(conn, rotation_id).await?;
    let totals = chunk::totals(conn, rotation_id, direction).await?;
    let unaccepted = quarantine::unaccepted(conn, rotation_id).await?;
    // Whoever wakes up after a rollback must not say that its goal holds.
    let turned = end == End::Clean && rotation.state.direction() != direction;
    let end = if turned { End::Superseded(rotation.state) } else { end };
    let other_bytes =
        direction == Direction::Backward && audit::happened(conn, rotation_id, "other_bytes").await?;
    let goal = match end {
        End::Clean if unaccepted > 0 => Goal::Quarantined,
        End::Clean if other_bytes => Goal::OtherBytes,
        End::Clean if totals.quarantined > unaccepted => Goal::ReachedButAccepted,
        End::Clean => Goal::Reached,
        End::Unsettled => Goal::Unsettled,
        End::Signalled => Goal::Signalled,
        End::Aborted => Goal::Aborted,
        End::PastDeadline => Goal::PastDeadline,
        End::Superseded(state) => Goal::Superseded(state),
    };
    session.metrics.settled(totals);
    let just = if goal == Goal::Signalled { JustDone::Signalled } else { JustDone::Nothing };
    let next = standing::next_steps(session, conn, Some(&rotation), just).await?;
    let (seq, hash) = audit::head(conn).await?;
    let moved = (totals.re_encrypted - before.re_encrypted) as f64;
    Ok(Settled {
        goal,
        direction,
        next,
        rotation,
        totals,
        unaccepted,
        took,
        rows_per_second: (moved / took.as_secs_f64().max(1e-9)).round(),
        cache,
        event_head: format!("{seq}:{hash}"),
    })
}
