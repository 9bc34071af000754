//! The audit trail against whoever may reach the database: who may append, what an event records, and that what the ledger
//! claims counts only with its event.

use std::time::Duration;

use crate::support::load::{Load, some_ids, store_raw};
use crate::support::{Db, block_on, rekey, until};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// One row that no key opens, found by a run.
fn quarantined() -> (Db, Uuid) {
    let db = Db::new();
    Load::rows(300).into(&db);
    let id = some_ids(&db, 1, 3)[0];
    store_raw(&db, id, &[9; 60]);
    rekey(&db, ["run"]).exits(5);
    rekey(&db, ["verify"]).exits(5);
    (db, id)
}

fn accept(db: &Db, id: Uuid) {
    rekey(db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "the user has left"]).exits(0);
}

/// A session of a login of its own, which may read everything and nothing more.
fn stranger(db: &Db, login: &str) -> PgConnection {
    db.execute(&format!("DROP ROLE IF EXISTS {login}; CREATE ROLE {login} LOGIN IN ROLE pg_read_all_data"));
    let url = db.url.replace("//postgres@", &format!("//{login}@"));
    block_on(PgConnection::connect(&url)).expect("the stranger's session")
}

const FORGED: &str = "SELECT rekey.append_event(NULL, 'finalized', 'alice', NULL, '{}')";

#[test]
fn only_rekeys_roles_append_and_the_server_says_who_did() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run", "--operator", "alice"]).exits(0);
    let mut eve = stranger(&db, "eve_reads_all");
    let refused = block_on(sqlx::raw_sql(FORGED).execute(&mut eve)).unwrap_err();
    assert_eq!(refused.as_database_error().and_then(|e| e.code()).as_deref(), Some("42501"), "{refused}");
    // A role that may append cannot do it under another login's name.
    db.execute("GRANT USAGE ON SCHEMA rekey TO eve_reads_all");
    db.execute(
        "GRANT EXECUTE ON FUNCTION rekey.append_event(uuid, text, text, text, jsonb) TO eve_reads_all",
    );
    block_on(sqlx::raw_sql(FORGED).execute(&mut eve)).expect("she may now");
    let who = |action: &str| {
        let sql = "SELECT login || ' ' || coalesce(address, 'local') FROM rekey.events WHERE action = '{}' ORDER BY seq LIMIT 1";
        db.value::<String>(&sql.replace("{}", action))
    };
    assert!(who("finalized").starts_with("eve_reads_all "), "{}", who("finalized"));
    assert!(who("start").starts_with("postgres "), "{}", who("start"));
    // What the server saw is part of the hash.
    let report = rekey(&db, ["report", "--format", "json", "--all"]).json(0);
    assert_eq!(report["chain"]["intact"], true, "{report:#}");
    db.execute("ALTER TABLE rekey.events DISABLE TRIGGER ALL; UPDATE rekey.events SET login = 'postgres'");
    let report = rekey(&db, ["report", "--format", "json", "--all"]).json(6);
    assert_eq!(report["chain"]["intact"], false, "{report:#}");
}

#[test]
fn every_event_in_the_report_bears_the_hash_that_was_the_head_after_it() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    let report = rekey(&db, ["report", "--format", "json"]).json(0);
    let timeline = report["rotations"][0]["timeline"].as_array().expect("a timeline").clone();
    let last = timeline.last().expect("an event");
    let head = format!("{}:{}", last["seq"], last["hash"].as_str().expect("a hash"));
    assert_eq!(report["chain"]["head"], head, "{last:#}");
    assert_eq!(last["login"], "postgres", "{last:#}");
}

#[test]
fn an_acceptance_without_its_event_counts_for_nothing() {
    let (db, _) = quarantined();
    db.execute(
        "UPDATE rekey.quarantine SET accepted_at = clock_timestamp(), accepted_by = 'alice', accept_reason = 'forged'",
    );
    rekey(&db, ["verify"]).exits(5);
    let listed = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    let entry = listed.as_array().and_then(|list| list.first()).cloned().unwrap_or(Value::Null);
    assert_eq!(
        (&entry["accepted"], &entry["without_event"]),
        (&Value::from(false), &Value::from(true)),
        "{entry:#}"
    );
    // An event that names no content is refused by the server, so that an old form cannot be forged.
    let forged = "SELECT rekey.append_event(rotation, 'accept', 'alice', NULL, jsonb_build_object('id', row_id)) FROM rekey.quarantine";
    let refused = db.try_value::<Vec<u8>>(forged).unwrap_err();
    assert!(refused.to_string().contains("content"), "{refused}");
}

