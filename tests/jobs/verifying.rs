//! `verify`: clean after a run, and what it finds where it is not.

use rekey::error::{Error, Exit};
use rekey::rotation::{Command, Step};
use rekey::store::{Purpose, counting};

use crate::scene::Scene;
use crate::support::load::{some_ids, store, store_raw};
use crate::support::{NEW, OLD, block_on};

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

/// Of rows that are written while a verify reads, so many are held in memory.
#[test]
fn more_rows_than_a_verify_can_hold_are_written_meanwhile() {
    let scene = Scene::rows(200);
    scene.run().unwrap();
    let rotation = scene.db.value("SELECT id FROM rekey.rotations");
    let connector = scene.session.connector().unwrap();
    let mut conn = block_on(connector.connect(Purpose::ReadByPlace)).unwrap();
    let began = block_on(counting::begin(&mut conn)).unwrap();
    for id in some_ids(&scene.db, 3, 1) {
        store(&scene.db, id, NEW, b"{}");
    }
    let ended = block_on(counting::end(&mut conn, rotation, &began, 3)).unwrap();
    assert_eq!((ended.old, ended.young.len(), ended.unknown), (197, 3, 0));
    let refused: Error = block_on(counting::end(&mut conn, rotation, &began, 2)).err().unwrap().into();
    assert_eq!(refused.exit, Exit::Busy);
    assert!(refused.message.contains("more than 2 rows were written"), "{refused}");
}

/// A batch that was under way when a verify began was not there to be met, though a later transaction had ended by then.
#[test]
fn a_batch_that_ends_after_a_verify_began_is_no_old_one() {
    let scene = Scene::rows(200);
    scene.run().unwrap();
    let rotation = scene.db.value("SELECT id FROM rekey.rotations");
    let connector = scene.session.connector().unwrap();
    let mut conn = block_on(connector.connect(Purpose::ReadByPlace)).unwrap();
    let mut batch = scene.db.hold();
    batch.execute(sqlx::query(
        "WITH moved AS (UPDATE provider_connections SET encrypted_credentials = encrypted_credentials
             WHERE id = (SELECT min(id::text)::uuid FROM provider_connections) RETURNING id)
         INSERT INTO rekey.proofs (rotation, direction, chunk, seq, xid, lo, hi, ids, tags)
         SELECT r.id, 'forward', 1, 1000, pg_current_xact_id(), moved.id, moved.id, ARRAY[moved.id], '\\x0000000000000000'
         FROM moved, rekey.rotations r",
    ));
    let first: uuid::Uuid = scene.db.value("SELECT min(id::text)::uuid FROM provider_connections");
    // Another one begins later, and ends before.
    let other = some_ids(&scene.db, 2, 1).into_iter().find(|id| *id != first).unwrap();
    store(&scene.db, other, NEW, b"{}");
    let began = block_on(counting::begin(&mut conn)).unwrap();
    let xid: String = batch.value("SELECT pg_current_xact_id()::text");
    batch.commit();
    assert!(!began.saw(rekey::store::Xid(xid.parse::<u64>().unwrap() as u32)));
    let ended = block_on(counting::end(&mut conn, rotation, &began, 100)).unwrap();
    assert_eq!(ended.old + ended.young.len() as i64, 200);
    assert!(ended.young.iter().any(|(id, _)| *id == first), "the batch is not among {:?}", ended.young);
}
