//! The application's `audit_logs` is best effort: whatever it does with an entry, the rotation goes on, and soon.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, rekey};

const ENOUGH: Duration = Duration::from_secs(40);

fn loaded() -> Db {
    let db = Db::new();
    Load::rows(200).into(&db);
    db
}

/// Every state change of a rotation is made beside an entry in the trail.
#[track_caller]
fn there_and_back(db: &Db) {
    let mut judge = Judge::look(db, &[OLD]);
    let run = rekey(db, ["run"]).start().wait_for(ENOUGH).expect(0);
    assert!(run.stderr.contains("Couldn't write an entry to the application's audit_logs"), "{run}");
    judge.all_on(db, NEW);
    let back = rekey(db, ["rollback", "--yes"]).start().wait_for(ENOUGH).expect(0);
    assert!(back.stderr.contains("Couldn't write an entry to the application's audit_logs"), "{back}");
    judge.all_on(db, OLD);
    let states: Vec<String> = db.column("SELECT action FROM rekey.events ORDER BY seq");
    assert!(
        states.contains(&"migrated".to_owned()) && states.contains(&"rolled_back".to_owned()),
        "{states:?}"
    );
}

#[test]
fn constraints_of_the_trail_that_are_checked_at_commit() {
    let db = loaded();
    db.execute(
        "CREATE TABLE secrets_known (id uuid PRIMARY KEY);
         ALTER TABLE audit_logs ADD FOREIGN KEY (resource_id) REFERENCES secrets_known DEFERRABLE INITIALLY DEFERRED",
    );
    there_and_back(&db);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM audit_logs"), 0);
}

#[test]
fn a_deferred_trigger_of_the_trail_that_raises() {
    let db = loaded();
    db.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
         CREATE CONSTRAINT TRIGGER no AFTER INSERT ON audit_logs DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION no()",
    );
    there_and_back(&db);
}

#[test]
fn a_trail_that_is_locked_all_the_time() {
    let db = loaded();
    let mut holder = db.hold();
    holder.execute(sqlx::query("LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE"));
    there_and_back(&db);
    holder.rollback();
}

#[test]
fn a_trigger_of_the_trail_that_takes_for_ever() {
    let db = loaded();
    db.execute(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$;
         CREATE TRIGGER slowly BEFORE INSERT ON audit_logs FOR EACH ROW EXECUTE FUNCTION slowly()",
    );
    there_and_back(&db);
}
