//! Several rekey pods beside a PostgreSQL, all in containers: killed, stopped, frozen, cut off, and their server
//! crashed under them. Locked up as scripts/k8s has them: read-only root, no capabilities, numeric user.
//!
//! Skipped, loudly and counted, where there is no Docker engine; REKEY_REQUIRE_DOCKER=1 makes that a failure.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod engine;
mod rehearsal;

use std::time::Duration;

use engine::{Pod, Server};
use support::load::Load;
use support::{Judge, NEW, OLD, rekey};

const SMALL_STEPS: [&str; 9] =
    ["run", "--chunk-rows", "300", "--batch-rows", "50", "--lease-ttl", "3s", "--workers", "1"];

/// A server with rows and batches slow enough to step in, and pods at work on it.
fn at_work(rows: u64, pods: usize) -> (Server, Judge, Vec<Pod>) {
    let server = Server::start();
    Load::rows(rows).nulls(3).into(&server.db);
    server.db.mark();
    // Just below --lock-target, or batches would shrink to nothing.
    server.db.slow_batches(Duration::from_millis(40));
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
    let (server, mut judge, pods) = at_work(20_000, 3);
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
    let (server, mut judge, mut pods) = at_work(20_000, 1);
    server.db.wait_moved(600);
    pods[0].freeze_in_transaction(&server.db);
    server.db.fast_commits();
    pods.push(server.pod(&SMALL_STEPS, &[]));
    pods[1].ends(0);
    judge.all_on(&server.db, NEW);
    let content = server.db.content();
    pods[0].thaw();
    pods[0].ends(0);
    assert_eq!(server.db.content(), content, "thawed, it commits nothing");
    all_is_well(&server, &mut judge);
}

/// Its transaction is open on the server, with rows locked, when nothing of it is heard any more.
#[test]
fn one_is_cut_off_with_its_transaction_open_and_comes_back() {
    if !engine::there_is_one() {
        return;
    }
    let (server, mut judge, mut pods) = at_work(20_000, 1);
    server.db.wait_moved(600);
    pods[0].freeze_in_transaction(&server.db);
    pods[0].cut_off(true);
    pods[0].thaw();
    server.db.fast_commits();
    pods.push(server.pod(&SMALL_STEPS, &[]));
    // Its rows too: the server ends that transaction before the lease is over.
    pods[1].ends(0);
    judge.all_on(&server.db, NEW);
    let content = server.db.content();
    pods[0].cut_off(false);
    pods[0].ends(0);
    assert_eq!(server.db.content(), content, "healed, it commits nothing");
    all_is_well(&server, &mut judge);
}

/// Nobody is left to do its work: it must find its own way back.
#[test]
fn the_only_one_is_cut_off_and_healed() {
    if !engine::there_is_one() {
        return;
    }
    let (server, mut judge, pods) = at_work(6000, 1);
    server.db.wait_moved(600);
    pods[0].cut_off(true);
    // Past its lease of 3 s: that is the point.
    std::thread::sleep(Duration::from_secs(5));
    judge.none_lost(&server.db, &[OLD, NEW]);
    assert!(pods[0].running(), "{}", pods[0].logs());
    pods[0].cut_off(false);
    server.db.fast_commits();
    pods[0].ends(0);
    all_is_well(&server, &mut judge);
}

/// It holds connections and answers nothing, for longer than any lease, and then goes on as if nothing had been.
#[test]
fn the_server_is_frozen_and_thawed() {
    if !engine::there_is_one() {
        return;
    }
    let (server, mut judge, pods) = at_work(6000, 2);
    server.db.wait_moved(600);
    server.freeze(true);
    std::thread::sleep(Duration::from_secs(8));
    server.freeze(false);
    judge.none_lost(&server.db, &[OLD, NEW]);
    server.db.fast_commits();
    for pod in &pods {
        pod.ends(0);
    }
    all_is_well(&server, &mut judge);
}

/// Longer than anybody waits: the Job's controller would count a 69 and start another pod.
#[test]
fn the_server_stays_frozen_and_the_next_pod_finishes() {
    if !engine::there_is_one() {
        return;
    }
    let (server, mut judge, pods) = at_work(6000, 0);
    let patience = [&SMALL_STEPS[..], &["--retry-for", "3s"]].concat();
    let first = server.pod(&patience, &[]);
    server.db.wait_moved(600);
    server.freeze(true);
    first.ends(69);
    assert_eq!(first.last_word()["code"], 69);
    server.freeze(false);
    judge.none_lost(&server.db, &[OLD, NEW]);
    server.db.fast_commits();
    server.pod(&SMALL_STEPS, &[]).ends(0);
    drop(pods);
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
