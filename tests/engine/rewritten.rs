//! The heap is rewritten under a run that walks it by blocks: rows land where the run has been already.

use std::time::Duration;

use crate::support::judge::count_on;
use crate::support::load::Load;
use crate::support::{Db, Ids, Judge, NEW, OLD, Rekey, rekey, run_in_small_steps, total};

fn one_worker(db: &Db) -> Rekey {
    run_in_small_steps(db).args(["--workers", "1"])
}

/// Runs, and executes `rewrite` once `after` more rows were moved, as often as `after` says.
fn rewritten(rewrite: &str, after: &[i64]) {
    let db = Db::new();
    Load::rows(6000).ids(Ids::V4).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(15));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut run = one_worker(&db).start();
    for &rows in after {
        db.wait_moved(rows);
        db.execute(rewrite);
        assert!(run.running(), "{}", run.wait());
        judge.none_lost(&db, &[OLD, NEW]);
    }
    db.fast_commits();
    run.wait().expect(0);
    let walks: Vec<String> = db.column("SELECT addressing FROM rekey.passes WHERE kind = 'full'");
    assert!(walks.len() > 1 && walks.iter().all(|by| by == "blocks"), "{walks:?}");
    assert_eq!(count_on(&db, OLD), 0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 6000);
    assert_eq!(total(&db, "already_on_key"), 0);
    let found = rekey(&db, ["verify"]).json(0);
    assert_eq!(found["identical"], 6000, "{found:#}");
}

#[test]
fn by_vacuum_full() {
    rewritten("VACUUM FULL provider_connections", &[1500]);
}

#[test]
fn by_cluster() {
    rewritten("CLUSTER provider_connections USING provider_connections_pkey", &[1500, 3000]);
}

/// Rewritten again while the second walk is under way: that walk has not seen every row, either.
#[test]
fn again_during_the_walk_that_followed() {
    let db = Db::new();
    Load::rows(6000).ids(Ids::V4).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(15));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut run = one_worker(&db).start();
    db.wait_moved(800);
    db.execute("CLUSTER provider_connections USING provider_connections_pkey");
    crate::support::until("the second walk", crate::support::SOON, || {
        assert!(run.running(), "it ended before there was a second walk");
        (db.value::<i64>("SELECT count(*) FROM rekey.passes") == 2).then_some(())
    });
    // The order of another column: whatever the second walk has still before it is scattered anew.
    let left: i64 = db.value(
        "SELECT 6000 - count(*) FROM judge.mark m JOIN provider_connections p USING (id)
        WHERE m.iv <> substr(p.encrypted_credentials, 1, 12)",
    );
    db.execute("CREATE INDEX scatter ON provider_connections (md5(id::text)); CLUSTER provider_connections USING scatter");
    db.fast_commits();
    run.wait().expect(0);
    assert_eq!(count_on(&db, OLD), 0, "{left} rows were left when the second walk began");
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}
