//! Beside the application's own locks: it is never a deadlock's victim, and a long lock delays a run without ending it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::load::{Load, some_ids};
use crate::support::{
    Db, Hold, Judge, NEW, OLD, Random, SOON, block_on, rekey, run_in_small_steps, total, until,
};
use uuid::Uuid;

/// One transaction of the application: two rows of the same batch, in the order opposite to the batch's.
async fn two_rows_backwards(db: &Db, first: Uuid, second: Uuid) -> sqlx::Result<()> {
    let mut transaction = db.pool().begin().await?;
    for id in [first, second] {
        let sql = "UPDATE provider_connections SET alias = 'touched' WHERE id = $1";
        sqlx::query(sql).bind(id).execute(&mut *transaction).await?;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    transaction.commit().await
}

/// How often either side was seen waiting for the other.
#[derive(Debug, Default)]
struct Seen {
    application_for_us: i64,
    us_for_application: i64,
}

impl Seen {
    fn look(&mut self, db: &Db) {
        let waiting = |whose: &str| {
            format!(
                "SELECT count(*) FROM pg_stat_activity w JOIN pg_stat_activity h ON h.pid = ANY (pg_blocking_pids(w.pid))
                 WHERE w.wait_event_type = 'Lock' AND w.datname = current_database() AND {whose}"
            )
        };
        let theirs = "w.application_name = 'judge' AND h.application_name <> 'judge'";
        let ours = "w.application_name <> 'judge' AND h.application_name = 'judge'";
        self.application_for_us += db.value::<i64>(&waiting(theirs));
        self.us_for_application += db.value::<i64>(&waiting(ours));
    }
}

/// Three threads of an application lock pairs of rows just where the run has got to, each pair backwards.
#[test]
fn the_application_is_never_a_deadlocks_victim() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    // Longer than a machine that is held up keeps our own limits waiting.
    db.execute(&format!("ALTER DATABASE {} SET deadlock_timeout = '3s'", db.name));
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let mut judge = Judge::look(&db, &[OLD]);
    // By place: the order of a batch that takes several rows of a page.
    let rows: Vec<Uuid> = db.column("SELECT id FROM provider_connections ORDER BY ctid");
    rows.iter().for_each(|&id| judge.expect_touched(id));
    let stop = AtomicBool::new(false);
    let mut seen = Seen::default();
    // A batch is a chunk: all of its rows in one wave.
    let steps = ["--workers", "1", "--chunk-rows", "300", "--batch-rows", "300", "--lock-target", "5s"];
    let (transactions, failures) = std::thread::scope(|scope| {
        let applications: Vec<_> = (0..3)
            .map(|seed| {
                let (db, rows, stop) = (db_of_its_own(&db), &rows, &stop);
                scope.spawn(move || {
                    let (mut random, mut done, mut failures) = (Random::new(seed), 0, Vec::new());
                    while !stop.load(Ordering::Relaxed) {
                        let first = (db.moved() as u64 + random.below(200)).min(rows.len() as u64 - 100);
                        let [first, second] =
                            [first, first + 10 + random.below(80)].map(|at| rows[at as usize]);
                        if let Err(error) = block_on(two_rows_backwards(&db, second, first)) {
                            failures.push(error.to_string());
                        }
                        done += 1;
                    }
                    (done, failures)
                })
            })
            .collect();
        let mut run = rekey(&db, ["run"]).args(steps).start();
        while run.running() {
            seen.look(&db);
        }
        stop.store(true, Ordering::Relaxed);
        run.wait().expect(0);
        let ended = applications.into_iter().map(|thread| thread.join().expect("the application ends well"));
        ended.fold((0, Vec::new()), |(n, all), (done, failures)| (n + done, [all, failures].concat()))
    });
    assert!(failures.is_empty(), "{} of {transactions} failed: {:?}", failures.len(), failures.first());
    assert!(seen.application_for_us > 0 && seen.us_for_application > 0, "they never met: {seen:?}");
    judge.all_on(&db, NEW);
}

/// With connections of its own, made from now on.
fn db_of_its_own(db: &Db) -> Db {
    Db::at(&db.name, db.url.clone())
}

