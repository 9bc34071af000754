//! Sessions that wait for our locks, and how long and how large a batch is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{gentle, throttled};
use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, rekey};

#[test]
fn sessions_that_wait_for_our_locks_slow_the_run() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    db.slow_batches(Duration::from_millis(100));
    let mut judge = Judge::look(&db, &[OLD]);
    let mut run = gentle(&db).args(["--max-blocked-sessions", "0"]).start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // It conflicts with every batch, and is held by nobody for long.
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut session = db.hold();
                    session.execute(sqlx::query("LOCK TABLE provider_connections IN SHARE MODE"));
                    session.rollback();
                }
            });
        }
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            throttled(&db, &mut run, "sessions blocked by rekey")
        }));
        stop.store(true, Ordering::Relaxed);
        let said = told.expect("it is told");
        assert!(said.ends_with("; slowed down"), "{said}");
    });
    db.fast_commits();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}

/// Batches in the order in which they were committed: rows, and bytes of ciphertext.
fn batches(db: &Db) -> Vec<(i64, i64)> {
    let size = "SELECT count(*) FROM unnest(p.ids) u(id) JOIN provider_connections c USING (id)";
    let bytes = size.replace("count(*)", "sum(octet_length(c.encrypted_credentials))::int8");
    let rows = db.column(&format!("SELECT ({size}) FROM rekey.proofs p ORDER BY p.id"));
    rows.into_iter().zip(db.column(&format!("SELECT ({bytes}) FROM rekey.proofs p ORDER BY p.id"))).collect()
}

/// Ten milliseconds a row, in the server: twenty of them are the target.
#[test]
fn batches_shrink_until_their_locks_are_held_for_the_target() {
    let db = Db::new();
    Load::rows(600).into(&db);
    // Batches are cut off at a part of it.
    db.execute(&format!("ALTER DATABASE {} SET deadlock_timeout = '20s'", db.name));
    db.execute(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
         CREATE TRIGGER dawdle BEFORE UPDATE ON provider_connections FOR EACH ROW EXECUTE FUNCTION dawdle()",
    );
    let run = [
        "run",
        "--allow",
        "user-triggers",
        "--workers",
        "1",
        "--batch-rows",
        "100",
        "--lock-target",
        "200ms",
    ];
    rekey(&db, run).exits(0);
    let sizes = batches(&db);
    assert!(sizes[0].0 > 60, "it begins with what it is allowed: {sizes:?}");
    let later = &sizes[sizes.len() / 2..];
    // A machine that holds a few up makes the next ones differ.
    let small = later.iter().filter(|(rows, _)| *rows <= 30).count();
    assert!(small * 5 >= later.len() * 4, "{sizes:?}");
    assert!(sizes.len() < 280, "nor is one row enough: {sizes:?}");
}

#[test]
fn batches_stay_within_their_bytes() {
    let db = Db::new();
    Load::rows(40).bytes(1_000_000).into(&db);
    Load::rows(4000).bytes(3000).seed(2).into(&db);
    rekey(&db, ["run", "--batch-rows", "5000", "--lock-target", "60s"]).exits(0);
    let sizes = batches(&db);
    assert!(sizes.iter().all(|(_, bytes)| *bytes <= 1 << 20), "{sizes:?}");
    assert!(
        sizes.iter().filter(|(rows, bytes)| *rows > 1 && *bytes > 3 << 18).count() > 5,
        "they are used: {sizes:?}"
    );
}
