//! A good guest: each signal is provoked on a real server, shows its reason in `status`, holds the run up, and lets it
//! go on once it has passed. Runs are slowed with `--max-rate`, so that there is a midst for things to happen in.

mod hours;
mod locks;
mod replicas;
mod sight;
mod wal;

use crate::support::{Db, Rekey, Running, SOON, run_in_small_steps, status, until};

/// A run that takes a few seconds for a few thousand rows.
fn gentle(db: &Db) -> Rekey {
    run_in_small_steps(db).args(["--max-rate", "500"])
}

/// Waits until `status` names this reason, and returns all that it says.
#[track_caller]
fn throttled(db: &Db, run: &mut Running, reason: &str) -> String {
    until(&format!("status to say {reason}"), SOON, || {
        assert!(run.running(), "it ended before it was throttled: {reason}");
        says(db).filter(|said| said.starts_with(&format!("{reason}: ")))
    })
}

/// Waits until it is held up for this reason, with its leases given back, and makes sure that rows are left.
#[track_caller]
fn held_up(db: &Db, run: &mut Running, reason: &str) {
    until(&format!("it to wait: {reason}"), SOON, || {
        throttled(db, run, reason).ends_with("; waiting").then_some(())
    });
    let leased = "SELECT count(*) FROM rekey.chunks WHERE state = 'open' AND owner IS NOT NULL";
    until("the leases to be given back", SOON, || (db.value::<i64>(leased) == 0).then_some(()));
    let left = "SELECT count(*) FROM provider_connections p JOIN judge.mark m USING (id) \
                WHERE substr(p.encrypted_credentials, 1, 12) = m.iv";
    assert!(db.value::<i64>(left) > 0, "nothing is left to wait with");
}

/// Why any process is slow or waits.
fn says(db: &Db) -> Option<String> {
    status(db)["throttle"].as_str().map(str::to_owned)
}
