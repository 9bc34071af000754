use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::*;
use crate::rotation::state::Direction;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn at(state: State) -> Position {
    Position::at_rest(Uuid::nil(), state)
}

fn standing(at: Position) -> Standing {
    Standing { rotation: Some(at), just: JustDone::Nothing }
}

fn advice(standing: &Standing) -> Vec<String> {
    next(standing).iter().map(ToString::to_string).collect()
}

fn just(just: JustDone, state: Option<State>) -> Vec<String> {
    advice(&Standing { rotation: state.map(at), just })
}

#[test]
fn the_ordinary_way() {
    for (state, steps) in [
        (State::Migrating, &["rekey run"][..]),
        (State::Migrated, &["rekey verify", "rekey promote"]),
        (State::Promoting, &["rekey promote --yes"]),
        (
            State::Promoted,
            &[
                "restart the application",
                "rekey verify",
                "wait a few days: you can roll back until you finalize",
                "rekey finalize",
            ],
        ),
        (State::Finalizing, &["rekey finalize --yes"]),
        (State::Finalized, &["rekey report"]),
        (State::RollingBack, &["rekey rollback --yes"]),
        (State::Unpromoting, &["rekey rollback --yes"]),
        (State::RolledBack, &["restart the application", "rekey verify"]),
    ] {
        assert_eq!(advice(&standing(at(state))), steps, "{state}");
    }
    assert_eq!(just(JustDone::Nothing, None), ["rekey plan"]);
    let verified = |state| standing(Position { verify: LastVerify::Clean, ..at(state) });
    assert_eq!(advice(&verified(State::Migrated)), ["rekey promote"]);
    assert_eq!(advice(&verified(State::RolledBack)), ["rekey report", "rekey plan"]);
}

/// The verify that promote makes for itself says nothing of the application that reads the new key.
#[test]
fn finalize_is_offered_last() {
    let promoted = |days, verified_since, compromised| {
        let promotion = Some(Promotion { age: days * DAY, verified_since });
        advice(&standing(Position {
            promotion,
            compromised,
            verify: LastVerify::Clean,
            ..at(State::Promoted)
        }))
    };
    assert_eq!(promoted(0, false, false)[..2], ["restart the application", "rekey verify"]);
    assert_eq!(promoted(0, true, false)[1..], ["rekey finalize"]);
    assert_eq!(promoted(3, true, false), ["rekey finalize"]);
    assert_eq!(promoted(3, false, false), ["rekey verify", "rekey finalize"]);
    assert_eq!(promoted(0, true, true), ["rekey finalize"], "a compromised key is not waited for");
}

#[test]
fn what_a_plan_or_a_dry_run_found_comes_first() {
    assert_eq!(just(JustDone::Planned, None), ["rekey run --dry-run", "rekey run"]);
    assert_eq!(just(JustDone::Planned, Some(State::Migrated)), ["rekey verify", "rekey promote"]);
    assert_eq!(just(JustDone::Refused, None), ["fix the refused findings", "rekey plan"]);
    assert_eq!(just(JustDone::DryRun(Dry::Clean), None), ["rekey run"]);
    assert_eq!(just(JustDone::DryRun(Dry::Clean), Some(State::Migrated)), ["rekey verify", "rekey promote"]);
    let bad = [
        "repair the listed rows, name their key with `--also-key`, or let the run quarantine them",
        "rekey run --dry-run",
        "rekey run",
    ];
    assert_eq!(just(JustDone::DryRun(Dry::BadRows), None), bad);
    assert_eq!(just(JustDone::DryRun(Dry::WrongKey), None), ["rekey keys fingerprint SOURCE"]);
    assert_eq!(just(JustDone::Signalled, Some(State::RollingBack)), ["rekey rollback --yes"]);
}

