//! Rows that open with neither key: named, left alone, never passed over in silence. And rows that are merely large.

use std::time::Duration;

use crate::support::judge::stored;
use crate::support::load::{Load, fresh_iv, some_ids, store, store_raw};
use crate::support::{Cipher, Db, Judge, NEW, OLD, OTHER, rekey, status, total};
use serde_json::{Value, json};
use uuid::Uuid;

/// The kinds of damage, each with the reason it must be listed under.
fn damage(db: &Db, id: Uuid, kind: &str) -> &'static str {
    let plaintext = br#"{"access_token":"a-token-that-was-never-encrypted","token_type":"Bearer"}"#;
    match kind {
        "empty" => store_raw(db, id, b""),
        "one byte" => store_raw(db, id, b"x"),
        "27 bytes" => store_raw(db, id, &[7; 27]),
        "28 bytes" => store_raw(db, id, &[8; 28]),
        "a flipped bit" => {
            let mut value = stored(db, id).expect("a credential");
            value[40] ^= 1;
            store_raw(db, id, &value);
        }
        "another key" => store(db, id, OTHER, plaintext),
        "plaintext" => store_raw(db, id, plaintext),
        _ => unreachable!(),
    }
    match kind {
        "empty" => "empty",
        "one byte" | "27 bytes" => "too_short",
        _ => "neither_key",
    }
}

const KINDS: [&str; 7] =
    ["empty", "one byte", "27 bytes", "28 bytes", "a flipped bit", "another key", "plaintext"];

/// 1000 rows of which seven are damaged, one of each kind.
struct Damaged {
    /// Their ids and the reasons they must be listed under.
    reasons: Vec<(Uuid, &'static str)>,
    /// Their ids and what they held before.
    before: Vec<(Uuid, Vec<u8>)>,
    judge: Judge,
}

impl Damaged {
    fn load(db: &Db) -> Damaged {
        Load::rows(1000).into(db);
        let ids = some_ids(db, KINDS.len(), 5);
        let before = ids.iter().map(|&id| (id, stored(db, id).expect("a credential"))).collect();
        let reasons = ids.iter().zip(KINDS).map(|(&id, kind)| (id, damage(db, id, kind))).collect();
        Damaged { reasons, before, judge: Judge::look(db, &[OLD]) }
    }

    /// Somebody restores the rows from a backup: they open with the old key again.
    fn repair(&mut self, db: &Db) {
        for (id, value) in &self.before {
            store_raw(db, *id, value);
            self.judge.expect(*id, &Cipher::new(OLD).open(value).unwrap());
        }
    }
}

#[test]
fn bad_rows_are_listed_by_id_and_reason_and_left_untouched() {
    let db = Db::new();
    let mut damaged = Damaged::load(&db);
    let outcome = rekey(&db, ["run", "--chunk-rows", "200", "--batch-rows", "50"]).exits(5);
    assert!(outcome.stdout.contains("quarantine") || outcome.stderr.contains("quarantine"), "{outcome}");
    damaged.judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 993);
    assert_eq!(total(&db, "quarantined"), 7);

