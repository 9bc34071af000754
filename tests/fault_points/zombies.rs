//! The n-th operation freezes its process; another one comes, takes over, and is done; then the first wakes up where it
//! was. It may find that its work is done, or that it has no say any more, and nothing else.

use std::time::Duration;

use rustix::process::Signal;

use crate::outside::{Place, Step};
use crate::rows::{all_back, all_moved, scene, table};
use crate::scene::{Scene, in_steps};
use crate::support::damaged::damaged;
use crate::support::judge::count_on;
use crate::support::{Db, Judge, NEW, OLD, Outcome, Running, rekey, state, until};
use crate::sweep::{armed, available, stride};

/// For each n: the scene's command is frozen at its n-th point, `meanwhile` runs to its end, and the command wakes up.
fn sweep(
    name: &str,
    sample: u64,
    prepare: impl Fn() -> Scene,
    meanwhile: impl Fn(&mut Scene, Option<Outcome>),
) {
    let stride = stride(sample);
    let mut n = 1;
    while frozen_at(n, prepare(), &meanwhile) {
        n += stride;
    }
    println!("{name}: frozen at every {stride}th of {n} operations");
}

/// The scene's command is frozen at its n-th point, if it has as many.
fn frozen_at(n: u64, mut scene: Scene, meanwhile: impl Fn(&mut Scene, Option<Outcome>)) -> bool {
    let trace = tempfile::NamedTempFile::new().expect("a file");
    let mut zombie = armed((scene.command)(&scene.db), n, "freeze", trace.path()).start();
    let frozen = until("it to freeze or to end", Duration::from_secs(60), || {
        let ended = !zombie.running();
        (ended || is_frozen(&zombie)).then_some(!ended)
    });
    if !frozen {
        zombie.wait().expect(0);
        scene.db.discard();
        return false;
    }
    meanwhile(&mut scene, None);
    zombie.signal(Signal::CONT);
    let woken = zombie.wait();
    let points = std::fs::read_to_string(trace.path()).expect("a trace");
    eprintln!("freeze at {}: {}", points.lines().nth(n as usize - 1).unwrap_or_default(), woken.status);
    scene.holds(&woken);
    meanwhile(&mut scene, Some(woken));
    scene.db.discard();
    true
}

/// The points of the scene's command at which it does this.
fn points_of(scene: Scene, operation: &str) -> Vec<u64> {
    let trace = tempfile::NamedTempFile::new().expect("a file");
    armed((scene.command)(&scene.db), u64::MAX, "freeze", trace.path()).exits(0);
    scene.db.discard();
    let points = std::fs::read_to_string(trace.path()).expect("a trace");
    (1..).zip(points.lines()).filter(|(_, point)| point.ends_with(operation)).map(|(n, _)| n).collect()
}

fn is_frozen(process: &Running) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid().as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
}

fn fresh() -> impl Fn() -> Scene {
    let db = table();
    let judge = Judge::look(&db, &[OLD, NEW]);
    let template = db.into_template();
    move || scene(&template, &judge, &["run"])
}

#[test]
fn a_run_wakes_up_after_another_has_finished() {
    sweep("run, then run", 139, fresh(), |scene, woken| match woken {
        None => {
            let other = available(|| in_steps(rekey(&scene.db, []), ["run"])).expect(0);
            scene.holds(&other);
            all_moved(scene);
        }
        Some(woken) => {
            // The server may have ended the transaction it was frozen in: then it is to be run again.
            assert!([Some(0), Some(69)].contains(&woken.code()), "{woken}");
            all_moved(scene);
        }
    });
}

#[test]
fn a_run_wakes_up_after_a_rollback() {
    sweep("run, then rollback", 139, fresh(), |scene, woken| match woken {
        None => {
            let other = in_steps(rekey(&scene.db, []), ["rollback", "--yes"]).run();
            // Where no rotation was recorded yet there is nothing to roll back.
            assert!([Some(0), Some(7)].contains(&other.code()), "{other}");
            scene.holds(&other);
            if other.code() == Some(0) {
                all_back(scene);
            }
        }
        // It had not begun: it began a rotation of its own.
        Some(woken) if state(&scene.db) == "migrated" => {
            woken.expect(0);
            scene.judge.all_on(&scene.db, NEW);
        }
        Some(woken) => {
            // 0 where it was frozen between its last look and its last word, and 69 in a transaction.
            assert!([0, 7, 8, 69].map(Some).contains(&woken.code()), "{woken}");
            all_back(scene);
        }
    });
}

