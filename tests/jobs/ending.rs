//! `promote` to a dotenv file, `finalize`, and rows that an operator accepts on the way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rekey::error::{Error, Exit, Result};
use rekey::jobs::finalize::{FinalizeRequest, Finalized, finalize};
use rekey::jobs::promote::{PromoteRequest, Promoted, promote};
use rekey::jobs::quarantine::{self, AcceptRequest, Listing};
use rekey::jobs::report::{self, Which};
use rekey::jobs::{Goal, Session};
use rekey::rotation::{Command, State, Step};
use rekey::store::preflight::Allowed;
use uuid::Uuid;

use crate::never;
use crate::scene::{Scene, refused};
use crate::support::load::{some_ids, store_raw};
use crate::support::{Judge, NEW, OLD, OTHER, block_on};

fn promoted(scene: &Scene) -> Result<Promoted> {
    let (keys, allowed) = (scene.keys.clone(), Allowed::default());
    let request =
        PromoteRequest { external: false, program: None, wait_for: None, allowed, workers: 2, keys };
    block_on(promote(&scene.session, &request, never().1))
}

fn finalized(scene: &Scene) -> Result<Finalized> {
    let request = FinalizeRequest {
        recovery_window: 30,
        allowed: Allowed::default(),
        workers: 2,
        keys: scene.keys.clone(),
    };
    block_on(finalize(&scene.session, &request, never().1))
}

fn quarantined(session: &Session) -> Vec<Uuid> {
    let listed = async {
        let mut listing = Listing::open(session).await?;
        Ok::<_, Error>(listing.page().await?.into_iter().map(|entry| entry.id).collect())
    };
    block_on(listed).unwrap()
}

#[test]
fn to_a_dotenv_file_and_to_the_end() {
    let mut scene = Scene::rows(300);
    let env = scene.old_key_in_dotenv();
    let read = || fs::read_to_string(&env).unwrap();
    let mut judge = Judge::look(&scene.db, &[OLD]);
    assert_eq!(refused(promoted(&scene)).0, Exit::State);
    scene.run().unwrap();
    assert_eq!(refused(finalized(&scene)).0, Exit::State);
    assert!(read().contains(OLD));

    let done = promoted(&scene).unwrap();
    assert_eq!((done.already, done.rotation.state), (false, State::Promoted));
    assert_eq!(read(), format!("A=1\nENCRYPTION_KEY={NEW}\nB=2\n"));
    let mut beside = fs::read_dir(env.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let backup = beside.find(|path| path.extension().is_some_and(|end| end == "bak")).expect("a backup");
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&backup).unwrap().contains(OLD));
    // The application reads its key when it starts, which is nothing to type.
    assert!(matches!(done.next[0], Step::Do(_)));
    assert!(promoted(&scene).unwrap().already);

    let ended = finalized(&scene).unwrap();
    assert_eq!(ended.rotation.state, State::Finalized);
    assert_eq!(ended.next, [Step::Type(Command::Report)]);
    assert!(read().contains(NEW));
    assert_eq!(refused(finalized(&scene)).0, Exit::State);
    judge.all_on(&scene.db, NEW);

    let report = block_on(report::report(&scene.session, Which::Latest, None)).unwrap();
    assert!(report.chain.intact);
    let actions: Vec<&str> = report.rotations[0].timeline.iter().map(|e| e.action.as_str()).collect();
    for action in ["start", "migrated", "promoting", "promoted", "finalizing", "finalized"] {
        assert!(actions.contains(&action), "{action} in {actions:?}");
    }
    let unknown = block_on(report::report(&scene.session, Which::One(Uuid::nil()), None));
    assert_eq!(refused(unknown).0, Exit::Usage);
}

/// A place that yields neither key is not overwritten, and no state says that it was begun.
#[test]
fn a_foreign_key_stays_where_it_is() {
    let mut scene = Scene::rows(50);
    let env = scene.old_key_in_dotenv();
    let settled = scene.run().unwrap();
    let foreign = format!("ENCRYPTION_KEY={OTHER}\n");
    fs::write(&env, &foreign).unwrap();
    assert_eq!(refused(promoted(&scene)).0, Exit::Key);
    assert_eq!(fs::read_to_string(&env).unwrap(), foreign);
    assert_eq!(settled.rotation.state, State::Migrated);
    assert_eq!(scene.db.value::<String>("SELECT state FROM rekey.rotations"), "migrated");
}

/// What rekey cannot write is changed by its owner.
#[test]
fn a_file_of_one_key_is_changed_by_its_owner() {
    let scene = Scene::rows(50);
    scene.run().unwrap();
    assert_eq!(refused(promoted(&scene)).0, Exit::Usage);
    let (keys, allowed) = (scene.keys.clone(), Allowed::default());
    let request = PromoteRequest { external: true, program: None, wait_for: None, allowed, workers: 2, keys };
    let promoted = || block_on(promote(&scene.session, &request, never().1));
    let (exit, hint) = refused(promoted());
    assert!(exit == Exit::State && hint.contains("--external"), "{hint}");
    scene.key_file("old", NEW);
    let done = promoted().unwrap();
    assert_eq!((done.rotation.state, done.rotation.external), (State::Promoted, true));
}

#[test]
fn an_accepted_row_holds_nothing_up() {
    let mut scene = Scene::rows(200);
    scene.old_key_in_dotenv();
    let bad = some_ids(&scene.db, 1, 3)[0];
    store_raw(&scene.db, bad, b"neither key opens this, whatever it is");
    assert!(quarantined(&scene.session).is_empty());
    let settled = scene.run().unwrap();
    assert_eq!(settled.goal, Goal::Quarantined);
    assert_eq!(settled.next[0], Step::Type(Command::QuarantineList));
    assert_eq!(quarantined(&scene.session), [bad]);
    assert_eq!(refused(promoted(&scene)).0, Exit::Quarantined);

    let accept = |id| {
        let request = AcceptRequest { id, reason: "beyond repair".into(), keys: scene.keys.clone() };
        block_on(async {
            let candidate = quarantine::look(&scene.session, &request).await?;
            quarantine::accept(&scene.session, &candidate, &request.reason).await
        })
    };
    assert_eq!(refused(accept(Uuid::nil())).0, Exit::Usage);
    assert_eq!(accept(bad).unwrap().id, bad);
    assert_eq!(scene.run().unwrap().goal, Goal::ReachedButAccepted);
    assert_eq!(promoted(&scene).unwrap().rotation.state, State::Promoted);
    finalized(&scene).unwrap();
    assert_eq!(refused(accept(bad)).0, Exit::State);
}