    let list = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    let mut listed: Vec<(String, String)> = list
        .as_array()
        .unwrap_or_else(|| panic!("no list: {list:#}"))
        .iter()
        .map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry["reason"].as_str().unwrap().to_owned()))
        .collect();
    let mut expected: Vec<(String, String)> =
        damaged.reasons.iter().map(|(id, reason)| (id.to_string(), (*reason).to_owned())).collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    assert!(list.as_array().unwrap().iter().all(|entry| entry["accepted"] == false));

    // Again: still 5, still untouched, still seven.
    rekey(&db, ["run"]).exits(5);
    rekey(&db, ["verify"]).exits(5);
    damaged.judge.all_on(&db, NEW);
    assert_eq!(total(&db, "quarantined"), 7);

    damaged.repair(&db);
    rekey(&db, ["quarantine", "retry"]).exits(0);
    rekey(&db, ["run"]).exits(0);
    damaged.judge.all_on(&db, NEW);
    assert_eq!(total(&db, "quarantined"), 0);
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn run_alone_finds_repaired_rows_too() {
    let db = Db::new();
    let mut damaged = Damaged::load(&db);
    rekey(&db, ["run"]).exits(5);
    damaged.repair(&db);
    rekey(&db, ["run"]).exits(0);
    damaged.judge.all_on(&db, NEW);
    assert_eq!(rekey(&db, ["quarantine", "list"]).json(0)["result"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_row_left_on_a_still_older_key_moves_with_also_key() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let id = some_ids(&db, 1, 6)[0];
    let mut judge = Judge::look(&db, &[OLD]);
    store(&db, id, OTHER, b"{\"api_key\":\"from two keys ago\"}");
    judge.expect(id, b"{\"api_key\":\"from two keys ago\"}");
    rekey(&db, ["run"]).exits(5);
    rekey(&db, ["quarantine", "retry", "--also-key", "env:OLDER_KEY"]).env("OLDER_KEY", OTHER).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["verify"]).exits(0);
}

/// A dry run tells why each row would be quarantined, and tries a still older key before there is a rotation; a run takes
/// it as well.
#[test]
fn a_dry_run_says_why_and_takes_a_still_older_key() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let id = some_ids(&db, 1, 6)[0];
    let mut judge = Judge::look(&db, &[OLD]);
    store(&db, id, OTHER, b"{\"api_key\":\"from two keys ago\"}");
    judge.expect(id, b"{\"api_key\":\"from two keys ago\"}");
    let dry = rekey(&db, ["run", "--dry-run"]).exits(5);
    assert!(dry.stdout.contains("neither_key"), "{dry}");
    let older = |command: &[&str]| rekey(&db, []).more(command).env("OLDER_KEY", OTHER);
    older(&["run", "--dry-run", "--also-key", "env:OLDER_KEY"]).exits(0);
    older(&["run", "--also-key", "env:OLDER_KEY"]).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn an_accepted_row_is_tolerated_and_stays_as_it_is() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let id = some_ids(&db, 1, 8)[0];
    store_raw(&db, id, &[9; 60]);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(5);
    rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "the user has left"]).exits(0);
    let found = rekey(&db, ["verify"]).json(0);
    assert_eq!(found["accepted"], 1, "{found:#}");
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
    let list = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    assert_eq!(list[0]["accepted"], true, "{list:#}");
}

/// Somebody tried to repair it and failed: other junk, of another length. The closing proof meets it among what others
/// wrote, and in the quarantine.
#[test]
fn a_bad_row_that_becomes_bad_in_another_way() {
    let db = Db::new();
    Load::rows(200).into(&db);
    let ids = some_ids(&db, 2, 9);
    store_raw(&db, ids[0], b"");
    store_raw(&db, ids[1], &[7; 300]);
    rekey(&db, ["run"]).exits(5);
    store_raw(&db, ids[0], &[8; 40]);
    store_raw(&db, ids[1], &[9; 304]);
    rekey(&db, ["run"]).exits(5);
    let lengths: Vec<i32> = db.column("SELECT length FROM rekey.quarantine ORDER BY length");
    assert_eq!(lengths, [40, 304]);
    store_raw(&db, ids[0], b"x");
    rekey(&db, ["quarantine", "retry"]).exits(5);
    rekey(&db, ["rollback", "--yes"]).exits(5);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.quarantine"), 2);
    for id in ids {
        rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "lost"]).exits(0);
    }
    rekey(&db, ["rollback", "--yes"]).exits(0);
}

/// What was accepted is that no key opens the row. A late writer's credential under the old key is another matter.
#[test]
fn an_accepted_row_that_holds_a_credential_again() {
    let db = Db::new();
    Load::rows(100).into(&db);
    let id = some_ids(&db, 1, 3)[0];
    store_raw(&db, id, &[7; 300]);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(5);
    rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "lost"]).exits(0);
    rekey(&db, ["verify"]).exits(0);
    store(&db, id, OLD, b"signed in again");
    judge.expect(id, b"signed in again");
    let found = rekey(&db, ["verify"]).json(6);
    assert_eq!(found["wrong_key"], 1, "{found}");
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["verify"]).exits(0);
    judge.all_on(&db, NEW);
}

