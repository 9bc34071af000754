//! One run without trouble: every shape of data ends on the new key with the same bytes, and the numbers are true.

use crate::support::load::Load;
use crate::support::{Db, Ids, Judge, NEW, OLD, rekey, state, status, total};
use serde_json::Value;

fn migrates(load: Load, arguments: [&str; 4]) {
    let db = Db::new();
    load.into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let outcome = rekey(&db, ["run"]).args(arguments).exits(0);
    outcome.says_none_of(&[OLD, NEW]);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), judge.openable() as i64);
    assert_eq!(total(&db, "already_on_key"), 0);
    assert_eq!(
        total(&db, "null"),
        db.value::<i64>("SELECT count(*) FROM provider_connections") - judge.openable() as i64
    );
    assert_eq!(total(&db, "quarantined"), 0);
    assert_eq!(state(&db), "migrated");
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn all_credential_types_with_ids_that_follow_the_heap() {
    migrates(Load::rows(5000).mixed().nulls(7), ["--workers", "2", "--batch-rows", "500"]);
}

#[test]
fn scattered_ids() {
    migrates(Load::rows(6000).ids(Ids::V4).nulls(3), ["--workers", "2", "--chunk-rows", "1000"]);
}

#[test]
fn ids_of_both_versions() {
    migrates(Load::rows(4000).ids(Ids::Half), ["--workers", "3", "--chunk-rows", "700"]);
}

#[test]
fn one_worker_and_tiny_steps() {
    migrates(Load::rows(700), ["--workers", "1", "--batch-rows", "1"]);
}

#[test]
fn many_workers_and_few_rows() {
    migrates(Load::rows(3), ["--workers", "8", "--chunk-rows", "1"]);
}

#[test]
fn ids_at_the_very_edges_of_the_space() {
    let db = Db::new();
    Load::rows(500).into(&db);
    for (row, id) in
        [(0, "00000000-0000-0000-0000-000000000000"), (250, "ffffffff-ffff-ffff-ffff-ffffffffffff")]
    {
        db.execute(&format!(
            "UPDATE provider_connections SET id = '{id}' WHERE id =
                (SELECT id FROM provider_connections ORDER BY created_at OFFSET {row} LIMIT 1)"
        ));
    }
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run", "--chunk-rows", "50"]).exits(0);
    judge.all_on(&db, NEW);
}

#[test]
fn a_second_run_changes_nothing() {
    let db = Db::new();
    Load::rows(800).into(&db);
    rekey(&db, ["run"]).exits(0);
    let content = db.content();
    rekey(&db, ["run"]).exits(0);
    assert_eq!(db.content(), content);
    assert_eq!(total(&db, "re_encrypted"), 800);
}

#[test]
fn a_dry_run_and_every_read_only_command_write_nothing_at_all() {
    let db = Db::new();
    Load::rows(2000).mixed().into(&db);
    let content = db.content();
    for command in [
        &["run", "--dry-run"][..],
        &["plan"],
        &["plan", "--rehearse", "200"],
        &["status"],
        &["init", "--print-sql"],
    ] {
        let outcome = match command {
            [one] => rekey(&db, [one]).exits(0),
            [one, two] => rekey(&db, [one, two]).exits(0),
            [one, two, three] => rekey(&db, [one, two, three]).exits(0),
            _ => unreachable!(),
        };
        outcome.says_none_of(&[OLD, NEW]);
        assert!(!db.has_rekey_schema(), "{outcome}");
        assert_eq!(db.content(), content, "{outcome}");
    }
    assert_eq!(db.value::<i64>("SELECT count(*) FROM audit_logs"), 0);
}

#[test]
fn the_rotation_knows_its_keys_by_fingerprint_and_shows_no_more_of_them() {
    let db = Db::new();
    Load::rows(300).into(&db);
    rekey(&db, ["run"]).exits(0);
    let rotation = &status(&db)["rotation"];
    for (role, key) in [("old_fingerprint", OLD), ("new_fingerprint", NEW)] {
        let expected = fingerprint(key);
        assert_eq!(rotation[role], Value::String(expected), "{rotation:#}");
    }
    for table in db.column::<String>("SELECT tablename::text FROM pg_tables WHERE schemaname = 'rekey'") {
        let text: Option<String> =
            db.value(&format!("SELECT string_agg(t::text, ' ') FROM rekey.\"{table}\" t"));
        let text = text.unwrap_or_default();
        for key in [OLD, NEW] {
            let mut hex = String::new();
            crate::support::credentials::hex(key.as_bytes(), &mut hex);
            assert!(!text.contains(key) && !text.contains(&hex), "a key stands in rekey.{table}");
        }
    }
}

/// First 8 bytes, in hex, of HMAC-SHA-256(key, "rekey fingerprint v1").
fn fingerprint(key: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, b"rekey fingerprint v1");
    let mut hex = String::new();
    crate::support::credentials::hex(&tag.as_ref()[..8], &mut hex);
    hex
}

#[test]
fn the_applications_audit_trail_tells_of_the_run() {
    let db = Db::new();
    Load::rows(100).into(&db);
    rekey(&db, ["run", "--operator", "maria", "--reason", "yearly rotation"]).exits(0);
    let context: Vec<String> = db.column("SELECT context::text FROM audit_logs");
    assert!(!context.is_empty());
    assert!(
        context.iter().any(|context| context.contains("maria") && context.contains("yearly rotation")),
        "{context:?}"
    );
    let odd: i64 = db.value("SELECT count(*) FROM audit_logs WHERE json_typeof(context) <> 'object'");
    assert_eq!(odd, 0);
}