#[test]
fn an_acceptance_that_0_1_0_recorded_is_carried_on() {
    let (db, id) = quarantined();
    accept(&db, id);
    // As 0.1.0 wrote it: no content, here or there.
    db.execute(
        "ALTER TABLE rekey.events DISABLE TRIGGER ALL; UPDATE rekey.quarantine SET content = NULL; \
         UPDATE rekey.events SET detail = detail - 'content' WHERE action = 'accept'",
    );
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn an_acceptance_holds_for_the_content_it_was_given_for() {
    let (db, id) = quarantined();
    accept(&db, id);
    rekey(&db, ["verify"]).exits(0);
    // Something else that no key opens is something else.
    store_raw(&db, id, &[8; 60]);
    rekey(&db, ["verify"]).exits(5);
    rekey(&db, ["run"]).exits(5);
    let listed = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    assert_eq!(listed[0]["accepted"], false, "{listed:#}");
    accept(&db, id);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn whoever_holds_the_head_of_the_trail_is_named() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    let mut hold = db.hold();
    hold.execute(sqlx::query("SET application_name = 'a forgotten psql'"));
    hold.execute(sqlx::query("SELECT FROM rekey.chain FOR UPDATE"));
    let pid = hold.pid();
    let outcome = rekey(&db, ["pause"]).start().wait_for(Duration::from_secs(20)).expect(69);
    for word in [format!("pid {pid}"), "a forgotten psql".into(), "idle in transaction".into()] {
        assert!(outcome.stderr.contains(&word), "{word} is missing:\n{outcome}");
    }
    hold.rollback();
    until("the head to be free", Duration::from_secs(5), || {
        rekey(&db, ["pause"]).run().code().filter(|code| *code == 0)
    });
}

#[test]
fn a_head_that_was_noted_is_looked_for() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    let noted: String = db.value("SELECT seq || ':' || encode(hash, 'hex') FROM rekey.chain");
    rekey(&db, ["verify"]).exits(0);
    let report = rekey(&db, ["report", "--expect", &noted]).json(0);
    assert_eq!(report["expected"]["contained"], true, "{report:#}");
    // Whoever owns the tables writes the chain anew: it is intact, and it is not the one that was noted.
    db.execute(
        "ALTER TABLE rekey.events DISABLE TRIGGER ALL; UPDATE rekey.events SET operator = 'nobody';
         DO $$ DECLARE e rekey.events; head bytea := sha256('rekey event chain v1'::bytea);
         BEGIN FOR e IN SELECT * FROM rekey.events ORDER BY seq LOOP
             head := rekey.event_hash(head, e);
             UPDATE rekey.events SET hash = head WHERE seq = e.seq;
         END LOOP; UPDATE rekey.chain SET hash = head; END $$",
    );
    let report = rekey(&db, ["report"]).json(0);
    assert_eq!(report["chain"]["intact"], true, "{report:#}");
    let report = rekey(&db, ["report", "--expect", &noted]).json(6);
    assert_eq!(report["expected"]["contained"], false, "{report:#}");
    rekey(&db, ["report", "--expect", "12"]).exits(2);
}

#[test]
fn what_is_there_to_be_pasted_or_read_does_nothing_by_itself() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run", "--operator", "eve\u{1b}[2J\u{9b}31m\u{202e}"]).exits(0);
    db.execute("UPDATE rekey.rotations SET old_arn = 'arn:aws:s:eu-1:1:secret:x$(touch /tmp/pasted)'");
    let report = rekey(&db, ["report"]).json(0);
    let command = report["cloudtrail"][0].as_str().expect("a command").to_owned();
    let words = std::process::Command::new("sh")
        .args(["-c", &format!("printf '%s\\n' {command}")])
        .output()
        .expect("a shell");
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(words.contains("x$(touch /tmp/pasted)"), "{words}");
    for command in [&["status"][..], &["report"], &["report", "--format", "html"]] {
        let outcome = rekey(&db, []).more(command).exits(0);
        let acts = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
        assert!(!outcome.stdout.contains(acts), "{command:?}: {:?}", outcome.stdout);
    }
}

