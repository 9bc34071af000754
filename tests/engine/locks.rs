//! Beside the application's own locks: it is never a deadlock's victim, and a long lock delays a run without ending it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::load::{Load, ids, some_ids};
use crate::support::{Db, Judge, NEW, OLD, block_on, rekey, run_in_small_steps, total, until};
use uuid::Uuid;

/// One transaction of the application: two rows of the same batch, in the order opposite to the key's.
async fn two_rows_backwards(db: &Db, first: Uuid, second: Uuid) -> sqlx::Result<()> {
    let mut transaction = db.pool().begin().await?;
    for id in [first, second] {
        let sql = "UPDATE provider_connections SET alias = 'touched' WHERE id = $1";
        sqlx::query(sql).bind(id).execute(&mut *transaction).await?;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    transaction.commit().await
}

#[test]
fn the_application_is_never_a_deadlocks_victim() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    db.slow_batches(Duration::from_millis(10));
    let mut judge = Judge::look(&db, &[OLD]);
    let ids = ids(&db);
    ids.iter().for_each(|&id| judge.expect_touched(id));
    let stop = AtomicBool::new(false);
    let (transactions, failures) = std::thread::scope(|scope| {
        let application = scope.spawn(|| {
            let (mut done, mut failures) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                // Rows a few places apart lie in one batch, and meet it from behind.
                let at = (done * 37) % (ids.len() - 12);
                if let Err(error) = block_on(two_rows_backwards(&db, ids[at + 11], ids[at])) {
                    failures.push(error.to_string());
                }
                done += 1;
            }
            (done, failures)
        });
        let outcome = rekey(&db, ["run", "--chunk-rows", "600", "--batch-rows", "300"]).run();
        stop.store(true, Ordering::Relaxed);
        outcome.expect(0);
        application.join().expect("the application ends well")
    });
    assert!(failures.is_empty(), "{} of {transactions} failed: {:?}", failures.len(), failures.first());
    judge.all_on(&db, NEW);
}

#[test]
fn rows_locked_for_seconds_are_waited_for_while_all_others_move() {
    let db = Db::new();
    Load::rows(1500).into(&db);
    db.mark();
    let mut judge = Judge::look(&db, &[OLD]);
    let locked = some_ids(&db, 10, 51);
    let mut holder = db.hold();
    holder.execute(
        sqlx::query("SELECT id FROM provider_connections WHERE id = ANY($1) FOR UPDATE").bind(locked),
    );
    let mut run = run_in_small_steps(&db).start();
    until("every other row to be moved", Duration::from_secs(40), || {
        assert!(run.running(), "it must not end while rows are locked on the old key");
        (db.moved() == 1490).then_some(())
    });
    holder.rollback();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 1500);
}

/// The whole table is locked for a while, as DDL does it.
#[test]
fn a_table_lock_is_waited_for() {
    let db = Db::new();
    Load::rows(1500).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let mut judge = Judge::look(&db, &[OLD]);
    let run = run_in_small_steps(&db).start();
    db.wait_moved(300);
    let mut holder = db.hold();
    holder.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
    // Longer than any lock_timeout a batch may have.
    std::thread::sleep(Duration::from_secs(4));
    holder.rollback();
    db.fast_commits();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}
