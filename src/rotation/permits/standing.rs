//! Everything the table needs to know, as one look at the ledger and its locks found it. Reads nothing itself.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Exit;
use crate::rotation::claim::Contradicted;
use crate::rotation::state::{Desired, Direction, State};

/// Where everything stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The active rotation, or else the latest one; none where none was ever started.
    pub rotation: Option<Position>,
    /// What this very process has just done.
    pub just: JustDone,
}

/// Where a rotation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its id.
    pub id: Uuid,
    /// Its state.
    pub state: State,
    /// What the operator wants.
    pub desired: Desired,
    /// When its window ends.
    pub deadline: Option<Timestamp>,
    /// The window has ended, by the database's clock.
    pub past_deadline: bool,
    /// Live processes that move rows for it, this one not among them.
    pub workers: usize,
    /// What another process is doing to the keys.
    pub outside: Outside,
    /// The latest pass of its direction.
    pub pass: LastPass,
    /// Rows that neither key opens.
    pub quarantine: Quarantined,
    /// The last verify of its direction, as far as it still tells anything.
    pub verify: LastVerify,
    /// Set once `promoting` was written.
    pub promotion: Option<Promotion>,
    /// What the application reads is changed by hand: recorded so, or a place that rekey cannot write.
    pub external: bool,
    /// The old key is compromised.
    pub compromised: bool,
    /// What the ledger claims and the audit trail contradicts, of what keys and rows are moved by.
    pub contradicted: Option<Contradicted>,
}

/// What another process does under the lock of promotions and rollbacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outside {
    /// No process holds it.
    #[default]
    Free,
    /// A promote or a finalize.
    Promotion,
    /// A rollback, which others may join.
    Rollback,
}

/// How the latest pass ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastPass {
    /// It did not end, or there is none yet.
    #[default]
    Open,
    /// Its proof was clean.
    Clean,
    /// Writers kept saving rows under the wrong key.
    Unsettled,
}

/// Rows in quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// Not accepted.
    pub open: i64,
    /// Accepted by an operator.
    pub accepted: i64,
}

/// What the last verify found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastVerify {
    /// There was none, or rekey has written rows since.
    #[default]
    None,
    /// Clean.
    Clean,
    /// Rows on the wrong key, or rows that no key opens: another pass moves or quarantines them.
    WrongRows,
    /// Rows that rekey wrote hold other bytes than before.
    OtherBytes,
    /// Rows that the index of the primary key does not lead to.
    Unindexed,
}

/// A promotion that was begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promotion {
    /// Time since `promoted`; zero before it.
    pub age: Duration,
    /// The last verify is younger than that.
    pub verified_since: bool,
}

/// What this process has just done, where the ledger does not say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JustDone {
    /// Nothing, or what the ledger shows.
    #[default]
    Nothing,
    /// A plan that refuses nothing.
    Planned,
    /// A plan that refuses.
    Refused,
    /// A dry run.
    DryRun(Dry),
    /// It was moving rows, and a signal stopped it.
    Signalled,
    /// The quarantine was listed.
    Listed,
}

/// How a dry run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dry {
    /// Every row would be on the target key.
    Clean,
    /// Neither key opens some rows.
    BadRows,
    /// The old key opens no row.
    WrongKey,
    /// By a signal, or its deadline.
    Stopped,
}

impl Standing {
    /// A rollback is still possible, whatever flags it takes.
    pub fn can_go_back(&self) -> bool {
        self.rotation
            .as_ref()
            .is_some_and(|at| !matches!(at.state, State::Finalizing | State::Finalized | State::RolledBack))
    }
}

impl Position {
    /// A rotation in this state without blockers: no worker, no quarantined row, nothing verified yet.
    pub fn at_rest(id: Uuid, state: State) -> Position {
        let begun = !matches!(state, State::Migrating | State::Migrated | State::RollingBack);
        Position {
            id,
            state,
            desired: Desired::Running,
            deadline: None,
            past_deadline: false,
            workers: 0,
            outside: Outside::Free,
            pass: LastPass::Open,
            quarantine: Quarantined::default(),
            verify: LastVerify::None,
            promotion: begun.then(Promotion::default),
            external: false,
            compromised: false,
            contradicted: None,
        }
    }

    /// Which way rows move, or have moved.
    pub const fn direction(&self) -> Direction {
        self.state.direction()
    }

    /// What the operator wants. A rotation that is over cannot be paused, resumed or aborted any more.
    pub(super) fn desired(&self) -> Desired {
        if self.state.is_active() { self.desired } else { Desired::Running }
    }

    /// Rows are still to be moved.
    pub(super) const fn is_moving(&self) -> bool {
        matches!(self.state, State::Migrating | State::RollingBack)
    }

    /// How a command ends that the state keeps from its work: 8 while another process is at that very work, else 7.
    pub(super) fn busy_or_state(&self) -> Exit {
        let rolls_back = matches!(self.state, State::RollingBack | State::Unpromoting);
        match self.outside != Outside::Free || rolls_back && self.workers > 0 {
            true => Exit::Busy,
            false => Exit::State,
        }
    }
}
