//! Several rekey pods beside a PostgreSQL, all in containers: killed, stopped, frozen, cut off, and their server
//! crashed under them. Locked up as scripts/k8s has them: read-only root, no capabilities, numeric user.
//!
//! Skipped, loudly and counted, where there is no Docker engine; REKEY_REQUIRE_DOCKER=1 makes that a failure.

#[path = "../support/mod.rs"]
mod support;

mod engine;
mod template;

use std::time::Duration;

use engine::{Pod, Server};
use support::load::Load;
use support::{Judge, NEW, OLD, rekey};

const SMALL_STEPS: [&str; 9] =
    ["run", "--chunk-rows", "300", "--batch-rows", "50", "--lease-ttl", "3s", "--workers", "1"];

/// A server with rows and commits slow enough to step in, and pods at work on it.
fn at_work(rows: u64, pods: usize) -> (Server, Judge, Vec<Pod>) {
    let server = Server::start();
    Load::rows(rows).nulls(3).into(&server.db);
    server.db.mark();
    server.db.slow_commits(Duration::from_millis(20));
    let judge = Judge::look(&server.db, &[OLD]);
    let pods = (0..pods).map(|_| server.pod(&SMALL_STEPS, &[])).collect();
    (server, judge, pods)
}

fn all_is_well(server: &Server, judge: &mut Judge) {
    judge.all_on(&server.db, NEW);
    rekey(&server.db, ["verify"]).exits(0);
}

#[test]
fn one_is_killed_one_is_stopped_and_the_third_finishes() {
    if !engine::there_is_one() {
        return;
    }
    let (server, mut judge, pods) = at_work(8000, 3);
    server.db.wait_moved(600);
    pods[0].signal("KILL");
    pods[1].signal("TERM");
    let code = pods[1].code_within(Duration::from_secs(12));
    assert_eq!(code, 75, "{}", pods[1].logs());
    let word = pods[1].last_word();
    assert_eq!((&word["code"], &word["next"]), (&75.into(), &"rekey run".into()), "{word}");
    judge.none_lost(&server.db, &[OLD, NEW]);
    server.db.fast_commits();
    pods[2].ends(0);
    assert_eq!(pods[2].last_word()["code"], 0);
    all_is_well(&server, &mut judge);
}

#[test]
fn one_is_frozen_past_its_lease() {
    if !engine::there_is_one() {
        return;
    }
    let (server, mut judge, pods) = at_work(6000, 2);
    server.db.wait_moved(600);
    pods[0].freeze(true);
    server.db.fast_commits();
    pods[1].ends(0);
    judge.all_on(&server.db, NEW);
    let content = server.db.content();
    pods[0].freeze(false);
    pods[0].ends(0);
    assert_eq!(server.db.content(), content, "thawed, it commits nothing");
    all_is_well(&server, &mut judge);
}

#[test]
fn one_is_cut_off_and_comes_back() {
    if !engine::there_is_one() {
        return;
    }
    let (server, mut judge, pods) = at_work(6000, 2);
    server.db.wait_moved(600);
    pods[0].cut_off(true);
    server.db.fast_commits();
    pods[1].ends(0);
    judge.all_on(&server.db, NEW);
    pods[0].cut_off(false);
    pods[0].ends(0);
    all_is_well(&server, &mut judge);
}

#[test]
fn the_server_crashes_and_recovers_under_two_pods() {
    if !engine::there_is_one() {
        return;
    }
    let (server, mut judge, pods) = at_work(8000, 2);
    server.db.wait_moved(600);
    server.crash();
    judge.none_lost(&server.db, &[OLD, NEW]);
    server.db.fast_commits();
    for pod in &pods {
        pod.ends(0);
    }
    all_is_well(&server, &mut judge);
}

#[test]
fn the_pods_of_the_production_overlay_do_the_job() {
    if !engine::there_is_one() {
        return;
    }
    let Some(template) = template::production() else { return };
    let server = Server::start();
    Load::rows(20_000).mixed().nulls(5).into(&server.db);
    let mut judge = Judge::look(&server.db, &[OLD]);
    let arguments: Vec<&str> = template.arguments.iter().map(String::as_str).collect();
    let environment: Vec<(&str, &str)> = template.environment.iter().map(|(n, v)| (&**n, &**v)).collect();
    let pods: Vec<Pod> = (0..template.parallelism).map(|_| server.pod(&arguments, &environment)).collect();
    for pod in &pods {
        pod.ends(0);
    }
    all_is_well(&server, &mut judge);
    assert_eq!(server.db.value::<i64>("SELECT count(*) FROM rekey.rotations"), 1);
}
