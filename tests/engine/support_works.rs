//! The tests' own ground: the judge must find what is wrong, or no other test means anything.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::judge::{count_on, open_row, stored};
use crate::support::load::{Load, some_ids, store, store_raw};
use crate::support::{Db, Ids, Judge, NEW, OLD};

fn finds(judge: &Judge, db: &Db, key: &str) -> bool {
    let mut judge = judge.clone();
    catch_unwind(AssertUnwindSafe(|| judge.all_on(db, key))).is_err()
}

#[test]
fn the_judge_accepts_an_untouched_table_and_finds_every_kind_of_damage() {
    let db = Db::new();
    Load::rows(400).mixed().nulls(10).ids(Ids::Half).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    judge.all_on(&db, OLD);
    assert_eq!(count_on(&db, OLD), judge.openable());
    assert!(judge.openable() > 300 && judge.openable() < 400);
    assert!(finds(&judge, &db, NEW), "rows on another key");

    let ids = some_ids(&db, 2, 7);
    let (first, second) = (stored(&db, ids[0]).unwrap(), stored(&db, ids[1]).unwrap());
    let plaintext = open_row(&db, ids[0], OLD).unwrap();

    store_raw(&db, ids[0], &second);
    assert!(finds(&judge, &db, OLD), "another row's credential");
    store_raw(&db, ids[0], &first);
    assert!(!finds(&judge, &db, OLD), "put back, all is well");

    store(&db, ids[0], OLD, b"{}");
    assert!(finds(&judge, &db, OLD), "other bytes");
    let mut same_iv = crate::support::Cipher::new(NEW).seal(*first.first_chunk().unwrap(), &plaintext);
    store_raw(&db, ids[0], &same_iv);
    let mut twice = judge.clone();
    assert!(
        catch_unwind(AssertUnwindSafe(|| twice.none_lost(&db, &[OLD, NEW]))).is_err(),
        "an IV used twice"
    );
    same_iv[20] ^= 1;
    store_raw(&db, ids[0], &same_iv);
    assert!(finds(&judge, &db, OLD), "a flipped bit");
    store(&db, ids[0], OLD, &plaintext);
    assert!(!finds(&judge, &db, OLD), "the same bytes under a fresh IV");

    db.execute(&format!("UPDATE provider_connections SET updated_at = now() WHERE id = '{}'", ids[0]));
    assert!(finds(&judge, &db, OLD), "another column");
    judge.expect(ids[0], &plaintext);
    judge.all_on(&db, OLD);
    db.execute(&format!("DELETE FROM provider_connections WHERE id = '{}'", ids[0]));
    assert!(finds(&judge, &db, OLD), "a row that is gone");
    judge.expect_gone(ids[0]);
    judge.all_on(&db, OLD);
}

#[test]
fn a_generated_credential_is_the_applications_json() {
    let db = Db::new();
    Load::rows(200).mixed().into(&db);
    for id in some_ids(&db, 200, 1) {
        let plaintext = open_row(&db, id, OLD).expect("opens");
        let json: serde_json::Value = serde_json::from_slice(&plaintext).expect("JSON");
        assert!(json.as_object().is_some_and(|object| !object.is_empty()));
    }
    let fixed = Db::new();
    Load::rows(100).bytes(500).into(&fixed);
    let sizes: Vec<i32> =
        fixed.column("SELECT DISTINCT octet_length(encrypted_credentials) FROM provider_connections");
    assert_eq!(sizes, [500]);
}
