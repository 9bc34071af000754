//! `quarantine accept`: a reason of its own, a question, and only for what no key opens and was listed.

use crate::support::load::{Load, some_ids, store, store_raw};
use crate::support::{Db, NEW, OLD, Outcome, Rekey, rekey};
use serde_json::Value;
use uuid::Uuid;

/// One row that no key opens, found by a run.
fn quarantined() -> (Db, Uuid) {
    let db = Db::new();
    Load::rows(60).into(&db);
    let id = some_ids(&db, 1, 3)[0];
    store_raw(&db, id, &[9; 60]);
    rekey(&db, ["run"]).exits(5);
    (db, id)
}

fn accept(db: &Db, id: Uuid) -> Rekey {
    rekey(db, ["quarantine", "accept", &id.to_string()])
}

fn with_reason(db: &Db, id: Uuid) -> Outcome {
    accept(db, id).args(["--yes", "--reason", "no backup has it"]).run()
}

fn acceptances(db: &Db) -> i64 {
    db.value("SELECT count(*) FROM rekey.events WHERE action = 'accept'")
}

#[test]
fn a_reason_that_is_exported_for_the_day_is_none() {
    let (db, id) = quarantined();
    let day = || accept(&db, id).env("REKEY_REASON", "quarterly rotation");
    let refused = day().args(["--yes"]).exits(2);
    assert!(refused.stderr.contains("--reason"), "{refused}");
    assert_eq!(acceptances(&db), 0);
    // Typed, the same words are.
    day().args(["--yes", "--reason", "quarterly rotation"]).exits(0);
    let id = id.to_string();
    rekey(&db, ["--reason", "before the command", "quarantine", "accept", &id, "--yes"]).exits(0);
    assert_eq!(acceptances(&db), 2);
}

#[test]
fn it_asks() {
    let (db, id) = quarantined();
    let refused = accept(&db, id).args(["--reason", "no backup has it"]).exits(2);
    assert!(refused.stderr.contains("--yes"), "{refused}");
    assert_eq!(acceptances(&db), 0);
    accept(&db, id).args(["--reason", "no backup has it"]).env("REKEY_YES", "1").exits(0);
}

#[test]
fn a_row_that_either_key_opens_is_not_lost() {
    for (key, named) in [(OLD, "old key"), (NEW, "new key")] {
        let (db, id) = quarantined();
        store(&db, id, key, b"a credential all the same");
        let refused = with_reason(&db, id).expect(7);
        assert!(refused.stderr.contains(named), "{refused}");
        // An entry that was made by hand, for what the row holds.
        db.execute(
            "UPDATE rekey.quarantine q SET found_content = (SELECT 'sha256:' || encode(sha256(encrypted_credentials), 'hex')
             FROM provider_connections WHERE id = q.row_id)",
        );
        let refused = with_reason(&db, id).expect(7);
        assert!(refused.stderr.contains("quarantine retry"), "{refused}");
        assert_eq!(acceptances(&db), 0);
        rekey(&db, ["quarantine", "retry"]).exits(0);
    }
}

#[test]
fn only_what_was_listed_is_accepted() {
    let (db, id) = quarantined();
    let listed =
        |db: &Db| -> Value { rekey(db, ["quarantine", "list"]).json(0)["result"][0]["content"].clone() };
    let before = listed(&db);
    assert!(before.as_str().is_some_and(|content| content.starts_with("sha256:")), "{before}");
    // Of the same length and the same kind.
    store_raw(&db, id, &[8; 60]);
    let refused = with_reason(&db, id).expect(7);
    assert!(refused.stderr.contains("has changed"), "{refused}");
    assert_eq!((acceptances(&db), &listed(&db)), (0, &before));
    rekey(&db, ["quarantine", "retry"]).exits(5);
    assert_ne!(listed(&db), before);
    with_reason(&db, id).expect(0);
    rekey(&db, ["verify"]).exits(0);
    // Gone, it cannot be accepted any more.
    db.execute(&format!("DELETE FROM provider_connections WHERE id = '{id}'"));
    with_reason(&db, id).expect(7);
}

#[test]
fn a_row_that_the_server_rejects_opens_and_is_accepted() {
    let db = Db::new();
    Load::rows(60).into(&db);
    let id = some_ids(&db, 1, 3)[0];
    db.execute(&format!("ALTER TABLE provider_connections ADD CHECK (id <> '{id}') NOT VALID"));
    rekey(&db, ["run"]).exits(5);
    with_reason(&db, id).expect(0);
}

#[test]
fn both_keys_are_needed() {
    let (db, id) = quarantined();
    accept(&db, id).args(["--yes", "--reason", "lost"]).without("ENCRYPTION_KEY").exits(3);
    assert_eq!(acceptances(&db), 0);
}

/// Nor does one of 0.1.0 cover, before it is met, what is not even as long.
#[test]
fn an_acceptance_of_0_1_0_does_not_cover_another_length() {
    let (db, id) = quarantined();
    with_reason(&db, id).expect(0);
    db.execute(
        "ALTER TABLE rekey.events DISABLE TRIGGER ALL; UPDATE rekey.quarantine SET content = NULL, found_content = NULL; \
         UPDATE rekey.events SET detail = detail - 'content' WHERE action = 'accept'",
    );
    rekey(&db, ["verify"]).exits(0);
    store_raw(&db, id, &[9; 77]);
    rekey(&db, ["verify"]).exits(5);
    rekey(&db, ["run"]).exits(5);
    with_reason(&db, id).expect(0);
    rekey(&db, ["run"]).exits(0);
}

/// 0.1.0 recorded an acceptance without saying of what: it holds for what the row holds when it is first met again.
#[test]
fn an_acceptance_of_0_1_0_does_not_cover_what_comes_later() {
    let (db, id) = quarantined();
    with_reason(&db, id).expect(0);
    db.execute(
        "ALTER TABLE rekey.events DISABLE TRIGGER ALL; UPDATE rekey.quarantine SET content = NULL, found_content = NULL; \
         UPDATE rekey.events SET detail = detail - 'content' WHERE action = 'accept'",
    );
    rekey(&db, ["verify"]).exits(0);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["verify"]).exits(0);
    store_raw(&db, id, &[8; 60]);
    rekey(&db, ["verify"]).exits(5);
    rekey(&db, ["run"]).exits(5);
    with_reason(&db, id).expect(0);
    rekey(&db, ["run"]).exits(0);
}
