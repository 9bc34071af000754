//! What comes next. The first step is permitted where everything stands, each later one after those before it.

use std::time::Duration;

use super::standing::{Dry, JustDone, LastPass, LastVerify, Outside, Position, Standing};
use super::step::{Command, Instruction, Step};
use crate::rotation::state::{Desired, Direction, State};

use Instruction as I;
use Step::{Do, Finish, Type};

/// How long a promoted key should have served before there is no rollback any more.
const SETTLED: Duration = Duration::from_secs(3 * 24 * 3600);

/// What to do next; never empty.
pub fn next(standing: &Standing) -> Vec<Step> {
    let fresh = standing.rotation.as_ref().is_none_or(|at| !at.state.is_active());
    let run = Type(Command::Run { deadline: false });
    match (standing.just, &standing.rotation) {
        (JustDone::Refused, _) => vec![Do(I::FixFindings), Type(Command::Plan)],
        (JustDone::Planned, _) if fresh => vec![Type(Command::DryRun), run],
        (JustDone::DryRun(Dry::Clean), _) if fresh => vec![run],
        (JustDone::DryRun(Dry::BadRows), _) => {
            let mut steps = vec![Do(I::RepairRows), Type(Command::DryRun)];
            steps.extend(fresh.then_some(run));
            steps
        }
        (JustDone::DryRun(Dry::WrongKey), _) => vec![Type(Command::Fingerprint)],
        (JustDone::DryRun(Dry::Stopped), _) => vec![Type(Command::DryRun)],
        (JustDone::Signalled, Some(at)) if goes_on(at) => vec![again(at)],
        (JustDone::Listed, Some(at)) => {
            let mut steps = of(at);
            steps.retain(|step| *step != Type(Command::QuarantineList));
            steps
        }
        (_, Some(at)) => of(at),
        (_, None) => vec![Type(Command::Plan)],
    }
}

/// The same command goes on with the work, whatever other processes do.
fn goes_on(at: &Position) -> bool {
    State::workable(at.direction()).contains(&at.state) && at.desired() == Desired::Running
}

/// What comes next for a rotation.
pub(super) fn of(at: &Position) -> Vec<Step> {
    if at.contradicted.is_some() {
        return vec![Do(I::RestoreLedger), Type(Command::Report)];
    }
    if at.outside != Outside::Free && at.state.is_active() {
        return vec![Type(if at.is_moving() { Command::Watch } else { Command::Status })];
    }
    let by_hand = |instruction, step| match at.external {
        true => vec![Do(instruction), step],
        false => vec![step],
    };
    match at.state {
        State::Promoting => by_hand(I::GiveNewKey, Finish(promote(at))),
        State::Unpromoting => by_hand(I::GiveOldKey, finish_rollback(at)),
        State::Finalizing => vec![Finish(Command::Finalize)],
        State::Finalized => vec![Type(Command::Report)],
        _ => match at.desired() {
            Desired::Aborted => vec![Type(Command::Resume), rollback(at)],
            Desired::Paused if at.workers > 0 => vec![Type(Command::Resume)],
            Desired::Paused => vec![Type(Command::Resume), resumed(at)],
            Desired::Running => running(at),
        },
    }
}

/// Rows first: workers, the deadline, writers, the quarantine.
fn running(at: &Position) -> Vec<Step> {
    if at.pass == LastPass::Open && at.workers > 0 && !at.past_deadline {
        return vec![Type(Command::Watch)];
    }
    if at.verify == LastVerify::OtherBytes && at.direction() == Direction::Forward {
        return vec![rollback(at), Type(Command::Report)];
    }
    // No command moves or judges a row that it does not find by id.
    if at.verify == LastVerify::Unindexed {
        return vec![Do(I::Reindex), again(at), Type(Command::Verify)];
    }
    if at.pass == LastPass::Unsettled {
        return vec![Do(I::StopWriters), again(at)];
    }
    if at.quarantine.open > 0 && (at.pass == LastPass::Clean || !at.is_moving()) {
        let retry = Command::QuarantineRetry { deadline: at.past_deadline };
        return vec![Type(Command::QuarantineList), Type(retry), Type(Command::QuarantineAccept)];
    }
    match at.state {
        State::Migrating | State::RollingBack if at.past_deadline => vec![again(at), Type(Command::Resume)],
        State::Migrating | State::RollingBack => vec![again(at)],
        State::Promoted => promoted(at),
        State::RolledBack => rolled_back(at),
        _ => migrated(at),
    }
}

fn migrated(at: &Position) -> Vec<Step> {
    match at.verify {
        LastVerify::Clean => vec![Type(promote(at))],
        LastVerify::WrongRows => vec![Do(I::StopWriters), again(at), Type(Command::Verify)],
        LastVerify::None | LastVerify::OtherBytes | LastVerify::Unindexed => {
            vec![Type(Command::Verify), Type(promote(at))]
        }
    }
}

/// Restart, verify, days, the end. A compromised key is not waited for.
fn promoted(at: &Position) -> Vec<Step> {
    let promotion = at.promotion.unwrap_or_default();
    let settled = promotion.age >= SETTLED;
    let (restart, verify, finalize) =
        (Do(I::RestartApplication), Type(Command::Verify), Type(Command::Finalize));
    let verified = at.verify == LastVerify::Clean && promotion.verified_since;
    let mut steps = match at.verify {
        LastVerify::WrongRows => return vec![restart, again(at), verify],
        _ if verified => Vec::new(),
        _ if settled => vec![verify],
        _ => vec![restart, verify],
    };
    if !settled && !at.compromised {
        steps.push(Do(I::WaitSomeDays));
    }
    steps.push(finalize);
    steps
}

/// The application may have read the new key, and have it in memory.
fn rolled_back(at: &Position) -> Vec<Step> {
    let mut steps = Vec::new();
    if at.promotion.is_some() && !matches!(at.verify, LastVerify::Clean | LastVerify::OtherBytes) {
        steps.push(Do(I::RestartApplication));
    }
    match at.verify {
        LastVerify::None | LastVerify::Unindexed => steps.push(Type(Command::Verify)),
        LastVerify::WrongRows => steps.extend([again(at), Type(Command::Verify)]),
        LastVerify::Clean | LastVerify::OtherBytes => {
            steps.extend([Type(Command::Report), Type(Command::Plan)]);
        }
    }
    steps
}

/// The command that moves rows in this direction, with a new deadline where the one there is has passed.
pub(super) fn again(at: &Position) -> Step {
    let deadline = at.past_deadline;
    match at.direction() {
        Direction::Forward => Type(Command::Run { deadline }),
        Direction::Backward => Finish(Command::Rollback { deadline, compromised: at.compromised }),
    }
}

/// The same, once `resume` has lifted a deadline that passed.
fn resumed(at: &Position) -> Step {
    again(&Position { past_deadline: false, ..at.clone() })
}

/// A rollback to begin, or one that was begun.
pub(super) fn rollback(at: &Position) -> Step {
    match at.direction() {
        Direction::Forward => Type(Command::Rollback { deadline: false, compromised: at.compromised }),
        Direction::Backward => finish_rollback(at),
    }
}

fn finish_rollback(at: &Position) -> Step {
    Finish(Command::Rollback { deadline: false, compromised: at.compromised })
}

fn promote(at: &Position) -> Command {
    Command::Promote { external: at.external }
}
