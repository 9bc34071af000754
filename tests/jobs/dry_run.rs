//! A dry run tries every row and writes nothing, rekey's own schema included.

use rekey::error::Exit;
use rekey::jobs::dry_run::{DryEnd, dry_run};

use crate::never;
use crate::scene::Scene;
use crate::support::load::{some_ids, store_raw};
use crate::support::{NEW, block_on};

#[test]
fn every_row_is_tried_and_nothing_is_written() {
    let scene = Scene::rows(300);
    let before = scene.db.content();
    let tried = block_on(dry_run(&scene.session, &scene.request(), never().1)).unwrap();
    assert_eq!((tried.end, tried.found.rows, tried.found.would_re_encrypt), (DryEnd::Clean, 300, 300));
    store_raw(&scene.db, some_ids(&scene.db, 1, 1)[0], &[7; 60]);
    let tried = block_on(dry_run(&scene.session, &scene.request(), never().1)).unwrap();
    assert_eq!((tried.end, tried.end.exit()), (DryEnd::Quarantine, Exit::Quarantined));
    assert_eq!((tried.found.would_re_encrypt, tried.found.unreadable), (299, 1));
    assert_ne!(scene.db.content(), before, "the row that was damaged");
    assert!(!scene.db.has_rekey_schema());
}

/// Preflight refuses a key that opens no row before a single one is tried.
#[test]
fn a_key_that_opens_no_row_is_refused() {
    let mut scene = Scene::rows(50);
    scene.keys.old = Some(scene.key_file("other", crate::support::OTHER));
    let refused = block_on(dry_run(&scene.session, &scene.request(), never().1)).err().unwrap();
    assert!(!refused.to_string().contains(NEW));
    assert!(!scene.db.has_rekey_schema());
}
