//! `verify`: clean after a run, and what it finds where it is not.

use rekey::error::Exit;
use rekey::rotation::{Command, Step};

use crate::scene::Scene;
use crate::support::load::{some_ids, store, store_raw};
use crate::support::{NEW, OLD};

#[test]
fn after_a_run_every_row_is_identical() {
    let scene = Scene::rows(200);
    scene.run().unwrap();
    let verified = scene.verify().unwrap();
    let report = &verified.report;
    assert!(verified.recorded && report.clean && report.exit() == Exit::Ok);
    assert_eq!((report.rows, report.identical), (200, 200));
    assert_eq!(verified.next, [Step::Type(Command::Promote { external: true })]);
    // A row the application wrote since is its own business.
    store(&scene.db, some_ids(&scene.db, 1, 1)[0], NEW, b"{}");
    let report = scene.verify().unwrap().report;
    assert!(report.clean);
    assert_eq!((report.identical, report.changed_since), (199, 1));
}

#[test]
fn rows_on_the_wrong_key_or_on_none_are_found() {
    let scene = Scene::rows(200);
    scene.run().unwrap();
    let ids = some_ids(&scene.db, 2, 1);
    store(&scene.db, ids[0], OLD, b"{}");
    let verified = scene.verify().unwrap();
    assert_eq!((verified.report.exit(), verified.report.wrong_key), (Exit::VerifyFailed, 1));
    assert!(verified.next.contains(&Step::Type(Command::Run { deadline: false })), "{:?}", verified.next);
    store(&scene.db, ids[0], NEW, b"{}");
    store_raw(&scene.db, ids[1], &[7; 60]);
    let verified = scene.verify().unwrap();
    assert_eq!((verified.report.exit(), verified.report.unreadable), (Exit::Quarantined, 1));
    assert!(!verified.report.clean);
}