#[test]
fn accepting_a_row_that_is_not_quarantined_is_refused() {
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["run"]).exits(0);
    let id = some_ids(&db, 1, 8)[0].to_string();
    rekey(&db, ["quarantine", "accept", &id, "--yes", "--reason", "why not"]).exits(2);
}

/// Resident memory a process may take at most, in kB, whatever the table holds.
const MEMORY: u64 = 160 * 1024;

/// Rows of 1 MB pass, and memory stays within its bound whatever the rows' sizes.
#[test]
fn rows_of_a_megabyte_pass_within_the_memory_bound() {
    let db = Db::new();
    Load::rows(120).bytes(1_048_576).into(&db);
    Load::rows(500).seed(2).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    for command in [&["run", "--dry-run"][..], &["run"], &["verify"]] {
        rekey(&db, ["--output", "json"]).more(command).start().ends_within_memory(0, MEMORY);
    }
    judge.all_on(&db, NEW);
}

/// No credential is that large: it is refused unread, by its reason, and nobody runs out of memory over it.
#[test]
fn a_value_of_a_hundred_megabytes() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let id = some_ids(&db, 1, 10)[0];
    let mut judge = Judge::look(&db, &[OLD]);
    db.execute(&format!(
        "UPDATE provider_connections SET encrypted_credentials = convert_to(repeat('x', 104857600), 'UTF8')
         WHERE id = '{id}'"
    ));
    judge.expect_raw(id, &vec![b'x'; 104_857_600]);
    for (command, code) in [
        (&["plan", "--rehearse", "300"][..], 0),
        (&["run", "--dry-run"], 5),
        (&["run"], 5),
        (&["verify"], 5),
        (&["plan"], 0),
    ] {
        rekey(&db, ["--output", "json"]).more(command).start().ends_within_memory(code, MEMORY);
    }
    let list = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    assert_eq!((&list[0]["id"], &list[0]["reason"]), (&json!(id), &json!("too_large")), "{list:#}");
    assert_eq!(list[0]["length"], 104_857_600, "{list:#}");
    judge.all_on(&db, NEW);
    rekey(&db, ["rollback", "--yes"]).start().ends_within_memory(5, MEMORY);
    judge.all_on(&db, OLD);
}

/// What is read at all (`MAX_ROW_BYTES` in src/store/rows.rs), in bytes.
const LARGEST: usize = 8 << 20;

/// The largest that are moved and the smallest that are not, many of each. What a worker holds of them at a time is more
/// than of rows of a megabyte, and far from all.
#[test]
fn values_on_either_side_of_the_largest_that_is_read() {
    let (moved, left) = (24, 4);
    let db = Db::new();
    Load::rows(moved).bytes(LARGEST).into(&db);
    Load::rows(left).bytes(LARGEST + 1).seed(2).into(&db);
    Load::rows(100).seed(3).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let within = |command: &[&str]| {
        let one = rekey(&db, ["--output", "json"]).more(command).args(["--workers", "1"]);
        one.start().ends_within_memory(5, MEMORY / 2 * 3).json()
    };
    let dry = within(&["run", "--dry-run"]);
    assert_eq!(dry["unreadable_by_reason"], json!({ "too_large": left }), "{dry:#}");
    let run = within(&["run"]);
    assert_eq!(run["totals"]["re_encrypted"], 100 + moved, "{run:#}");
    judge.none_lost(&db, &[OLD, NEW]);
    within(&["rollback", "--yes"]);
    judge.all_on(&db, OLD);
    assert_eq!(list_of_reasons(&db), vec![("too_large".to_owned(), LARGEST as i64 + 1); left as usize]);
}

/// Reason and length of each quarantined row.
fn list_of_reasons(db: &Db) -> Vec<(String, i64)> {
    let list = rekey(db, ["quarantine", "list"]).json(0)["result"].clone();
    let entry = |entry: &Value| {
        let reason = entry["reason"].as_str().expect("a reason").to_owned();
        (reason, entry["length"].as_i64().expect("a length"))
    };
    list.as_array().expect("a list").iter().map(entry).collect()
}