/// A verify of a rotation that is over wakes up when the next one has moved rows: that is no trouble, and is not recorded
/// as one.
#[test]
fn a_verify_wakes_up_after_another_rotation_has_run() {
    let db = table();
    available(|| in_steps(rekey(&db, []), ["run"])).expect(0);
    available(|| in_steps(rekey(&db, []), ["rollback", "--yes"])).expect(0);
    let judge = Judge::look(&db, &[OLD, NEW]);
    let template = db.into_template();
    let verify = || Scene {
        command: Box::new(|db| rekey(db, ["verify", "--workers", "1"])),
        ..scene(&template, &judge, &[])
    };
    sweep("verify, then run", 7, verify, |scene, woken| match woken {
        None => {
            let run = |db: &Db| in_steps(rekey(db, []), ["run"]).run();
            let mut other = run(&scene.db);
            // Frozen where it records its result, it holds the audit chain.
            if other.code() == Some(69) {
                scene.db.terminate_other_sessions();
                other = run(&scene.db);
            }
            other.expect(0);
        }
        Some(woken) => {
            assert!([0, 8, 69].map(Some).contains(&woken.code()), "{woken}");
            let alarms = "SELECT count(*) FROM rekey.rotations WHERE NOT verified_clean";
            assert_eq!(scene.db.value::<i64>(alarms), 0, "{woken}");
        }
    });
}

/// A promotion or a finalization that was looked at before a rollback and is carried out after it.
fn outside_after_a_rollback(step: Step) {
    let place = Place::new(step);
    let name = format!("{}, then rollback", step.arguments()[0]);
    sweep(&name, 13, || place.scene(), |scene, woken| back_meanwhile(&place, scene, woken));
}

/// Between the record of its beginning and the change itself a promotion looks at nothing but whether it still may.
#[test]
fn a_promotion_wakes_up_just_after_it_was_recorded() {
    let place = Place::new(Step::Promote);
    let points = points_of(place.scene(), "record the promotion");
    assert!(points.len() > 6, "{points:?}");
    for n in points {
        assert!(frozen_at(n, place.scene(), |scene, woken| back_meanwhile(&place, scene, woken)));
    }
}

/// A rollback while the command is frozen, and what must be true once it woke up: the application reads the key that rows
/// are on.
fn back_meanwhile(place: &Place, scene: &mut Scene, woken: Option<Outcome>) {
    let roll_back = |db: &Db| place.command(db).args(["rollback", "--yes"]).run();
    let Some(woken) = woken else {
        let mut other = roll_back(&scene.db);
        // Whoever holds the lock of promotions keeps the rollback away, until its sessions end. A finalized
        // rotation does, too, and so does the folder's lock, which no server ends.
        if other.code() == Some(8) {
            scene.db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
            scene.holds(&other);
            other = roll_back(&scene.db);
        }
        assert!([Some(0), Some(7), Some(8)].contains(&other.code()), "{other}");
        return scene.holds(&other);
    };
    assert!([0, 7, 8, 69].map(Some).contains(&woken.code()), "{woken}");
    let at = state(&scene.db);
    if ["rolling_back", "unpromoting"].contains(&at.as_str()) {
        roll_back(&scene.db).expect(0);
    }
    if ["rolling_back", "unpromoting", "rolled_back"].contains(&at.as_str()) {
        // 0 where it had been done before, and was frozen on its way to say so.
        let done_before: bool = scene.db.value(
            "SELECT coalesce(min(seq) FILTER (WHERE action IN ('promoted', 'finalized')) <
                 min(seq) FILTER (WHERE action = 'rolling_back'), false) FROM rekey.events",
        );
        assert!(woken.code() != Some(0) || done_before, "{woken}");
        scene.judge.all_on(&scene.db, OLD);
        return place.is_back();
    }
    assert_eq!(count_on(&scene.db, OLD), 0, "{woken}");
    if woken.code() != Some(0) {
        let done = (scene.command)(&scene.db).run();
        assert!([0, scene.again].map(Some).contains(&done.code()), "{done}");
    }
    scene.reached();
}