/// The row of a rotation is a table's, and its events are the trail's: what keys and rows are moved by is in both, or it is
/// refused; what only describes is looked at anew.
#[test]
fn what_the_ledger_claims_and_the_trail_contradicts_is_not_acted_upon() {
    type Case<'a> = (&'a str, &'a str, &'a [&'a [&'a str]], &'a [&'a str]);
    const ALL: &[&[&str]] =
        &[&["run"], &["promote", "--external", "--yes"], &["rollback", "--yes"], &["finalize", "--yes"]];
    let cases: [Case<'_>; 7] = [
        ("state = 'finalizing'", "state", ALL, &["finalizing", "migrated"]),
        ("state = 'promoted'", "state", ALL, &["promoted", "migrated"]),
        ("state = 'rolled_back'", "state", ALL, &["rolled_back", "migrated"]),
        ("new_fingerprint = '00112233aabbccdd'", "keys", ALL, &["keys"]),
        ("promoting_at = clock_timestamp()", "promotion", ALL, &["promoted"]),
        (
            "verified_at = clock_timestamp(), verified_clean = true, verify_result = '{}'",
            "verify",
            &[],
            &["verify"],
        ),
        ("new_arn = 'arn:aws:secretsmanager:eu-west-1:1:secret:other'", "secrets", &[], &["secrets"]),
    ];
    for (change, claim, refused, words) in cases {
        let db = Db::new();
        Load::rows(20).into(&db);
        rekey(&db, ["run"]).exits(0);
        let agrees = rekey(&db, ["status"]).json(0);
        assert_eq!(agrees["contradictions"], serde_json::json!([]), "{agrees:#}");
        db.execute(&format!("UPDATE rekey.rotations SET {change}"));
        let seen = rekey(&db, ["status"]).json(0);
        assert_eq!(seen["contradictions"][0]["claim"], claim, "{change}: {seen:#}");
        let text = rekey(&db, ["status", "--output", "text"]).run();
        for word in words {
            assert!(text.stdout.contains(word), "{change}: {word} is missing:\n{text}");
        }
        for command in refused {
            let outcome = rekey(&db, []).more(command).exits(7);
            assert!(outcome.stderr.contains("audit trail"), "{change}: {outcome}");
        }
        assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.rotations"), 1, "{change}");
        let report = rekey(&db, ["report"]).json(if refused.is_empty() && claim != "verify" { 0 } else { 6 });
        assert_eq!(report["rotations"][0]["contradictions"][0]["claim"], claim, "{change}");
    }
}

/// A verify that is only in the table is none: what is offered next is to verify, and no evidence names it.
#[test]
fn a_verify_without_its_event_counts_for_nothing() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    let id = some_ids(&db, 1, 3)[0];
    store_raw(&db, id, &[9; 60]);
    rekey(&db, ["verify"]).exits(5);
    db.execute("UPDATE rekey.rotations SET verified_clean = true, verify_result = verify_result || '{\"clean\": true}'");
    let report = rekey(&db, ["report"]).json(6);
    assert!(!report.to_string().contains("clean verify at"), "{report:#}");
    let next = rekey(&db, ["status"]).json(0)["next"].to_string();
    assert!(next.contains("verify"), "{next}");
    // Made again, and recorded with its event, it counts.
    db.execute(&format!("DELETE FROM provider_connections WHERE id = '{id}'"));
    rekey(&db, ["verify"]).exits(0);
    assert_eq!(rekey(&db, ["status"]).json(0)["contradictions"], serde_json::json!([]));
    rekey(&db, ["report"]).exits(0);
}

/// A compromise that was taken back in the table is still one.
#[test]
fn a_compromise_is_not_taken_back_by_an_update() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run", "--compromised"]).exits(0);
    db.execute("UPDATE rekey.rotations SET compromised = false");
    rekey(&db, ["rollback", "--yes"]).exits(2);
    assert_eq!(rekey(&db, ["status"]).json(0)["contradictions"][0]["claim"], "compromised");
    assert_eq!(rekey(&db, ["report", "--affected"]).json(0)["compromised"], true);
    rekey(&db, ["rollback", "--yes", "--i-know-the-old-key-is-compromised"]).exits(0);
    // Its pair stays used up, whatever the table says.
    db.execute("UPDATE rekey.rotations SET compromised = false");
    let same = rekey(&db, ["run"]).exits(3);
    assert!(same.stderr.contains("was compromised and had this same pair"), "{same}");
}

/// Exit 8 names whose session it is and what ends it, and does not take another program's lock for rekey's.
#[test]
fn whoever_holds_the_lock_of_promotions_is_named() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    for (name, words) in [
        ("rekey pod-7-123-abcd by alice", ["another process is promoting", "by alice"]),
        ("their nightly job", ["not rekey's", "their nightly job"]),
    ] {
        let mut hold = db.hold();
        let pid = hold.pid();
        hold.execute(sqlx::query("SELECT set_config('application_name', $1, false)").bind(name));
        hold.execute(sqlx::query("SELECT pg_advisory_xact_lock(x'72656b6579'::bigint + 2)"));
        for command in [["promote", "--external", "--yes"], ["rollback", "--yes", "--workers=1"]] {
            let busy = rekey(&db, command).exits(8);
            for word in words.iter().map(ToString::to_string).chain([
                format!("pid {pid}"),
                "since 20".into(),
                "login postgres".into(),
                format!("pg_terminate_backend({pid})"),
            ]) {
                assert!(busy.stderr.contains(&word), "{word} is missing:\n{busy}");
            }
        }
        hold.rollback();
    }
}
