//! Orders reach a process whatever statement is under way, and the statement ends at the server as well.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, Rekey, Running, SOON, rekey, state, status, until};

/// Within ten seconds; the rest is what a busy machine adds.
const LIMIT: Duration = Duration::from_secs(15);

fn run(db: &Db) -> Rekey {
    rekey(db, ["run", "--workers", "2", "--batch-rows", "50", "--lease-ttl", "4s"])
}

/// Server processes that carry out the closing proof.
fn proofs(db: &Db) -> i64 {
    db.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    )
}

/// A run in the midst of a closing proof that takes minutes: the ledger's proofs are read through a view that sleeps.
fn in_the_proof(db: &Db) -> Running {
    in_the_proof_with(db, &[])
}

fn in_the_proof_with(db: &Db, more: &[&str]) -> Running {
    Load::rows(300).into(db);
    let holder = db.hold_last();
    let run = run(db).more(more).start();
    until("all other rows to be moved", SOON, || {
        let put_off = "SELECT EXISTS (SELECT FROM rekey.chunks WHERE owner = 'put off')";
        db.try_value::<bool>(put_off).is_ok_and(|it_is| it_is).then_some(())
    });
    slow_proofs(db);
    holder.rollback();
    until("the closing proof", SOON, || (proofs(db) > 0).then_some(()));
    run
}

fn slow_proofs(db: &Db) {
    db.execute(
        "ALTER TABLE rekey.proofs RENAME TO proofs_kept;
         CREATE VIEW rekey.proofs AS SELECT rotation, direction, chunk, seq, xid, lo, hi, ids, tags, id, xmin
             FROM rekey.proofs_kept WHERE pg_sleep(60) IS NOT NULL",
    );
}

fn fast_proofs(db: &Db) {
    db.execute("DROP VIEW rekey.proofs; ALTER TABLE rekey.proofs_kept RENAME TO proofs");
}

fn none_is_left(db: &Db) {
    until("the statement to end at the server", LIMIT, || (proofs(db) == 0).then_some(()));
}

#[test]
fn a_closing_proof_is_given_up_for_an_abort_a_signal_a_deadline_and_a_rollback() {
    type Order<'a> = &'a dyn Fn(&Db, &Running);
    let orders: [(&str, Order<'_>, i32); 4] = [
        ("abort", &|db, _| drop(rekey(db, ["abort"]).exits(0)), 9),
        ("SIGTERM", &|_, run| run.signal(Signal::TERM), 75),
        (
            "deadline",
            &|db, _| {
                db.execute("UPDATE rekey.rotations SET deadline = clock_timestamp() + interval '1 second'")
            },
            9,
        ),
        (
            "rollback",
            &|db, _| {
                // As `rollback` does it, and no more: what it does next would read the view that sleeps.
                db.execute("UPDATE rekey.rotations SET state = 'rolling_back'");
            },
            8,
        ),
    ];
    for (name, order, code) in orders {
        let db = Db::new();
        let run = in_the_proof(&db);
        order(&db, &run);
        let outcome = run.wait_for(LIMIT).expect(code);
        assert!(outcome.took < Duration::from_secs(60), "{name}: {outcome}");
        none_is_left(&db);
    }
}

#[test]
fn a_closing_proof_is_given_up_for_a_pause_and_done_again_after_it() {
    let db = Db::new();
    let run = in_the_proof(&db);
    let mut judge = Judge::look(&db, &[OLD, NEW]);
    rekey(&db, ["pause"]).exits(0);
    none_is_left(&db);
    fast_proofs(&db);
    rekey(&db, ["resume"]).exits(0);
    run.wait().expect(0);
    assert_eq!(state(&db), "migrated");
    judge.all_on(&db, NEW);
}

/// The hours of the window end in the midst of it.
#[test]
fn a_closing_proof_is_given_up_for_a_window_that_closes() {
    let db = Db::new();
    // A window ends with a minute: there is time for all that comes before.
    until("time before the minute is over", SOON, || {
        db.value::<bool>("SELECT extract(second FROM clock_timestamp()) < 20").then_some(())
    });
    let minute = |minutes: i32| -> String {
        let time = format!("(clock_timestamp() AT TIME ZONE 'UTC') + interval '{minutes} minutes'");
        db.value(&format!("SELECT to_char({time}, 'HH24:MI')"))
    };
    let ends = minute(1);
    let run = in_the_proof_with(&db, &["--window", &format!("{}-{ends} UTC", minute(-60))]);
    until("the window to close", Duration::from_secs(90), || (minute(0) == ends).then_some(()));
    none_is_left(&db);
    assert_eq!(state(&db), "migrating");
    run.signal(Signal::TERM);
    run.wait_for(LIMIT).expect(75);
}

/// A verify whose tags are read for minutes.
fn in_a_verify(db: &Db) -> Running {
    Load::rows(300).into(db);
    run(db).exits(0);
    slow_proofs(db);
    let verify = rekey(db, ["verify"]).start();
    until("the tags to be read", SOON, || (proofs(db) > 0).then_some(()));
    verify
}

#[test]
fn a_verify_is_given_up_for_an_abort_a_signal_and_a_deadline() {
    type Order<'a> = &'a dyn Fn(&Db, &Running);
    let orders: [(Order<'_>, i32); 3] = [
        (&|db, _| drop(rekey(db, ["abort"]).exits(0)), 9),
        (&|_, verify| verify.signal(Signal::TERM), 75),
        (
            &|db, _| {
                db.execute("UPDATE rekey.rotations SET deadline = clock_timestamp() + interval '1 second'")
            },
            9,
        ),
    ];
    for (order, code) in orders {
        let db = Db::new();
        let verify = in_a_verify(&db);
        order(&db, &verify);
        verify.wait_for(LIMIT).expect(code);
        none_is_left(&db);
        assert!(db.value::<bool>("SELECT bool_and(verified_clean IS NULL) FROM rekey.rotations"));
    }
}

#[test]
fn a_verify_is_given_up_for_a_pause_and_done_again_after_it() {
    let db = Db::new();
    let verify = in_a_verify(&db);
    rekey(&db, ["pause"]).exits(0);
    none_is_left(&db);
    fast_proofs(&db);
    rekey(&db, ["resume"]).exits(0);
    verify.wait().expect(0);
    assert!(db.value::<bool>("SELECT bool_and(verified_clean) FROM rekey.rotations"));
}

/// A failover may lose the commit that concluded: what the ledger says at the end decides, not what was read before.
#[test]
fn a_run_ends_well_only_if_the_ledger_says_so_at_the_end() {
    let db = Db::new();
    Load::rows(200).into(&db);
    rekey(&db, ["init"]).exits(0);
    // When the process signs off, its conclusion is lost: once.
    db.execute(
        "CREATE TABLE public.lost (n int);
         CREATE FUNCTION public.lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NOT EXISTS (SELECT FROM public.lost) THEN
                 INSERT INTO public.lost VALUES (1);
                 UPDATE rekey.rotations SET state = 'migrating';
                 UPDATE rekey.passes SET outcome = NULL, ended_at = NULL;
                 UPDATE rekey.chunks SET state = 'open', owner = NULL WHERE kind = 'proof';
             END IF;
             RETURN OLD;
         END $$;
         CREATE TRIGGER lose BEFORE DELETE ON rekey.processes FOR EACH ROW EXECUTE FUNCTION public.lose()",
    );
    rekey(&db, ["run"]).exits(0);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM lost"), 1);
    assert_eq!(state(&db), "migrated");
    assert_eq!(status(&db)["progress"]["outcome"], "clean");
}