#[test]
fn while_something_is_at_work_or_in_the_way() {
    let migrating = |change: &dyn Fn(&mut Position)| {
        let mut at = at(State::Migrating);
        change(&mut at);
        advice(&standing(at))
    };
    assert_eq!(migrating(&|at| at.workers = 1), ["rekey status --watch"]);
    assert_eq!(migrating(&|at| at.past_deadline = true), ["rekey run --deadline 2h", "rekey resume"]);
    assert_eq!(migrating(&|at| at.desired = Desired::Paused), ["rekey resume", "rekey run"]);
    assert_eq!(migrating(&|at| at.desired = Desired::Aborted), ["rekey resume", "rekey rollback"]);
    assert_eq!(migrating(&|at| at.pass = LastPass::Unsettled), ["stop the writers", "rekey run"]);
    assert_eq!(
        migrating(&|at| (at.state, at.quarantine.open) = (State::Migrated, 1))[..2],
        ["rekey quarantine list", "rekey quarantine retry"]
    );
    assert_eq!(
        migrating(&|at| (at.state, at.outside) = (State::Promoting, Outside::Promotion)),
        ["rekey status"]
    );
    assert_eq!(
        migrating(&|at| (at.state, at.external) = (State::Promoting, true))[1],
        "rekey promote --external --yes"
    );
    // Rows that hold other bytes are not promoted.
    assert_eq!(migrating(&|at| at.verify = LastVerify::OtherBytes)[0], "rekey rollback");
}

#[test]
fn refusals_name_the_way_on() {
    let refused = |command, at| -> (u8, String) {
        let refusal = permits(command, &standing(at)).expect_err("refused");
        (refusal.exit.code(), refusal.hint())
    };
    let run = Command::Run { deadline: false };
    let back = Command::Rollback { deadline: false, compromised: false };
    let aborted = Position { desired: Desired::Aborted, ..at(State::Migrating) };
    let late = Position { past_deadline: true, ..at(State::Migrating) };
    let known = Position { compromised: true, ..at(State::Migrated) };
    let rolling = Position { workers: 2, ..at(State::RollingBack) };
    for (command, at, code, hint) in [
        (run, aborted, 7, "Run `rekey resume`, then run `rekey run`; or run `rekey rollback`"),
        (run, late, 9, "Run `rekey run --deadline 2h`; or run `rekey resume`"),
        (run, at(State::Promoting), 7, "Run `rekey promote --yes` to finish"),
        (run, rolling.clone(), 8, "Run `rekey status --watch`"),
        (Command::Finalize, at(State::Migrated), 7, "Run `rekey verify`, then run `rekey promote`"),
        (back, known, 2, "Run `rekey rollback --yes --i-know-the-old-key-is-compromised`"),
        (back, at(State::Finalized), 7, "Run `rekey plan`"),
    ] {
        assert_eq!(refused(command, at), (code, hint.to_owned()), "{command}");
    }
    assert!(permits(back, &standing(rolling)).is_ok(), "rollbacks join each other");
}

/// docs/lifecycle.md, States: which command fits which state, where nothing else stands in its way.
#[test]
fn what_each_state_permits() {
    let run = Command::Run { deadline: false };
    let promote = Command::Promote { external: false };
    let back = Command::Rollback { deadline: false, compromised: false };
    let retry = Command::QuarantineRetry { deadline: false };
    let commands = [run, promote, Command::Finalize, back, Command::Pause, retry, Command::QuarantineAccept];
    for (state, fits) in [
        (State::Migrating, "run back pause retry accept"),
        (State::Migrated, "run promote back pause retry accept"),
        (State::Promoting, "promote back pause accept"),
        (State::Promoted, "run promote finalize back pause retry accept"),
        (State::Finalizing, "finalize pause accept"),
        (State::Finalized, "run"),
        (State::RollingBack, "back pause retry accept"),
        (State::Unpromoting, "back pause accept"),
        (State::RolledBack, "run back retry accept"),
    ] {
        let names = ["run", "promote", "finalize", "back", "pause", "retry", "accept"];
        let fitting = commands.iter().zip(names).filter(|(c, _)| permits(**c, &standing(at(state))).is_ok());
        assert_eq!(fitting.map(|(_, name)| name).collect::<Vec<_>>().join(" "), fits, "{state}");
    }
}

