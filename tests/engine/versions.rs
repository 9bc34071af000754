//! A short life of a rotation on each major version of PostgreSQL, on its real server: made, forecast, killed in the
//! middle, resumed, verified, rolled back.
//!
//! A version that is not to be had is skipped, said aloud and counted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::load::Load;
use crate::support::programs::Programs;
use crate::support::{Cluster, Db, Judge, NEW, OLD, rekey, run_in_small_steps, total};

fn a_life_on(major: u32) {
    static SKIPPED: AtomicU32 = AtomicU32::new(0);
    let Some(programs) = Programs::of(major) else {
        let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
        crate::support::skipped(format_args!(
            "{count} versions so far, no PostgreSQL {major} (./scripts/test installs it)"
        ));
        return;
    };
    let cluster = Cluster::of(&programs.bin, "");
    let db = Db::on(&cluster);
    let version: i32 = db.value("SELECT current_setting('server_version_num')::int");
    assert_eq!(version / 10_000, major as i32);
    Load::rows(3000).nulls(5).mixed().into(&db);
    db.mark();
    let mut judge = Judge::look(&db, &[OLD]);

    rekey(&db, ["init"]).exits(0);
    let plan = rekey(&db, ["plan", "--rehearse", "500"]).json(0);
    assert_eq!(plan["rehearsed_rows"], 500, "{plan:#}");
    rekey(&db, ["run", "--dry-run"]).exits(0);

    db.slow_batches(Duration::from_millis(8));
    let run = run_in_small_steps(&db).start();
    db.wait_moved(500);
    run.kill();
    judge.none_lost(&db, &[OLD, NEW]);
    db.fast_commits();
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
    let rows: i64 = db.value("SELECT count(encrypted_credentials) FROM provider_connections");
    assert_eq!(total(&db, "re_encrypted"), rows);
    let found = rekey(&db, ["verify"]).json(0);
    assert_eq!(found["identical"], rows, "{found:#}");

    rekey(&db, ["rollback", "--yes"]).exits(0);
    judge.all_on(&db, OLD);
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn fifteen() {
    a_life_on(15);
}

#[test]
fn sixteen() {
    a_life_on(16);
}

#[test]
fn seventeen() {
    a_life_on(17);
}

#[test]
fn eighteen() {
    a_life_on(18);
}
