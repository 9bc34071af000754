//! Commands that move rows: run, the turn with workers at work, rollback, quarantine retry.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::scene::{NULLS, ON_NEW, ON_OLD, Scene, in_steps, totals_are};
use crate::support::database::Template;
use crate::support::judge::{open_row, stored};
use crate::support::load::{Load, some_ids, store, store_raw};
use crate::support::{Db, Judge, NEW, OLD, Random, Running, SOON, rekey, until};
use crate::sweep::{armed, available, sweep};

/// A table with rows on the old key, on the new key, and without a credential.
pub fn table() -> Db {
    let db = Db::new();
    Load::rows((ON_OLD + ON_NEW + NULLS) as u64).into(&db);
    let ids = some_ids(&db, (ON_NEW + NULLS) as usize, 3);
    for id in &ids[..ON_NEW as usize] {
        store(&db, *id, NEW, b"{\"api_key\":\"written under the new key\"}");
    }
    for id in &ids[ON_NEW as usize..] {
        db.execute(&format!(
            "UPDATE provider_connections SET encrypted_credentials = NULL WHERE id = '{id}'"
        ));
    }
    db
}

/// A table whose run is over.
pub fn migrated() -> (Template, Judge) {
    let db = table();
    let judge = Judge::look(&db, &[OLD, NEW]);
    available(|| in_steps(rekey(&db, []), ["run"])).expect(0);
    (db.into_template(), judge)
}

pub fn scene(template: &Template, judge: &Judge, arguments: &'static [&'static str]) -> Scene {
    Scene {
        db: template.copy_beside(),
        judge: judge.clone(),
        on_new_before: ON_NEW,
        command: Box::new(|db| in_steps(rekey(db, []).more(arguments), [])),
        ends: 0,
        again: 0,
        always: Box::new(|_| ()),
        goal: Box::new(|_| ()),
    }
}

/// Every row is on the new key and counted once.
pub fn all_moved(scene: &mut Scene) {
    scene.judge.all_on(&scene.db, NEW);
    let found = [
        ("re_encrypted", ON_OLD),
        ("already_on_key", ON_NEW),
        ("null", NULLS),
        ("quarantined", 0),
        ("lost_races", 0),
    ];
    let status = totals_are(&scene.db, &found);
    assert_eq!(status["rotation"]["state"], "migrated");
    let verified = rekey(&scene.db, ["verify"]).json(0);
    assert_eq!(verified["identical"], ON_OLD, "{verified:#}");
}

#[test]
fn run() {
    let db = table();
    let judge = Judge::look(&db, &[OLD, NEW]);
    let template = db.into_template();
    sweep("run", 127, || Scene { goal: Box::new(all_moved), ..scene(&template, &judge, &["run"]) });
}

/// A row that the server rejects: its batch is taken apart until that row is alone, which stays behind.
#[test]
fn run_around_a_rejected_row() {
    let db = table();
    let judge = Judge::look(&db, &[OLD, NEW]);
    let id = crate::support::load::ids(&db).into_iter().find(|id| open_row(&db, *id, OLD).is_some());
    let id = id.expect("most rows are on the old key");
    db.execute(&format!(
        "ALTER TABLE provider_connections ADD CONSTRAINT untouchable CHECK (id <> '{id}') NOT VALID"
    ));
    let template = db.into_template();
    sweep("run around a rejected row", 181, || Scene {
        ends: 5,
        again: 5,
        goal: Box::new(move |scene| {
            assert!(open_row(&scene.db, id, OLD).is_some());
            let found = [
                ("re_encrypted", ON_OLD - 1),
                ("already_on_key", ON_NEW),
                ("null", NULLS),
                ("quarantined", 1),
            ];
            totals_are(&scene.db, &found);
        }),
        ..scene(&template, &judge, &["run"])
    });
}

/// Every row is on the old key again, those too that were on the new one before rekey came.
pub fn all_back(scene: &mut Scene) {
    scene.judge.all_on(&scene.db, OLD);
    let status = totals_are(&scene.db, &[("quarantined", 0), ("lost_races", 0)]);
    assert_eq!(status["rotation"]["state"], "rolled_back");
}

#[test]
fn rollback() {
    let (template, judge) = migrated();
    sweep("rollback", 127, || Scene {
        goal: Box::new(|scene| {
            all_back(scene);
            totals_are(
                &scene.db,
                &[("re_encrypted", ON_OLD + ON_NEW), ("already_on_key", 0), ("null", NULLS)],
            );
        }),
        ..scene(&template, &judge, &["rollback", "--yes"])
    });
}

/// The rotation is turned round while workers are in the midst of their batches; every other time something fails under
/// them as well.
#[test]
fn turn() {
    let db = table();
    let judge = Judge::look(&db, &[OLD, NEW]);
    let template = db.into_template();
    let (turns, random) = (Cell::new(0), RefCell::new(Random::new(7)));
    sweep("turn", 181, || {
        let scene = scene(&template, &judge, &["rollback", "--yes"]);
        scene.db.mark();
        scene.db.slow_batches(Duration::from_millis(20));
        let worker =
            rekey(&scene.db, ["run", "--chunk-rows", "60", "--batch-rows", "4", "--lease-ttl", "2s"]);
        turns.set(turns.get() + 1);
        let mut running = if turns.get() % 2 == 0 {
            // After the rotation is on record, and before its rows are done.
            let at = 340 + random.borrow_mut().below(420);
            let kind = ["error", "error:40001", "drop", "abort"][turns.get() / 2 % 4];
            armed(worker, at, kind, Path::new("/dev/null")).start()
        } else {
            worker.start()
        };
        until("rows to be moved", SOON, || (scene.db.moved() >= 20 || !running.running()).then_some(()));
        let busy = Mutex::new(Some(running));
        let goal = move |scene: &mut Scene| {
            // Told that its direction is over, it ends by itself, if nothing ended it before; a fault for good is 1.
            if let Some(running) = busy.lock().unwrap().take() {
                let ended = Running::wait(running);
                assert!(
                    [None, Some(0), Some(1), Some(7), Some(8), Some(69)].contains(&ended.code()),
                    "{ended}"
                );
            }
            all_back(scene);
        };
        Scene { goal: Box::new(goal), ..scene }
    });
}

#[test]
fn quarantine_retry() {
    let db = table();
    let ids = some_ids(&db, 4, 5);
    let before: Vec<_> = ids.iter().map(|id| stored(&db, *id).expect("a credential")).collect();
    let judge = Judge::look(&db, &[OLD, NEW]);
    for id in &ids {
        store_raw(&db, *id, b"no key opens these bytes, which is what makes a quarantine");
    }
    in_steps(rekey(&db, []), ["run"]).exits(5);
    for (id, bytes) in ids.iter().zip(&before) {
        store_raw(&db, *id, bytes);
    }
    let template = db.into_template();
    sweep("quarantine retry", 127, || Scene {
        goal: Box::new(|scene| {
            scene.judge.all_on(&scene.db, NEW);
            let found =
                [("re_encrypted", ON_OLD), ("already_on_key", ON_NEW), ("null", NULLS), ("quarantined", 0)];
            totals_are(&scene.db, &found);
        }),
        ..scene(&template, &judge, &["quarantine", "retry"])
    });
}