fn any_position() -> impl Strategy<Value = Position> {
    let outside = select(vec![Outside::Free, Outside::Promotion, Outside::Rollback]);
    let pass = select(vec![LastPass::Open, LastPass::Clean, LastPass::Unsettled]);
    let verify = select(vec![
        LastVerify::None,
        LastVerify::Clean,
        LastVerify::WrongRows,
        LastVerify::OtherBytes,
        LastVerify::Unindexed,
    ]);
    let promotion = (0u32..6, any::<bool>())
        .prop_map(|(days, verified_since)| Promotion { age: days * DAY, verified_since });
    let places = (select(State::ALL), select(Desired::ALL), any::<bool>(), 0usize..3, outside);
    let found = (pass, 0i64..2, verify, proptest::option::of(promotion), any::<bool>(), any::<bool>());
    (places, found).prop_map(|((state, desired, past_deadline, workers, outside), found)| {
        let (pass, open, verify, promotion, external, compromised) = found;
        let quarantine = Quarantined { open, accepted: 0 };
        let (id, deadline) = (Uuid::nil(), None);
        #[rustfmt::skip]
        let at = Position { id, state, desired, deadline, past_deadline, workers, outside, pass, quarantine, verify, promotion, external, compromised, contradicted: None };
        at
    })
}

fn any_standing() -> impl Strategy<Value = Standing> {
    let just = select(vec![
        JustDone::Nothing,
        JustDone::Planned,
        JustDone::Refused,
        JustDone::DryRun(Dry::Clean),
        JustDone::DryRun(Dry::BadRows),
        JustDone::DryRun(Dry::WrongKey),
        JustDone::DryRun(Dry::Stopped),
        JustDone::Signalled,
        JustDone::Listed,
    ]);
    (proptest::option::weighted(0.95, any_position()), just)
        .prop_map(|(rotation, just)| Standing { rotation, just })
}

fn any_command() -> impl Strategy<Value = Command> {
    let (deadline, external, compromised) = (any::<bool>(), any::<bool>(), any::<bool>());
    (0usize..12, deadline, external, compromised).prop_map(|(which, deadline, external, compromised)| {
        [
            Command::Run { deadline },
            Command::Verify,
            Command::Promote { external },
            Command::Finalize,
            Command::Rollback { deadline, compromised },
            Command::Pause,
            Command::Resume,
            Command::Abort,
            Command::QuarantineRetry { deadline },
            Command::QuarantineAccept,
            Command::Report,
            Command::DryRun,
        ][which]
    })
}

/// Where everything stands after a step that succeeded.
fn after(step: Step, standing: &Standing) -> Standing {
    let mut then = Standing { just: JustDone::Nothing, ..standing.clone() };
    let anew = standing.rotation.as_ref().is_none_or(|at| !at.state.is_active());
    if anew && matches!(step, Step::Type(Command::Run { .. })) {
        then.rotation = Some(at(State::Migrated));
        return then;
    }
    match step {
        Step::Type(Command::Plan) => then.just = JustDone::Planned,
        Step::Type(Command::DryRun) => then.just = JustDone::DryRun(Dry::Clean),
        _ => {}
    }
    let Some(at) = &mut then.rotation else { return then };
    let back = at.direction() == Direction::Backward;
    match step {
        Step::Do(Instruction::WaitSomeDays) => at.promotion.get_or_insert_default().age = 4 * DAY,
        Step::Do(_) => {}
        Step::Type(command) | Step::Finish(command) => match command {
            Command::Run { .. } => {
                let state = if at.state == State::Migrating { State::Migrated } else { at.state };
                *at = moved(at, state);
            }
            Command::Rollback { .. } => *at = moved(at, State::RolledBack),
            Command::Status | Command::Watch if at.is_moving() && at.desired() == Desired::Running => {
                *at = moved(at, if back { State::RolledBack } else { State::Migrated });
            }
            Command::Status | Command::Watch => (at.outside, at.workers) = (Outside::Free, 0),
            Command::Verify => {
                at.verify = LastVerify::Clean;
                at.promotion.iter_mut().for_each(|p| p.verified_since = true);
            }
            Command::Promote { .. } => {
                (at.state, at.verify) = (State::Promoted, LastVerify::Clean);
                at.promotion = Some(Promotion::default());
            }
            Command::Finalize => at.state = State::Finalized,
            Command::Resume => (at.desired, at.past_deadline) = (Desired::Running, false),
            Command::QuarantineRetry { .. } | Command::QuarantineAccept => at.quarantine.open = 0,
            _ => {}
        },
    }
    then
}

