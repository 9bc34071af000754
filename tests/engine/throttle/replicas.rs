//! Standbys: one that lags, one that is gone, one whose queries hold back the horizon.

use std::time::Duration;

use super::{gentle, held_up, throttled};
use crate::replica::{Pair, pair};
use crate::support::cluster::free_port;
use crate::support::http::get;
use crate::support::{Judge, NEW, OLD, SOON, Stop, rekey, until};
use rustix::process::Signal;

fn marked(rows: u64) -> (Pair, Judge) {
    let pair = pair(rows);
    pair.primary.mark();
    let judge = Judge::look(&pair.primary, &[OLD]);
    (pair, judge)
}

#[test]
fn a_replica_that_lags_by_bytes_is_waited_for() {
    let (pair, mut judge) = marked(4000);
    pair.standby.execute("SELECT pg_wal_replay_pause()");
    let port = free_port();
    let mut run = gentle(&pair.primary)
        .args(["--max-replica-lag", "off", "--max-replica-lag-bytes", "1MB"])
        .args(["--metrics-listen", &format!("127.0.0.1:{port}")])
        .start();
    held_up(&pair.primary, &mut run, "replication lag");
    let metrics = get(port, "/metrics").expect("it answers");
    let behind = metrics
        .lines()
        .find_map(|line| line.strip_prefix("rekey_replication_lag_bytes{replica=")?.split_once("} "));
    let (_, behind) = behind.unwrap_or_else(|| panic!("no lag in\n{metrics}"));
    assert!(behind.parse::<f64>().expect("a number") > 1e6, "{metrics}");
    pair.standby.execute("SELECT pg_wal_replay_resume()");
    run.wait().expect(0);
    judge.all_on(&pair.primary, NEW);
}

#[test]
fn a_replica_that_lags_by_time_is_waited_for() {
    let (pair, mut judge) = marked(5000);
    pair.standby.execute("SELECT pg_wal_replay_pause()");
    let mut run =
        gentle(&pair.primary).args(["--max-replica-lag", "2s", "--max-replica-lag-bytes", "off"]).start();
    held_up(&pair.primary, &mut run, "replication lag");
    pair.standby.execute("SELECT pg_wal_replay_resume()");
    run.wait().expect(0);
    judge.all_on(&pair.primary, NEW);
}

#[test]
fn a_replica_that_vanishes_is_not_one_without_lag() {
    let (pair, mut judge) = marked(8000);
    let mut run = gentle(&pair.primary).start();
    pair.primary.wait_moved(200);
    pair.servers.1.stop(Stop::Fast);
    held_up(&pair.primary, &mut run, "replica vanished");
    pair.servers.1.boot();
    run.wait().expect(0);
    judge.all_on(&pair.primary, NEW);
}

/// Gone for good: whoever runs again begins with those that are there.
#[test]
fn a_replica_that_is_gone_for_good_is_forgotten_by_the_next_run() {
    let (pair, mut judge) = marked(3000);
    let mut run = gentle(&pair.primary).start();
    pair.primary.wait_moved(200);
    pair.servers.1.stop(Stop::Fast);
    held_up(&pair.primary, &mut run, "replica vanished");
    run.signal(Signal::TERM);
    run.wait_for(Duration::from_secs(10)).expect(75);
    rekey(&pair.primary, ["run"]).exits(0);
    judge.all_on(&pair.primary, NEW);
}

#[test]
fn a_query_on_a_standby_that_holds_back_the_slots_xmin() {
    let (pair, mut judge) = marked(4000);
    let (primary, standby) = (&pair.primary, &pair.standby);
    primary.execute("SELECT pg_create_physical_replication_slot('standby')");
    standby.execute("ALTER SYSTEM SET primary_slot_name = 'standby'");
    standby.execute("ALTER SYSTEM SET hot_standby_feedback = on");
    standby.execute("ALTER SYSTEM SET wal_receiver_status_interval = '1s'");
    standby.execute("SELECT pg_reload_conf()");
    let mut query = standby.hold();
    query.execute(sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"));
    query.execute(sqlx::query("SELECT count(*) FROM provider_connections"));
    let xmin = "SELECT count(*) FROM pg_replication_slots WHERE xmin IS NOT NULL";
    until("the slot to hold an xmin", SOON, || (primary.value::<i64>(xmin) == 1).then_some(()));

    let mut run = gentle(primary).args(["--max-slot-xmin-age", "20"]).start();
    held_up(primary, &mut run, "slot holds back xmin");
    query.rollback();
    run.wait().expect(0);
    judge.all_on(primary, NEW);
}

/// With half the limit, it only goes slower.
#[test]
fn it_slows_before_it_waits() {
    let (pair, mut judge) = marked(2500);
    pair.standby.execute("SELECT pg_wal_replay_pause()");
    let lag = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::int8 FROM pg_stat_replication";
    until("a lag of 8 MB", SOON, || {
        pair.primary.execute("SELECT pg_logical_emit_message(false, 'lag', repeat('x', 500000))");
        (pair.primary.value::<i64>(lag) > 8 << 20).then_some(())
    });
    let mut run = gentle(&pair.primary).args(["--max-replica-lag", "off"]);
    run = run.args(["--max-replica-lag-bytes", "15MB"]);
    let mut run = run.start();
    assert!(throttled(&pair.primary, &mut run, "replication lag").ends_with("; slowed down"));
    pair.primary.wait_moved(1);
    pair.standby.execute("SELECT pg_wal_replay_resume()");
    run.wait().expect(0);
    judge.all_on(&pair.primary, NEW);
}
