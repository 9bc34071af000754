//! What a job says to do next is permitted where everything then stands, and `jobs::standing` reads what the table asks.

use rekey::jobs::{Session, standing};
use rekey::rotation::permits::{LastPass, LastVerify};
use rekey::rotation::{Standing, next, permits};
use rekey::store::Purpose;

use crate::scene::{Scene, on};
use crate::support::load::{some_ids, store, store_raw};
use crate::support::{OLD, block_on, rekey};

fn look(session: &Session) -> Standing {
    block_on(async {
        let mut conn = session.connector().unwrap().connect(Purpose::Control).await.unwrap();
        standing::latest(session, &mut conn).await.unwrap().1
    })
}

/// What a newcomer sees, and that its first step is permitted.
#[track_caller]
fn seen(scene: &Scene) -> Standing {
    let standing = look(&on(&scene.db));
    let steps = next(&standing);
    if let Some(command) = steps[0].command() {
        permits(command, &standing).unwrap_or_else(|refusal| panic!("{steps:?}: {refusal:?}"));
    }
    standing
}

#[test]
fn the_standing_follows_a_rotation() {
    let scene = Scene::rows(100);
    assert_eq!(seen(&scene).rotation, None);
    let bad = some_ids(&scene.db, 1, 1)[0];
    store_raw(&scene.db, bad, &[7; 60]);
    scene.run().unwrap();
    let at = seen(&scene).rotation.unwrap();
    assert_eq!((at.pass, at.verify, at.workers), (LastPass::Clean, LastVerify::None, 0));
    assert_eq!((at.quarantine.open, at.quarantine.accepted), (1, 0));

    store(&scene.db, bad, OLD, b"{}");
    scene.verify().unwrap();
    assert_eq!(seen(&scene).rotation.unwrap().verify, LastVerify::WrongRows);
    // A pass ended since: that verify tells nothing any more.
    scene.run().unwrap();
    let at = seen(&scene).rotation.unwrap();
    assert_eq!((at.verify, at.quarantine.open), (LastVerify::None, 0));
    scene.verify().unwrap();
    assert_eq!(seen(&scene).rotation.unwrap().verify, LastVerify::Clean);

    scene.db.execute("UPDATE rekey.rotations SET deadline = clock_timestamp() - interval '1 hour'");
    let at = seen(&scene).rotation.unwrap();
    assert!(at.past_deadline && at.deadline.is_some());
    scene.roll_back().unwrap();
    let at = seen(&scene).rotation.unwrap();
    assert_eq!((at.verify, at.past_deadline), (LastVerify::None, false));
}

/// What a verify held against a row is settled once the row is accepted.
#[test]
fn an_acceptance_outdates_the_verify_before_it() {
    let scene = Scene::rows(50);
    let bad = some_ids(&scene.db, 1, 1)[0];
    store_raw(&scene.db, bad, &[7; 60]);
    scene.run().unwrap();
    scene.verify().unwrap();
    let at = seen(&scene).rotation.unwrap();
    assert_eq!((at.verify, at.quarantine.open), (LastVerify::WrongRows, 1));
    rekey(&scene.db, ["quarantine", "accept", &bad.to_string(), "--yes", "--reason", "a test's"]).exits(0);
    let at = seen(&scene).rotation.unwrap();
    assert_eq!((at.verify, at.quarantine.open, at.quarantine.accepted), (LastVerify::None, 0, 1));
}