fn moved(at: &Position, state: State) -> Position {
    let (outside, pass, verify) = (Outside::Free, LastPass::Clean, LastVerify::None);
    let desired = if state == State::RolledBack { Desired::Running } else { at.desired };
    Position { state, desired, outside, pass, verify, workers: 0, past_deadline: false, ..at.clone() }
}

/// Takes every step in turn; each must be permitted where everything stood at first, or where the ones before it led.
fn walk(steps: &[Step], from: &Standing) -> Result<Standing, TestCaseError> {
    let mut now = from.clone();
    for (i, step) in steps.iter().enumerate() {
        if let Some(command) = step.command() {
            let first = steps[..i].iter().all(|step| step.command().is_none());
            let (then, at_once) = (permits(command, &now), permits(command, from));
            prop_assert!(then.is_ok() || !first && at_once.is_ok(), "{step}: {then:?}\n{from:#?}");
            if then.is_err() {
                continue;
            }
        }
        now = after(*step, &now);
    }
    Ok(now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    /// Every standing has a next step, and it is permitted; so are the others, after those before them.
    #[test]
    fn what_next_offers_is_permitted(standing in any_standing()) {
        let steps = next(&standing);
        prop_assert!(steps.iter().any(|step| step.command().is_some()), "nothing to type: {:#?}", standing);
        walk(&steps, &standing)?;
    }

    /// What a refusal advises is permitted as well, and so is the other way that it names.
    #[test]
    fn what_a_refusal_advises_is_permitted(standing in any_standing(), command in any_command()) {
        if let Err(refusal) = permits(command, &standing) {
            prop_assert!(!refusal.then.is_empty());
            walk(&refusal.then, &standing)?;
            walk(refusal.or.as_slice(), &standing)?;
        }
    }

    /// Advice leads to an end: whoever follows it comes to the report.
    #[test]
    fn advice_leads_to_an_end(standing in any_standing()) {
        let mut now = standing.clone();
        for _ in 0..10 {
            let steps = next(&now);
            if steps.contains(&Step::Type(Command::Report)) {
                return Ok(());
            }
            now = walk(&steps, &now)?;
        }
        prop_assert!(false, "still {:?} from {:#?}", next(&now), standing);
    }
}

/// What keys and rows are moved by is in the ledger and in the trail, or nothing is moved.
#[test]
fn what_the_trail_contradicts_is_not_acted_upon() {
    use crate::rotation::{Claim, Contradicted};
    let contradicted = Some(Contradicted { claim: Claim::State, trail: Some(State::Migrated) });
    for state in State::ALL {
        let standing = standing(Position { contradicted, ..at(*state) });
        for command in [
            Command::Run { deadline: true },
            Command::Promote { external: false },
            Command::Finalize,
            Command::Rollback { deadline: true, compromised: true },
            Command::QuarantineRetry { deadline: true },
            Command::QuarantineAccept,
        ] {
            let refusal = permits(command, &standing).expect_err("it is refused");
            assert_eq!(refusal.exit, Exit::State, "{state}");
            assert!(refusal.fact.to_string().contains("the audit trail says migrated"), "{}", refusal.fact);
        }
        assert!(
            permits(Command::Verify, &standing).is_ok()
                && permits(Command::Pause, &standing).is_ok() == state.is_active()
        );
        assert_eq!(advice(&standing)[1], "rekey report");
    }
}