#[test]
fn one_bad_row_among_good_ones_of_its_batch_costs_nobody_else() {
    let db = Db::new();
    Load::rows(400).into(&db);
    let id = some_ids(&db, 1, 9)[0];
    let mut value = Cipher::new(OLD).seal(fresh_iv(), b"{}");
    value[13] ^= 0x80;
    store_raw(&db, id, &value);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run", "--batch-rows", "400"]).exits(5);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 399);
}

/// A row that the server itself will not have updated: found by bisection, listed, and tried once by each run.
/// Its chunk is read in many segments, so that what the first ones found must not be forgotten by the last.
#[test]
fn a_row_the_server_rejects() {
    let db = Db::new();
    Load::rows(40).bytes(1_000_000).into(&db);
    Load::rows(300).seed(2).into(&db);
    let id = crate::support::load::ids(&db)[2];
    db.execute(&format!(
        "ALTER TABLE provider_connections ADD CONSTRAINT untouchable CHECK (id <> '{id}') NOT VALID"
    ));
    let mut judge = Judge::look(&db, &[OLD]);
    let outcome = rekey(&db, ["run", "--retry-for", "5m"]).exits(5);
    assert!(outcome.took < Duration::from_secs(100), "{outcome}");
    judge.none_lost(&db, &[OLD, NEW]);
    let list = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    assert_eq!(
        (list[0]["id"].as_str(), list[0]["reason"].as_str()),
        (Some(&*id.to_string()), Some("rejected"))
    );
    assert_eq!(total(&db, "re_encrypted"), 339);
    rekey(&db, ["run"]).exits(5);
    db.execute("ALTER TABLE provider_connections DROP CONSTRAINT untouchable");
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "quarantined"), 0);
    rekey(&db, ["verify"]).exits(0);
}

/// What rekey's own tables reject is no row's fault, and no row is put aside for it.
#[test]
fn an_error_of_the_ledger_rejects_no_row() {
    let db = Db::new();
    Load::rows(40).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["init"]).exits(0);
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.re_encrypted > 0 THEN RAISE 'no checkpoints today'; END IF; RETURN NEW; END $$",
    );
    db.execute("CREATE TRIGGER refuse BEFORE UPDATE ON rekey.chunks FOR EACH ROW EXECUTE FUNCTION refuse()");
    let failed = rekey(&db, ["run"]).exits(1);
    assert!(failed.stderr.contains("no checkpoints today (SQLSTATE P0001)"), "{failed}");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.quarantine"), 0);
    judge.all_on(&db, OLD);
    db.execute("DROP TRIGGER refuse ON rekey.chunks");
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
}

/// On the way back it holds the end up, and `status` says what to do about it.
#[test]
fn a_row_that_holds_a_rollback_up() {
    let db = Db::new();
    Load::rows(40).into(&db);
    rekey(&db, ["run"]).exits(0);
    let id = some_ids(&db, 1, 3)[0];
    store_raw(&db, id, b"no key opens these bytes, which is what makes a quarantine");
    rekey(&db, ["rollback", "--yes"]).exits(5);
    let now = status(&db);
    assert_eq!(
        (&now["rotation"]["state"], &now["next"][0]),
        (&"rolling_back".into(), &"rekey quarantine list".into())
    );
    rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "a test's"]).exits(0);
    assert_eq!(status(&db)["next"], json!(["rekey rollback --yes"]));
    rekey(&db, ["rollback", "--yes"]).exits(0);
}

/// What was accepted is bytes that nobody can read. A credential that the user saved since is another matter.
#[test]
fn an_acceptance_does_not_cover_what_was_saved_later() {
    let db = Db::new();
    Load::rows(40).into(&db);
    let id = some_ids(&db, 1, 3)[0];
    let good = stored(&db, id).expect("a credential");
    store_raw(&db, id, b"no key opens these bytes, which is what makes a quarantine");
    rekey(&db, ["run"]).exits(5);
    rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "a test's"]).exits(0);
    store_raw(&db, id, &good);
    db.execute(&format!("ALTER TABLE provider_connections ADD CHECK (id <> '{id}') NOT VALID"));
    rekey(&db, ["run"]).exits(5);
    let listed = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    assert_eq!(
        (&listed[0]["accepted"], &listed[0]["accepted_by"]),
        (&false.into(), &Value::Null),
        "{listed:#}"
    );
}
