//! A bug of ours: a panic at any operation ends the process with 1, with nothing secret in its message or backtrace; no
//! row is lost, and the next process goes on.

use crate::rows::{all_back, all_moved, migrated, scene, table};
use crate::scene::Scene;
use crate::support::{Judge, NEW, OLD, rekey};
use crate::sweep::{armed, available, leases_run_out, stride};

fn panics(sample: u64, prepare: impl Fn() -> Scene) {
    let folder = tempfile::tempdir().expect("a folder");
    let stride = usize::try_from(stride(sample)).expect("a stride");
    let (mut panicked, mut outlived) = (0, 0);
    for n in (3..).step_by(stride) {
        let mut scene = prepare();
        let trace = folder.path().join(n.to_string());
        let command = armed((scene.command)(&scene.db), n, "panic", &trace);
        let outcome = command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full").run();
        let points = std::fs::read_to_string(&trace).unwrap_or_default();
        let Some(point) = points.lines().nth(n as usize - 1) else {
            outcome.expect(0);
            break;
        };
        panicked += 1;
        assert!(outcome.stderr.contains("fault point"), "no panic at {point}");
        match outcome.code() {
            // The heartbeat, when all the work was done.
            Some(0) => {
                outlived += 1;
                scene.reached();
            }
            code => assert_eq!(code, Some(1), "a panic at {point}\n{outcome}"),
        }
        scene.holds(&outcome);
        leases_run_out(&scene.db);
        available(|| (scene.command)(&scene.db)).expect(0);
        scene.reached();
        scene.db.discard();
    }
    assert!(panicked > 2 && outlived * 3 < panicked, "{outlived} of {panicked} panics went by");
}

#[test]
fn run() {
    let db = table();
    let judge = Judge::look(&db, &[OLD, NEW]);
    let template = db.into_template();
    panics(67, || Scene { goal: Box::new(all_moved), ..scene(&template, &judge, &["run"]) });
}

#[test]
fn rollback() {
    let (template, judge) = migrated();
    panics(97, || Scene { goal: Box::new(all_back), ..scene(&template, &judge, &["rollback", "--yes"]) });
}

#[test]
fn verify() {
    let (template, judge) = migrated();
    panics(13, || Scene { command: Box::new(|db| rekey(db, ["verify"])), ..scene(&template, &judge, &[]) });
}
