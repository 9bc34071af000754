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
    rekey(db, ["quarantine", "accept", &id.to_string(), "--reason", "the user has left"]).exits(0);
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
    let listed = rekey(&db, ["quarantine", "list"]).json(0);
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
    let listed = rekey(&db, ["quarantine", "list"]).json(0);
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
