//! `verify` proves, row by row; faults are injected into rekey's own transactions by a trigger, as no honest run makes any.

use crate::support::load::{Load, fresh_iv, insert, some_ids, store, store_raw};
use crate::support::{Cipher, Db, Judge, NEW, OLD, SOON, rekey, until};
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

/// All that was moved is gone: that is no success.
#[test]
fn a_table_that_was_emptied() {
    let db = Db::new();
    Load::rows(60).into(&db);
    rekey(&db, ["run"]).exits(0);
    db.execute("TRUNCATE provider_connections CASCADE");
    let refused = rekey(&db, ["verify"]).exits(6);
    assert!(refused.stderr.contains("this rotation re-encrypted 60"), "{refused}");
    rekey(&db, ["promote", "--yes", "--external"]).exits(6);
    // Somebody says that it is to be so.
    rekey(&db, ["promote", "--yes", "--external", "--allow", "empty-table"]).exits(7);
    let promoted = ["promote", "--yes", "--external", "--allow", "empty-table"];
    rekey(&db, promoted).env("ENCRYPTION_KEY", NEW).exits(0);
    rekey(&db, ["finalize", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
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
    // The way back returns what is there, and does not take it for what was there.
    rekey(&db, ["rollback", "--yes", "--allow", "user-triggers"]).exits(6);
    let found = verify(&db, 6);
    assert_eq!(found["other_bytes"], 1, "{found:#}");
}

/// A trigger that puts the old ciphertext back inside our own batch: where there are triggers, the closing proof does not
/// trust our transactions either.
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
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run", "--allow", "user-triggers"]).exits(0);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM judge.injected"), 1, "the fault was injected");
    judge.all_on(&db, NEW);
    verify(&db, 0);
}

/// A row that the index on the id does not lead to is on the old key, and younger than verify's horizon, which a
/// transaction of somebody's holds back: no count of older rows misses it.
#[test]
fn a_row_that_the_index_does_not_know() {
    let db = Db::new();
    Load::rows(600).into(&db);
    rekey(&db, ["run"]).exits(0);
    verify(&db, 0);
    let mut holding = db.hold();
    holding.execute(sqlx::query("SELECT pg_current_xact_id()"));
    let index = "SET allow_system_table_mods = on; UPDATE pg_index SET indisready = $ \
                 WHERE indexrelid = 'provider_connections_pkey'::regclass; RESET allow_system_table_mods";
    db.execute(&index.replace('$', "false"));
    insert(&db, Uuid::now_v7(), OLD, b"{\"api_key\":\"nobody finds it\"}");
    db.execute(&index.replace('$', "true"));
    let found = verify(&db, 6);
    assert_eq!(found["unseen"], 1, "{found:#}");
    holding.rollback();
}

/// What was accepted is that no key opens the row. Without the old key nobody can tell that of what was saved since.
#[test]
fn an_accepted_row_that_was_saved_again_is_not_accepted_without_the_old_key() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let id = some_ids(&db, 1, 45)[0];
    store_raw(&db, id, b"no key opens these bytes, whatever they were");
    rekey(&db, ["run"]).exits(5);
    rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "a test's"]).exits(0);
    let without_the_old_key = || rekey(&db, ["verify"]).without("ENCRYPTION_KEY");
    let found = without_the_old_key().json(0);
    assert_eq!((&found["accepted"], &found["both_keys"]), (&1.into(), &false.into()), "{found:#}");
    store(&db, id, OLD, b"{\"access_token\":\"a late writer's\"}");
    let found = without_the_old_key().json(5);
    assert_eq!(found["unreadable"], 1, "{found:#}");
    assert_eq!(verify(&db, 6)["wrong_key"], 1);
}

#[test]
fn another_key_named_for_the_old_one_is_refused() {
    let db = Db::new();
    Load::rows(100).into(&db);
    rekey(&db, ["run"]).exits(0);
    let other = || rekey(&db, ["verify", "--old-key", "env:OTHER_KEY"]).without("ENCRYPTION_KEY");
    other().env("OTHER_KEY", crate::support::OTHER).exits(3);
    // One that yields nothing is no matter: the old key is not needed.
    other().exits(0);
}

/// A rollback turned the rotation round while its rows were read: what was found says nothing.
#[test]
fn a_rotation_that_is_turned_round_meanwhile() {
    let db = Db::new();
    Load::rows(300).into(&db);
    rekey(&db, ["run"]).exits(0);
    let mut table = db.hold();
    table.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
    let running = rekey(&db, ["verify"]).start();
    until("verify to wait for the table", SOON, || (db.waiting_for_the_table() > 0).then_some(()));
    db.execute("UPDATE rekey.rotations SET state = 'rolling_back', verified_clean = NULL");
    table.rollback();
    running.wait().expect(8);
    assert!(db.value::<bool>("SELECT bool_and(verified_clean IS NULL) FROM rekey.rotations"));
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