#[test]
fn a_promotion_wakes_up_after_a_rollback() {
    outside_after_a_rollback(Step::Promote);
}

#[test]
fn a_finalization_wakes_up_after_a_rollback() {
    outside_after_a_rollback(Step::Finalize);
}

/// Of several pods that roll back, one does the outside half, and all of them end well.
#[test]
fn a_rollback_wakes_up_after_another() {
    let place = Place::new(Step::Rollback);
    // None of them has the new key from elsewhere: where one had, it would keep no copy for the others.
    let roll_back =
        |db: &Db| place.command(db).args(["rollback", "--yes"]).without("NEW_ENCRYPTION_KEY").run();
    sweep(
        "rollback, then rollback",
        103,
        || place.scene(),
        |scene, woken| match woken {
            None => {
                let mut other = roll_back(&scene.db);
                // The frozen one is at the outside half, and has the lock for it.
                if other.code() != Some(0) {
                    assert!([Some(8), Some(69)].contains(&other.code()), "{other}");
                    scene.db.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                    );
                    other = roll_back(&scene.db);
                }
                assert!([Some(0), Some(8)].contains(&other.code()), "{other}");
                scene.holds(&other);
            }
            Some(woken) => {
                assert!([Some(0), Some(69)].contains(&woken.code()), "{woken}");
                roll_back(&scene.db).expect(0);
                scene.reached();
            }
        },
    );
}

/// Around a damaged value rows are read one by one, which takes a moment: those deleted meanwhile are missed by nobody, and
/// hide none of the others.
#[test]
fn a_run_wakes_up_after_neighbours_of_a_damaged_value_were_deleted() {
    // One chunk, read in more than one stretch, the first of which is damaged.
    let (cluster, db, damaged) = damaged(4000);
    let before = format!("SELECT count(*) FROM provider_connections WHERE id < '{damaged}'");
    assert!(db.value::<i64>(&before) < 3000, "it is in the second stretch");
    let template = db.into_template();
    let run = |db: &Db| rekey(db, ["run", "--workers", "1", "--chunk-rows", "16000", "--batch-rows", "500"]);
    let traced = tempfile::NamedTempFile::new().expect("a file");
    let db = template.copy(&cluster);
    armed(run(&db), u64::MAX, "freeze", traced.path()).exits(5);
    db.discard();
    let points = std::fs::read_to_string(traced.path()).expect("a trace");
    let reads: Vec<u64> = (1..)
        .zip(points.lines())
        .filter(|(_, point)| point.ends_with("read connections"))
        .map(|(n, _)| n)
        .collect();
    assert!(reads.len() > 100, "{reads:?}");
    for n in reads.iter().copied().step_by(reads.len() / 5).take(5) {
        let db = template.copy(&cluster);
        let mut zombie = armed(run(&db), n, "freeze", traced.path()).start();
        until("it to freeze", Duration::from_secs(60), || {
            assert!(zombie.running(), "it ended instead");
            is_frozen(&zombie).then_some(())
        });
        let every_third = "DELETE FROM provider_connections WHERE id IN (SELECT id FROM
             (SELECT id, row_number() OVER (ORDER BY id) FROM provider_connections) t WHERE row_number % 3 = 0)";
        db.execute(&format!("{every_third} AND id <> '{damaged}'"));
        zombie.signal(Signal::CONT);
        zombie.wait().expect(5);
        let listed = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
        assert_eq!((listed[0]["id"].as_str(), listed[1].is_null()), (Some(&*damaged.to_string()), true));
        assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.passes"), 1);
        db.execute(&format!("DELETE FROM provider_connections WHERE id = '{damaged}'"));
        assert_eq!(count_on(&db, OLD), 0, "frozen at {n}");
        assert!(count_on(&db, NEW) >= 2666, "frozen at {n}");
        db.discard();
    }
}
