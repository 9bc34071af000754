//! `verify` proves, row by row; faults are injected into rekey's own transactions by a trigger, as no honest run makes any.

use crate::support::load::{Load, fresh_iv, insert, some_ids, store};
use crate::support::{Cipher, Db, Judge, NEW, OLD, rekey};
use serde_json::Value;
use uuid::Uuid;

fn verify(db: &Db, code: i32) -> Value {
    rekey(db, ["verify"]).json(code)
}

/// Installs `body` to run once, inside the transaction of the batch after which both rows `a` and `b` have moved.
fn inject(db: &Db, a: Uuid, b: Uuid, body: &str) {
    db.mark();
    db.execute(&format!(
        "CREATE TABLE judge.injected (done boolean);
         CREATE FUNCTION judge.inject() RETURNS trigger LANGUAGE plpgsql AS $$
         DECLARE moved bigint;
         BEGIN
             IF pg_trigger_depth() > 1 OR EXISTS (SELECT FROM judge.injected) THEN RETURN NULL; END IF;
             SELECT count(*) INTO moved FROM provider_connections p JOIN judge.mark m USING (id)
                 WHERE id IN ('{a}', '{b}') AND substr(p.encrypted_credentials, 1, 12) <> m.iv;
             IF moved = (SELECT count(DISTINCT x) FROM unnest(ARRAY['{a}', '{b}']) x) THEN
                 {body}
                 INSERT INTO judge.injected VALUES (true);
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER inject AFTER UPDATE ON provider_connections FOR EACH STATEMENT EXECUTE FUNCTION judge.inject()"
    ));
}

#[test]
fn a_clean_table_is_proven_row_by_row() {
    let db = Db::new();
    Load::rows(1200).mixed().nulls(10).into(&db);
    let judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    let content = db.content();
    let found = verify(&db, 0);
    let identical = judge.openable() as i64;
    assert_eq!(found["clean"], true, "{found:#}");
    assert_eq!(found["rows"], 1200, "{found:#}");
    assert_eq!(found["identical"], identical, "{found:#}");
    assert_eq!(found["null"], 1200 - identical, "{found:#}");
    for none in [
        "changed_since",
        "inserted_since",
        "deleted_since",
        "wrong_key",
        "unreadable",
        "accepted",
        "other_bytes",
    ] {
        assert_eq!(found[none], 0, "{none} in {found:#}");
    }
    assert_eq!(db.content(), content);
}

#[test]
fn two_rows_whose_credentials_were_exchanged() {
    let db = Db::new();
    Load::rows(600).into(&db);
    let ids = some_ids(&db, 2, 41);
    let (a, b) = (ids[0], ids[1]);
    inject(
        &db,
        a,
        b,
        &format!(
            "UPDATE provider_connections p SET encrypted_credentials = q.encrypted_credentials
             FROM provider_connections q WHERE p.id IN ('{a}', '{b}') AND q.id IN ('{a}', '{b}') AND p.id <> q.id;"
        ),
    );
    rekey(&db, ["run", "--allow", "user-triggers", "--batch-rows", "100"]).exits(0);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM judge.injected"), 1, "the fault was injected");
    let found = verify(&db, 6);
    assert_eq!(found["other_bytes"], 2, "{found:#}");
    assert_eq!(found["clean"], false, "{found:#}");
}

#[test]
fn a_row_written_with_other_bytes() {
    let db = Db::new();
    Load::rows(600).into(&db);
    let id = some_ids(&db, 1, 42)[0];
    let sealed = Cipher::new(NEW).seal(fresh_iv(), b"{\"access_token\":\"not what it was\"}");
    let mut hex = String::new();
    crate::support::credentials::hex(&sealed, &mut hex);
    inject(
        &db,
        id,
        id,
        &format!(r"UPDATE provider_connections SET encrypted_credentials = '\x{hex}' WHERE id = '{id}';"),
    );
    rekey(&db, ["run", "--allow", "user-triggers", "--batch-rows", "100"]).exits(0);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM judge.injected"), 1, "the fault was injected");
    let found = verify(&db, 6);
    assert_eq!(found["other_bytes"], 1, "{found:#}");
}