/// What a deadlock is looked for after: long enough to arrange one.
const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(6);

/// One batch meets row after row that somebody holds, each for less than a lock is waited for, and last of all a row of
/// a transaction that has been waiting for one of the batch's own since the first: when that looks for a deadlock there
/// must be none.
fn many_waits_in_one_batch(command: &[&str]) -> (Db, Judge) {
    let db = Db::new();
    Load::rows(100).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    db.execute(&format!(
        "ALTER DATABASE {} SET deadlock_timeout = {}",
        db.name,
        DEADLOCK_TIMEOUT.as_millis()
    ));
    // Sessions of before have the old limit.
    let (holders, application) = (db_of_its_own(&db), db_of_its_own(&db));
    let rows: Vec<Uuid> = db.column("SELECT id FROM provider_connections ORDER BY ctid");
    let (taken, wanted_last) = (rows[10], rows[90]);
    let mut held: Vec<Hold> = [20, 30, 40, 50]
        .into_iter()
        .map(|at| {
            let mut holder = holders.hold();
            let lock = "SELECT id FROM provider_connections WHERE id = $1 FOR UPDATE";
            holder.execute(sqlx::query(lock).bind(rows[at]));
            holder
        })
        .collect();
    let touch = "UPDATE provider_connections SET alias = 'touched' WHERE id = $1";
    let mut victim = application.hold();
    victim.execute(sqlx::query(touch).bind(wanted_last));
    [wanted_last, taken].into_iter().for_each(|id| judge.expect_touched(id));
    let pid = victim.pid();
    let run = rekey(&db, []).more(command).start();
    let first = held[0].pid();
    until("the batch to wait for the first row", SOON, || db.is_waited_for(first).then_some(()));
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || victim.try_execute(sqlx::query(touch).bind(taken)).map(|()| victim));
        until("the application to wait for the batch", SOON, || db.is_waiting(pid).then_some(()));
        let since = Instant::now();
        // Each wait is shorter than the three tenths that rekey waits for one lock; together, and with the one for the
        // application's row, they last until the application looks.
        for (holder, share) in held.drain(..).zip([0.22, 0.44, 0.66, 0.85]) {
            let end = since + DEADLOCK_TIMEOUT.mul_f64(share);
            while Instant::now() < end && !waits.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            holder.rollback();
        }
        let victim = waits.join().expect("no panic");
        victim.unwrap_or_else(|error| panic!("the application's transaction failed: {error}")).commit();
    });
    run.wait().expect(0);
    assert_eq!(deadlocks(&db), 0);
    (db, judge)
}

fn deadlocks(db: &Db) -> i64 {
    db.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
}

#[test]
fn many_waits_in_one_batch_of_a_run() {
    let (db, mut judge) = many_waits_in_one_batch(&["run", "--workers", "1"]);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 100);
}

/// A rehearsal is rolled back, and takes the same locks until then.
#[test]
fn many_waits_in_one_batch_of_a_rehearsal() {
    let (db, mut judge) = many_waits_in_one_batch(&["plan", "--rehearse", "100"]);
    judge.all_on(&db, OLD);
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
    let pid = holder.pid();
    until("a batch to wait for it", SOON, || db.is_waited_for(pid).then_some(()));
    // Longer than any lock_timeout a batch may have.
    std::thread::sleep(Duration::from_secs(4));
    holder.rollback();
    db.fast_commits();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}

/// For longer than a database that is away is waited for: what is locked is let go of some day, and the run goes on.
#[test]
fn a_table_lock_that_outlasts_the_patience() {
    let db = Db::new();
    Load::rows(6000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut run =
        rekey(&db, ["run", "--chunk-rows", "400", "--batch-rows", "50", "--retry-for", "3s"]).start();
    db.wait_moved(300);
    let mut holder = db.hold();
    holder.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
    let pid = holder.pid();
    until("a batch to wait for it", SOON, || db.is_waited_for(pid).then_some(()));
    std::thread::sleep(Duration::from_secs(8));
    assert!(run.running(), "{}", run.wait());
    holder.rollback();
    db.fast_commits();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 6000);
}
