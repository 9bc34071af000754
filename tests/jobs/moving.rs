//! `run` and `rollback`: to the end, stopped and resumed, refused, and rows that no key opens.

use rekey::engine::StopSource;
use rekey::error::Exit;
use rekey::jobs::{Goal, run};
use rekey::rotation::{Command, State, Step};

use crate::never;
use crate::scene::{Scene, on};
use crate::support::load::{some_ids, store_raw};
use crate::support::{Judge, NEW, OLD, block_on, rekey};

#[test]
fn a_run_ends_with_every_row_on_the_new_key() {
    let scene = Scene::rows(900);
    let mut judge = Judge::look(&scene.db, &[OLD]);
    let settled = scene.run().unwrap();
    assert_eq!((settled.goal, settled.goal.exit()), (Goal::Reached, Exit::Ok));
    assert_eq!((settled.rotation.state, settled.totals.re_encrypted), (State::Migrated, 900));
    judge.all_on(&scene.db, NEW);
    // Once more: it joins the same rotation, and finds nothing to do.
    let again = scene.run().unwrap();
    assert_eq!((again.goal, again.rotation.id), (Goal::Reached, settled.rotation.id));
    assert_eq!(again.totals.re_encrypted, 900);
}

#[test]
fn a_stopped_run_is_resumed_by_the_next_one() {
    let scene = Scene::rows(600);
    scene.db.mark();
    let mut judge = Judge::look(&scene.db, &[OLD]);
    // The pass cannot end while this row is held.
    let held = scene.db.hold_last();
    let (source, stop) = StopSource::new();
    let other = scene.db.clone();
    let stopper = std::thread::spawn(move || {
        other.wait_moved(1);
        source.stop();
    });
    let settled = block_on(run::run(&scene.session, &scene.request(), stop)).unwrap();
    stopper.join().unwrap();
    assert_eq!((settled.goal, settled.goal.exit()), (Goal::Signalled, Exit::Signalled));
    assert_eq!(settled.next, [Step::Type(Command::Run { deadline: false })]);
    assert!(settled.totals.re_encrypted < 600);
    held.rollback();
    let resumed = scene.run().unwrap();
    assert_eq!((resumed.goal, resumed.rotation.id), (Goal::Reached, settled.rotation.id));
    assert_eq!(resumed.totals.re_encrypted, 600);
    judge.all_on(&scene.db, NEW);
}

#[test]
fn what_the_state_refuses_needs_no_key() {
    let mut scene = Scene::rows(20);
    assert_eq!(scene.roll_back().err().unwrap().exit, Exit::State);
    assert_eq!(scene.verify().err().unwrap().exit, Exit::State);
    scene.run().unwrap();
    scene.keys = Default::default();
    for (column, exit) in [
        ("desired = 'aborted'", Exit::State),
        ("desired = 'running', deadline = clock_timestamp() - interval '1 hour'", Exit::Stopped),
        ("deadline = NULL, state = 'promoting', promoting_at = clock_timestamp()", Exit::State),
        ("state = 'finalizing'", Exit::State),
        ("state = 'rolling_back'", Exit::State),
    ] {
        scene.db.execute(&format!("UPDATE rekey.rotations SET {column}"));
        let refused = scene.run().err().unwrap();
        assert_eq!(refused.exit, exit, "{column}: {refused}");
        assert!(refused.hint.unwrap().contains('`'), "{column}: a command is named");
    }
    scene.db.execute("UPDATE rekey.rotations SET state = 'finalizing'");
    assert_eq!(scene.roll_back().err().unwrap().exit, Exit::State);
}

#[test]
fn another_key_than_the_rotations_is_refused() {
    let mut scene = Scene::rows(20);
    scene.run().unwrap();
    scene.keys.new = Some(scene.key_file("other", crate::support::OTHER));
    let refused = scene.run().err().unwrap();
    assert_eq!(refused.exit, Exit::Key);
    assert!(!refused.message.contains(crate::support::OTHER));
}

#[test]
fn rows_that_no_key_opens_are_quarantined() {
    let scene = Scene::rows(200);
    let bad = some_ids(&scene.db, 3, 1);
    bad.iter().for_each(|&id| store_raw(&scene.db, id, &[7; 60]));
    let settled = scene.run().unwrap();
    assert_eq!((settled.goal, settled.goal.exit()), (Goal::Quarantined, Exit::Quarantined));
    assert_eq!((settled.unaccepted, settled.totals.quarantined), (3, 3));
    for id in bad {
        rekey(&scene.db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "a test's"]).exits(0);
    }
    assert_eq!(scene.run().unwrap().goal, Goal::ReachedButAccepted);
}

#[test]
fn a_rollback_returns_every_row_to_the_old_key() {
    let scene = Scene::rows(300);
    let mut judge = Judge::look(&scene.db, &[OLD]);
    let ran = scene.run().unwrap();
    let back = scene.roll_back().unwrap();
    assert_eq!((back.goal, back.rotation.id), (Goal::Reached, ran.rotation.id));
    assert_eq!((back.rotation.state, back.totals.re_encrypted), (State::RolledBack, 300));
    judge.all_on(&scene.db, OLD);
    assert!(scene.verify().unwrap().report.clean);
    // What a run starts now is another rotation.
    assert_ne!(scene.run().unwrap().rotation.id, ran.rotation.id);
}

/// Two processes at once join one rotation, and both see its goal reached.
#[test]
fn two_sessions_share_one_rotation() {
    let scene = Scene::rows(500);
    let (second, request) = (on(&scene.db), scene.request());
    let both = async {
        tokio::join!(run::run(&scene.session, &request, never().1), run::run(&second, &request, never().1),)
    };
    let (one, two) = block_on(both);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.goal, two.goal), (Goal::Reached, Goal::Reached));
    assert_eq!(one.rotation.id, two.rotation.id);
    assert_eq!(one.totals.re_encrypted.max(two.totals.re_encrypted), 500);
}
