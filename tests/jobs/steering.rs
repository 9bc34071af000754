//! `init`, `plan`, `status`, and `pause`, `resume` and `abort` of a run in another thread.

use std::thread;
use std::time::Duration;

use rekey::error::{Exit, Result};
use rekey::jobs::control::{self, Controlled};
use rekey::jobs::key_pair::NamedKeys;
use rekey::jobs::plan::{Plan, PlanRequest, plan};
use rekey::jobs::status::{Status, Watch};
use rekey::jobs::{Goal, init, run};
use rekey::rotation::{Command, Desired, PassOutcome, Step};
use rekey::secrets::KeySource;
use rekey::store::preflight::Allowed;

use crate::never;
use crate::scene::{Scene, on, refused, work};
use crate::support::{block_on, until};

const SOON: Duration = Duration::from_secs(60);

fn status(scene: &Scene) -> Status {
    block_on(async { Watch::open(&scene.session).await?.look().await }).unwrap()
}

fn planned(scene: &Scene, keys: NamedKeys) -> Plan {
    block_on(plan(&scene.session, &PlanRequest { rehearse: None, keys, work: work() })).unwrap()
}

fn told(scene: &Scene, desired: Desired) -> Result<Controlled> {
    block_on(control::set(&scene.session, desired, None))
}

#[test]
fn the_schema_is_made_once() {
    let scene = Scene::rows(1);
    let done = block_on(init::init(&scene.session, &Allowed::default())).unwrap();
    assert!(done.created);
    assert_eq!(done.next, [Step::Type(Command::Plan)]);
    assert!(!block_on(init::init(&scene.session, &Allowed::default())).unwrap().created);
    assert!(init::sql().contains("CREATE SCHEMA"));
}

#[test]
fn a_plan_writes_nothing_and_names_what_stands_in_the_way() {
    let scene = Scene::rows(100);
    let fine = planned(&scene, scene.keys.clone());
    assert_eq!(fine.report.exit(), Exit::Ok);
    assert_eq!((fine.rotation.is_none(), fine.rehearsed_rows), (true, None));
    assert_eq!(fine.next[0], Step::Type(Command::DryRun));

    let absent = KeySource::parse(&format!("file:{}", scene.path("absent").display())).unwrap();
    let refused = planned(&scene, NamedKeys { new: Some(absent), ..scene.keys.clone() });
    assert_eq!(refused.report.exit(), Exit::Key);
    assert!(refused.report.findings.iter().any(|finding| finding.name == "keys" && finding.refuses()));
    assert_eq!(refused.next.last(), Some(&Step::Type(Command::Plan)));
    assert!(!scene.db.has_rekey_schema());
}

#[test]
fn status_before_and_after() {
    let scene = Scene::rows(120);
    let before = status(&scene);
    assert!(before.rotation.is_none() && before.event_head.is_none() && before.is_at_rest());
    assert_eq!(before.next, [Step::Type(Command::Plan)]);
    scene.run().unwrap();
    let after = status(&scene);
    assert!(after.is_at_rest() && after.processes.is_empty() && after.throttle.is_none());
    assert_eq!(after.totals.unwrap().re_encrypted, 120);
    let pass = after.progress.unwrap();
    assert_eq!((pass.outcome, pass.rows_done, pass.rows_total), (Some(PassOutcome::Clean), 120, 120));
    assert_eq!(after.next[0], Step::Type(Command::Verify));
}

/// Workers wait and end as they are told, and what an abort forbids is refused until a resume.
#[test]
fn pause_resume_and_abort() {
    let scene = Scene::rows(600);
    assert_eq!(refused(told(&scene, Desired::Paused)).0, Exit::State);
    // The pass cannot end while this row is held.
    let held = scene.db.hold_last();
    let (session, request) = (on(&scene.db), scene.request());
    let running = thread::spawn(move || block_on(run::run(&session, &request, never().1)));
    until("a process at work", SOON, || (!status(&scene).processes.is_empty()).then_some(()));

    let paused = told(&scene, Desired::Paused).unwrap();
    assert_eq!(paused.rotation.desired, Desired::Paused);
    assert_eq!(paused.next, [Step::Type(Command::Resume)]);
    let seen = status(&scene);
    assert_eq!((seen.throttle.as_deref(), seen.is_at_rest()), (Some("paused by the operator"), false));
    assert_eq!(told(&scene, Desired::Running).unwrap().rotation.desired, Desired::Running);

    assert_eq!(told(&scene, Desired::Aborted).unwrap().rotation.desired, Desired::Aborted);
    assert_eq!(running.join().unwrap().unwrap().goal, Goal::Aborted);
    until("no process at work", SOON, || status(&scene).processes.is_empty().then_some(()));
    assert!(status(&scene).is_at_rest());
    let (exit, hint) = refused(scene.run());
    assert!(exit == Exit::State && hint.contains("`rekey resume`"), "{hint}");
    assert_eq!(refused(told(&scene, Desired::Paused)).0, Exit::State);

    told(&scene, Desired::Running).unwrap();
    held.rollback();
    assert_eq!(scene.run().unwrap().goal, Goal::Reached);
}
