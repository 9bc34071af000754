//! The way back: from half-way, from the end, killed midway and resumed; with rows written under the new key since.

use std::time::Duration;

use crate::support::load::{Load, insert, some_ids, store};
use crate::support::{Db, Judge, NEW, OLD, Rekey, SOON, rekey, run_in_small_steps, state, until};
use uuid::Uuid;

fn rollback(db: &Db) -> Rekey {
    rekey(db, ["rollback", "--yes", "--chunk-rows", "400", "--batch-rows", "50", "--lease-ttl", "3s"])
}

#[test]
fn from_half_way_and_then_a_fresh_rotation() {
    let db = Db::new();
    Load::rows(3000).nulls(5).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(10));
    let mut judge = Judge::look(&db, &[OLD]);
    let run = run_in_small_steps(&db).start();
    db.wait_moved(1200);
    run.kill();
    rollback(&db).exits(0);
    judge.all_on(&db, OLD);
    assert_eq!(state(&db), "rolled_back");
    rekey(&db, ["verify"]).exits(0);
    db.fast_commits();
    // Rolled back again: nothing to do, and no error.
    rollback(&db).exits(0);
    judge.all_on(&db, OLD);
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.rotations"), 2);
    assert_eq!(state(&db), "migrated");
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn from_the_end_with_rows_written_under_the_new_key_since_killed_and_resumed() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
    for (n, id) in some_ids(&db, 40, 31).into_iter().enumerate() {
        let text = format!(r#"{{"access_token":"written under the new key {n}"}}"#);
        store(&db, id, NEW, text.as_bytes());
        judge.expect(id, text.as_bytes());
    }
    for _ in 0..10 {
        let id = Uuid::now_v7();
        insert(&db, id, NEW, b"{\"api_key\":\"new since\"}");
        judge.expect(id, b"{\"api_key\":\"new since\"}");
    }
    db.mark();
    db.slow_batches(Duration::from_millis(30));
    for kill in 1..=3 {
        let mut back = rollback(&db).start();
        let target = (600 * kill).max(db.moved() + 1);
        until("rows to come back", SOON, || (db.moved() >= target || !back.running()).then_some(()));
        assert!(back.running(), "it should still be at work:\n{}", back.wait());
        // A run beside it is refused, whether the rollback is alive or was killed.
        if kill == 2 {
            let outcome = run_in_small_steps(&db).run();
            assert!(matches!(outcome.code(), Some(7 | 8)), "{outcome}");
        }
        back.kill();
        judge.none_lost(&db, &[OLD, NEW]);
        assert_eq!(state(&db), "rolling_back");
    }
    let outcome = run_in_small_steps(&db).run();
    assert!(matches!(outcome.code(), Some(7 | 8)), "{outcome}");
    db.fast_commits();
    rollback(&db).exits(0);
    judge.all_on(&db, OLD);
    assert_eq!(state(&db), "rolled_back");
    rekey(&db, ["verify"]).exits(0);
}

/// The turn while workers are busy: their batches in flight are waited for or fenced, and none lands afterwards.
#[test]
fn turned_round_while_runs_are_at_work() {
    let db = Db::new();
    Load::rows(12000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(100));
    let mut judge = Judge::look(&db, &[OLD]);
    let runs = [run_in_small_steps(&db).start(), run_in_small_steps(&db).start()];
    db.wait_moved(800);
    // For the way back alone.
    db.fast_commits();
    rollback(&db).exits(0);
    for run in runs {
        let outcome = run.wait();
        assert!(matches!(outcome.code(), Some(7..=9)), "{outcome}");
    }
    judge.all_on(&db, OLD);
    rekey(&db, ["verify"]).exits(0);
}

