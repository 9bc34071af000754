//! What may be done now, and what comes next: one table that every command, `status` and every summary asks.
//!
//! Pure. [`Standing`] is everything the table needs to know; `jobs` reads it from the ledger. [`permits`] says whether a
//! command fits, [`next`] what to do, and what `next` offers first is permitted. Keys, preflight and a verify's own
//! findings are checked afterwards, and not here.

mod keys;
mod next;
mod refusal;
mod standing;
mod step;
#[cfg(test)]
mod tests;

pub use keys::{KeyDone, next_for_keys};
pub use next::next;
pub use refusal::{Fact, Refusal, sentence};
pub use standing::{
    Dry, JustDone, LastPass, LastVerify, Outside, Position, Promotion, Quarantined, Standing,
};
pub use step::{Command, Instruction, Step};

use super::state::{Desired, State};
use crate::error::Exit;

/// Whether a command fits where everything stands: `Err` says why not, how the process ends, and what to do instead.
pub fn permits(command: Command, standing: &Standing) -> Result<(), Refusal> {
    use Command as C;
    let at = match (&standing.rotation, command) {
        (
            _,
            C::Plan | C::DryRun | C::Status | C::Watch | C::QuarantineList | C::Fingerprint | C::CachePurge,
        ) => return Ok(()),
        (None, C::Run { .. }) => return Ok(()),
        (None, _) => return Err(Refusal::no_rotation(command)),
        (Some(at), _) => at,
    };
    if let (true, Some(contradicted)) = (command.moves(), at.contradicted) {
        let fact = Fact::Contradicted { id: at.id, state: at.state, contradicted };
        return Err(refuse(Exit::State, fact, next::of(at)));
    }
    match command {
        // Another rotation begins.
        C::Run { .. } if !at.state.is_active() => Ok(()),
        C::Run { deadline } => may_move_rows(at, command, deadline),
        C::QuarantineRetry { .. } | C::QuarantineAccept if at.state == State::Finalized => {
            Err(refuse(Exit::State, Fact::Over { id: at.id }, [Step::Type(C::Report)]))
        }
        C::QuarantineRetry { deadline } => may_move_rows(at, command, deadline),
        C::Promote { .. } => may_end(at, command, &[State::Migrated, State::Promoting, State::Promoted]),
        C::Finalize => may_end(at, command, &[State::Promoted, State::Finalizing]),
        C::Rollback { deadline, compromised } => may_roll_back(at, deadline, compromised),
        C::Pause | C::Resume | C::Abort if !at.state.is_active() => {
            Err(refuse(Exit::State, Fact::NoneActive(command), next::of(at)))
        }
        C::Pause if at.desired() == Desired::Aborted => Err(aborted(at, command)),
        _ => Ok(()),
    }
}

/// `run` and `quarantine retry`: rows move in the rotation's own direction, and only a retry moves them back.
fn may_move_rows(at: &Position, command: Command, deadline: bool) -> Result<(), Refusal> {
    let (back, with_deadline) = match command {
        Command::QuarantineRetry { .. } => (true, Command::QuarantineRetry { deadline: true }),
        _ => (false, Command::Run { deadline: true }),
    };
    let fits = match at.state {
        State::Migrating | State::Migrated | State::Promoted => true,
        State::RollingBack | State::RolledBack => back,
        State::Promoting | State::Finalizing | State::Unpromoting | State::Finalized => false,
    };
    if !fits {
        return Err(refuse(at.busy_or_state(), Fact::UnderWay { id: at.id, state: at.state }, next::of(at)));
    }
    if at.desired() == Desired::Aborted {
        return Err(aborted(at, command));
    }
    in_time(at, deadline, Step::Type(with_deadline))
}

/// `promote` and `finalize`: one process at a time, and not after an abort. What was begun outside is finished all the same.
fn may_end(at: &Position, command: Command, from: &[State]) -> Result<(), Refusal> {
    let begun = matches!(at.state, State::Promoting | State::Finalizing);
    if at.desired() == Desired::Aborted && !begun {
        return Err(aborted(at, command));
    }
    if !from.contains(&at.state) {
        let fact = Fact::Unfit { id: at.id, state: at.state, command };
        let then = if at.state.is_active() { next::of(at) } else { vec![Step::Type(Command::Plan)] };
        return Err(refuse(at.busy_or_state(), fact, then));
    }
    if at.outside != Outside::Free {
        return Err(refuse(Exit::Busy, Fact::Busy { id: at.id }, next::of(at)));
    }
    Ok(())
}

/// Not once the end has begun. Rollbacks join each other; none joins a promotion.
fn may_roll_back(at: &Position, deadline: bool, compromised: bool) -> Result<(), Refusal> {
    if matches!(at.state, State::Finalizing | State::Finalized) {
        let then = if at.state.is_active() { next::of(at) } else { vec![Step::Type(Command::Plan)] };
        return Err(refuse(Exit::State, Fact::NoRollback { id: at.id, state: at.state }, then));
    }
    if at.state.may_roll_back() && at.outside == Outside::Promotion {
        return Err(refuse(Exit::Busy, Fact::Busy { id: at.id }, next::of(at)));
    }
    // Turning the rotation round lifts the deadline of the way out; going on after an abort lifts both.
    let goes_on = matches!(at.state, State::RollingBack | State::RolledBack);
    if goes_on && at.desired() != Desired::Aborted {
        in_time(at, deadline, next::again(at))?;
    }
    if at.compromised && !compromised {
        let again = Command::Rollback { deadline, compromised: true };
        return Err(refuse(Exit::Usage, Fact::Compromised { id: at.id }, [Step::Finish(again)]));
    }
    Ok(())
}

/// Past the deadline, rows move under a new one only, or once `resume` has lifted it.
fn in_time(at: &Position, new: bool, again: Step) -> Result<(), Refusal> {
    if !at.past_deadline || new {
        return Ok(());
    }
    let fact = Fact::PastDeadline { id: at.id, deadline: at.deadline, mixed: at.is_moving() };
    let or = at.state.is_active().then_some(Step::Type(Command::Resume));
    Err(Refusal { exit: Exit::Stopped, fact, then: vec![again], or })
}

/// `resume` and `rollback` are the only ways on.
fn aborted(at: &Position, command: Command) -> Refusal {
    let resumed = Position { desired: Desired::Running, past_deadline: false, ..at.clone() };
    let standing = Standing { rotation: Some(resumed), just: JustDone::Nothing };
    let mut then = vec![Step::Type(Command::Resume)];
    match permits(command, &standing) {
        Ok(()) => then.push(Step::Type(command)),
        Err(_) => then.extend(next(&standing)),
    }
    let or = may_roll_back(at, false, at.compromised).is_ok().then(|| next::rollback(at));
    Refusal { exit: Exit::State, fact: Fact::Aborted { id: at.id, mixed: at.is_moving() }, then, or }
}

/// How a process ends whose work another has taken over: 8 while the other is at it, and for a rollback also after it, as the
/// rest of the rows will not move forward.
pub const fn overtaken(by: State) -> Exit {
    match by {
        State::RollingBack | State::Unpromoting | State::RolledBack => Exit::Busy,
        State::Promoting | State::Finalizing => Exit::Busy,
        State::Migrating | State::Migrated | State::Promoted | State::Finalized => Exit::State,
    }
}

fn refuse(exit: Exit, fact: Fact, then: impl Into<Vec<Step>>) -> Refusal {
    Refusal { exit, fact, then: then.into(), or: None }
}