/// A trigger that puts the old ciphertext back inside our own batch: the closing proof trusts our transactions, verify
/// opens every row all the same.
#[test]
fn a_row_left_on_the_old_key_by_our_own_batch() {
    let db = Db::new();
    Load::rows(600).into(&db);
    let id = some_ids(&db, 1, 43)[0];
    let mut hex = String::new();
    crate::support::credentials::hex(&crate::support::judge::stored(&db, id).unwrap(), &mut hex);
    inject(
        &db,
        id,
        id,
        &format!(r"UPDATE provider_connections SET encrypted_credentials = '\x{hex}' WHERE id = '{id}';"),
    );
    rekey(&db, ["run", "--allow", "user-triggers"]).run();
    assert_eq!(db.value::<i64>("SELECT count(*) FROM judge.injected"), 1, "the fault was injected");
    let found = verify(&db, 6);
    assert_eq!(found["wrong_key"], 1, "{found:#}");
}

#[test]
fn rows_the_application_changed_inserted_or_deleted_since_are_its_own_business() {
    let db = Db::new();
    Load::rows(900).into(&db);
    rekey(&db, ["run"]).exits(0);
    let ids = some_ids(&db, 6, 44);
    for &id in &ids[..3] {
        store(&db, id, NEW, b"{\"access_token\":\"refreshed\"}");
    }
    for _ in 0..2 {
        insert(&db, Uuid::now_v7(), NEW, b"{\"api_key\":\"new\"}");
    }
    db.execute(&format!("DELETE FROM provider_connections WHERE id = '{}'", ids[3]));
    // Something else wrote the row, the credential stayed: still proven.
    db.execute(&format!("UPDATE provider_connections SET alias = 'renamed' WHERE id = '{}'", ids[4]));
    // A disconnected row has no credential any more.
    db.execute(&format!(
        "UPDATE provider_connections SET encrypted_credentials = NULL WHERE id = '{}'",
        ids[5]
    ));
    let found = verify(&db, 0);
    assert_eq!(found["clean"], true, "{found:#}");
    assert_eq!(found["identical"], 900 - 5, "{found:#}");
    assert_eq!(found["changed_since"], 3, "{found:#}");
    assert_eq!(found["inserted_since"], 2, "{found:#}");
    assert_eq!(found["deleted_since"], 1, "{found:#}");
    assert_eq!(found["null"], 1, "{found:#}");
    assert_eq!(found["rows"], 901, "{found:#}");
}

/// Rows that were on the new key before the rotation began have no tag; they open, and that is enough.
#[test]
fn rows_that_were_on_the_new_key_already() {
    let db = Db::new();
    Load::rows(500).into(&db);
    let ids = some_ids(&db, 30, 45);
    let mut judge = Judge::look(&db, &[OLD]);
    for &id in &ids {
        store(&db, id, NEW, b"{\"api_key\":\"early\"}");
        judge.expect(id, b"{\"api_key\":\"early\"}");
    }
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(crate::support::total(&db, "already_on_key"), 30);
    assert_eq!(crate::support::total(&db, "re_encrypted"), 470);
    let found = verify(&db, 0);
    assert_eq!(found["identical"], 470, "{found:#}");
}

#[test]
fn an_unreadable_row_after_the_run() {
    let db = Db::new();
    Load::rows(300).into(&db);
    rekey(&db, ["run"]).exits(0);
    crate::support::load::store_raw(&db, some_ids(&db, 1, 46)[0], &[3; 90]);
    let found = verify(&db, 5);
    assert_eq!(found["unreadable"], 1, "{found:#}");
    assert_eq!(found["clean"], false, "{found:#}");
}

#[test]
fn before_any_rotation_there_is_nothing_to_verify() {
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["verify"]).exits(7);
    assert!(!db.has_rekey_schema());
}