/// A batch that the turn waits for puts rows off: the chunk that they get, which nobody knew of, is fenced as well.
#[test]
fn a_chunk_that_appears_while_the_turn_waits_is_fenced_too() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["init"]).exits(0);
    // Putting rows off takes until we say so.
    db.execute(
        "CREATE TABLE go_on (); CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN LOOP EXIT WHEN EXISTS (SELECT FROM public.go_on); PERFORM pg_sleep(0.01); END LOOP; RETURN NEW; END $$;
         CREATE TRIGGER slowly BEFORE INSERT ON rekey.chunks FOR EACH ROW WHEN (NEW.owner = 'put off')
             EXECUTE FUNCTION slowly()",
    );
    let mut holder = db.hold();
    let held = some_ids(&db, 1, 4)[0];
    holder.execute(sqlx::query("SELECT FROM provider_connections WHERE id = $1 FOR UPDATE").bind(held));
    let run = rekey(&db, ["run", "--chunk-rows", "400", "--batch-rows", "50", "--workers", "1"]).start();
    let is = |condition: &str| {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND {condition})"
        );
        db.value::<bool>(&sql).then_some(())
    };
    until("the row to be put off", SOON, || is("wait_event = 'PgSleep'"));
    let back = rollback(&db).start();
    until("the turn to wait", SOON, || {
        is("wait_event_type = 'Lock' AND query LIKE 'UPDATE rekey.chunks SET epoch%'")
    });
    db.execute("INSERT INTO go_on DEFAULT VALUES");
    holder.rollback();
    back.wait().expect(0);
    let outcome = run.wait();
    assert!(matches!(outcome.code(), Some(7..=9)), "{outcome}");
    judge.all_on(&db, OLD);
    let states: Vec<String> = db.column(
        "SELECT c.state FROM rekey.chunks c JOIN rekey.passes p USING (rotation, pass)
         WHERE p.direction = 'forward' AND c.kind = 'ids'",
    );
    assert_eq!(states, ["cancelled"]);
}

/// A process frozen before the turn and thawed long after it commits nothing.
#[test]
fn a_frozen_run_thawed_after_the_rollback() {
    let db = Db::new();
    Load::rows(8000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let mut judge = Judge::look(&db, &[OLD]);
    let frozen = run_in_small_steps(&db).start();
    db.wait_moved(500);
    frozen.signal(rustix::process::Signal::STOP);
    rollback(&db).exits(0);
    judge.all_on(&db, OLD);
    let content = db.content();
    frozen.signal(rustix::process::Signal::CONT);
    let outcome = frozen.wait();
    assert!(matches!(outcome.code(), Some(7..=9 | 69)), "{outcome}");
    assert_eq!(db.content(), content);
}

/// A run that was about to begin when the rotation was turned may have left a pass of its own behind it: a sweep of the
/// way back is numbered after that.
#[test]
fn late_writers_after_a_pass_of_the_other_direction() {
    let db = Db::new();
    Load::rows(6000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let back = rollback(&db).start();
    db.wait_moved(1000);
    db.execute(
        "INSERT INTO rekey.passes (rotation, pass, direction, kind, addressing, horizon, filenode, carved, chunk_rows, outcome) \
         SELECT rotation, (SELECT max(pass) + 1 FROM rekey.passes), 'forward', 'sweep', addressing, horizon, filenode, true, \
         chunk_rows, 'cancelled' FROM rekey.passes ORDER BY pass LIMIT 1",
    );
    let returned = db.value(
        "SELECT p.id FROM provider_connections p JOIN judge.mark m USING (id) \
        WHERE substr(p.encrypted_credentials, 1, 12) <> m.iv LIMIT 1",
    );
    store(&db, returned, NEW, b"saved under the new key behind it");
    judge.expect(returned, b"saved under the new key behind it");
    back.wait().expect(0);
    judge.all_on(&db, OLD);
    rekey(&db, ["verify"]).exits(0);
}

/// Sweeping up after a rollback and beginning anew must not go both ways at once: whoever begins is right.
#[test]
fn a_new_rotation_ends_the_sweep_of_the_one_before() {
    let db = Db::new();
    Load::rows(2000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    rollback(&db).exits(0);
    for id in some_ids(&db, 1200, 3) {
        let plaintext = format!("saved under the new key: {id}");
        store(&db, id, NEW, plaintext.as_bytes());
        judge.expect(id, plaintext.as_bytes());
    }
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let sweep =
        rekey(&db, ["rollback", "--yes", "--batch-rows", "10", "--workers", "1", "--lease-ttl", "3s"])
            .start();
    db.wait_moved(50);
    rekey(&db, ["run"]).exits(0);
    sweep.wait().expect(8);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn without_a_rotation_there_is_nothing_to_roll_back() {
    let db = Db::new();
    Load::rows(50).into(&db);
    let content = db.content();
    rollback(&db).exits(7);
    assert_eq!(db.content(), content);
}

#[test]
fn it_asks_or_needs_yes() {
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["run"]).exits(0);
    let content = db.content();
    rekey(&db, ["rollback"]).exits(2);
    assert_eq!(db.content(), content);
}

/// Aborted on its way back: another rollback is a way on, as `status` says.
#[test]
fn an_aborted_rollback_goes_on() {
    let db = Db::new();
    Load::rows(2000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let back = rekey(&db, ["rollback", "--yes", "--chunk-rows", "100", "--batch-rows", "10"]).start();
    db.wait_moved(50);
    rekey(&db, ["abort"]).exits(0);
    back.wait().expect(9);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    judge.all_on(&db, OLD);
}
