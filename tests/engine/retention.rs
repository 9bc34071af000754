//! Proofs of a rotation that is over go when the next one begins, and its report still says what they came to.

use serde_json::Value;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, OTHER, rekey};

fn proofs(db: &Db, rotation: &str) -> i64 {
    db.value(&format!("SELECT count(*) FROM rekey.proofs WHERE rotation = '{rotation}'"))
}

fn removals(db: &Db, rotation: &str) -> i64 {
    db.value(&format!(
        "SELECT count(*) FROM rekey.events WHERE rotation = '{rotation}' AND action = 'proofs_removed'"
    ))
}

/// The latest rotation's id.
fn latest(db: &Db) -> String {
    db.value("SELECT id::text FROM rekey.rotations ORDER BY created_at DESC LIMIT 1")
}

/// A database with a rotation that was rolled back, and its id.
fn rolled_back() -> (Db, String) {
    let db = Db::new();
    Load::rows(600).into(&db);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    let first = latest(&db);
    (db, first)
}

fn reported(db: &Db, rotation: &str) -> Value {
    let report = rekey(db, ["report", "--rotation", rotation, "--format", "json"]).json(0);
    assert_eq!(report["chain"]["intact"], true, "{report:#}");
    report["rotations"][0].clone()
}

#[test]
fn they_go_when_the_next_rotation_begins() {
    let (db, first) = rolled_back();
    // It is over, and nobody has begun another one: it can still be verified against them.
    assert_eq!(rekey(&db, ["verify"]).json(0)["identical"], 600);
    let before = reported(&db, &first);
    assert_eq!(before["proofs"].as_array().map(Vec::len), Some(2), "{before:#}");
    assert_eq!(before["proofs_removed_at"], Value::Null);
    assert!(proofs(&db, &first) > 0);

    let mut judge = Judge::look(&db, &[OLD]);
    let run = rekey(&db, ["run"]).exits(0);
    assert!(run.stderr.contains("Removed the proofs of an ended rotation"), "{run}");
    let second = latest(&db);
    assert_eq!((proofs(&db, &first), removals(&db, &first)), (0, 1));
    assert!(proofs(&db, &second) > 0);
    let after = reported(&db, &first);
    assert_eq!(after["proofs"], before["proofs"]);
    assert!(after["proofs_removed_at"].is_string(), "{after:#}");
    assert_eq!(after["verdict"], before["verdict"]);
    let event = after["timeline"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&event["detail"]["begun"], &event["detail"]["tag_bytes"]),
        (&second.into(), &8.into()),
        "{event:#}"
    );
    let page = rekey(&db, ["report", "--rotation", &first, "--format", "html"]).exits(0);
    assert!(page.stdout.contains("The proofs were removed"), "{page}");
    // Whose credentials were moved is not known any more: whoever has one is listed.
    let affected = rekey(&db, ["report", "--rotation", &first, "--affected", "--format", "json"]).json(0);
    assert_eq!(
        (&affected["complete"], affected["affected"].as_array().map(Vec::len)),
        (&false.into(), Some(600))
    );

    judge.all_on(&db, NEW);
    assert_eq!(rekey(&db, ["verify"]).json(0)["identical"], 600);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    judge.all_on(&db, OLD);
}

/// What a process leaves that dies or is refused meanwhile goes the next time, and is recorded once.
#[test]
fn what_could_not_be_removed_goes_the_next_time() {
    let (db, first) = rolled_back();
    let mut holder = db.hold();
    holder.execute(sqlx::query("SELECT FROM rekey.proofs FOR UPDATE"));
    let run = rekey(&db, ["run"]).exits(0);
    assert!(run.stderr.contains("Couldn't remove the proofs of an ended rotation"), "{run}");
    holder.rollback();
    assert!(proofs(&db, &first) > 0);
    assert_eq!(removals(&db, &first), 1);
    let second = latest(&db);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    rekey(&db, ["run"]).exits(0);
    for ended in [&first, &second] {
        assert_eq!((proofs(&db, ended), removals(&db, ended)), (0, 1));
    }
}

/// A role whose privileges were granted before rekey removed any goes on as before.
#[test]
fn a_role_that_may_not_remove_them_rotates_all_the_same() {
    let (db, first) = rolled_back();
    let role = format!("of_old_{}", db.name);
    rekey(&db, ["init"]).exits(0);
    let grants = rekey(&db, ["init", "--print-sql"]).exits(0).stdout;
    db.execute(&grants);
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN BYPASSRLS; GRANT rekey_runner TO {role}; REVOKE DELETE ON rekey.proofs FROM rekey_runner"
    ));
    let url = db.url.replace("//postgres@", &format!("//{role}@"));
    let run = rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(0);
    assert!(run.stderr.contains("GRANT DELETE ON rekey.proofs"), "{run}");
    assert!(proofs(&db, &first) > 0);
    assert_eq!(removals(&db, &first), 0);
}

/// They name whose credentials were on the leaked key.
#[test]
fn those_of_a_compromised_rotation_stay() {
    let db = Db::new();
    Load::rows(600).into(&db);
    rekey(&db, ["run", "--compromised"]).exits(0);
    rekey(&db, ["rollback", "--yes", "--i-know-the-old-key-is-compromised"]).exits(0);
    let first = latest(&db);
    let before = proofs(&db, &first);
    rekey(&db, ["run"]).env("NEW_ENCRYPTION_KEY", OTHER).exits(0);
    assert_ne!(latest(&db), first);
    assert_eq!((proofs(&db, &first), removals(&db, &first)), (before, 0));
    let affected = rekey(&db, ["report", "--rotation", &first, "--affected", "--format", "json"]).json(0);
    assert_eq!(
        (&affected["complete"], affected["affected"].as_array().map(Vec::len)),
        (&true.into(), Some(600))
    );
}
