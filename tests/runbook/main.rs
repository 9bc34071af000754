//! RUNBOOK.md, README.md and docs/*.md, followed: their commands are run in order, and what they print and how they end
//! must be what the page shows. One test for each scenario; `scene` sets up what must be true before its first command.
//!
//! `scripts/runbook-capture` runs these tests with RUNBOOK_CAPTURE=1: then the pages are rewritten from what was seen.

#[path = "../cache/server.rs"]
#[allow(dead_code, reason = "another test binary uses the rest")]
mod server;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support_aws/mod.rs"]
mod support_aws;

mod normal;
mod page;
mod promises;
mod release;
mod scene;

use std::collections::BTreeSet;

use page::{Page, Step};
use scene::Scene;

/// Runs a scenario's commands in a scene, and compares, or captures.
fn follow(name: &str, mut scene: Scene) {
    let page = Page::read();
    let mut seen = Vec::new();
    for Step { command, brief, .. } in page.steps(name) {
        let output = scene.run(command);
        seen.push(if *brief { normal::brief(&output) } else { output });
    }
    assert!(!seen.is_empty(), "no page has a scenario {name}");
    if std::env::var_os("RUNBOOK_CAPTURE").is_some() {
        return Page::rewrite(name, &seen);
    }
    for (step, seen) in page.steps(name).zip(&seen) {
        assert_eq!(
            step.output, *seen,
            "`{}` in scenario {name} prints something else than the page says (left): after a look at it, scripts/runbook-capture",
            step.command
        );
    }
}

macro_rules! scenarios {
    ($($test:ident = $name:literal, $scene:expr;)*) => {
        $(#[test] fn $test() { follow($name, $scene); })*

        #[test]
        fn every_scenario_of_the_page_is_followed() {
            let page = Page::read();
            let named: BTreeSet<&str> = page.scenarios().collect();
            assert_eq!(named, BTreeSet::from([$($name),*]));
        }
    };
}

scenarios! {
    the_window = "window", Scene::before_a_rotation();
    a_rehearsal = "rehearsal", Scene::with_two_keys();
    rollback_from_migrating = "rollback-migrating", Scene::cut_short();
    rollback_from_migrated = "rollback-migrated", Scene::with_two_keys().after(&["rekey run"]);
    rollback_from_promoted = "rollback-promoted", Scene::with_two_keys().after(&["rekey run", "rekey promote --yes"]);
    dead_workers = "dead-workers", Scene::cut_short();
    paused = "paused", Scene::cut_short().after(&["rekey pause"]);
    aborted = "aborted", Scene::cut_short().after(&["rekey abort"]);
    deadline = "deadline", Scene::past_its_deadline();
    late_writer = "late-writer", Scene::with_two_keys().after(&["rekey run"]).late_writer();
    quarantine = "quarantine", Scene::with_two_keys().bad_row();
    promoting = "promoting", Scene::with_two_keys().after(&["rekey run"]).left_in("promoting");
    finalizing = "finalizing",
        Scene::with_two_keys().after(&["rekey run", "rekey promote --yes"]).left_in("finalizing");
    unpromoting = "unpromoting",
        Scene::with_two_keys().after(&["rekey run", "rekey promote --yes", "rekey rollback --yes"]).left_in("unpromoting");
    external = "external", Scene::keys_in_the_environment().after(&["rekey run"]);
    which_key = "which-key", Scene::with_two_keys().after(&["rekey run", "rekey promote --yes"]);
    compromised = "compromised", Scene::with_two_keys();
    lost_new_key = "lost-new-key", Scene::new_key_lost();
    both_keys_lost = "both-keys-lost", Scene::both_keys_lost();
    restored = "restored", Scene::restored();
    dotenv_files = "dotenv", Scene::keys_in_dotenv_files();
    a_row_from_a_backup = "repair", Scene::with_two_keys().bad_row().and_its_backup().after_exit(5, "rekey run");
    the_picture = "readme", Scene::with_two_keys();
}
