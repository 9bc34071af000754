//! Indexes over the credential, other tables with one, and constraints that reject rows which are there already.

use serde_json::Value;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, rekey};

fn loaded(rows: u64) -> Db {
    let db = Db::new();
    Load::rows(rows).into(&db);
    db
}

fn finding(db: &Db, name: &str) -> Option<Value> {
    let plan = rekey(db, ["plan"]).json(0);
    let findings = plan["findings"].as_array().expect("findings");
    findings.iter().find(|found| found["name"] == name).cloned()
}

#[test]
fn every_kind_of_index_over_the_credential_is_named_with_its_cost() {
    for (setup, index) in [
        ("ALTER TABLE provider_connections ADD CONSTRAINT one_each UNIQUE (encrypted_credentials)", "one_each"),
        ("CREATE UNIQUE INDEX by_hash ON provider_connections (md5(encrypted_credentials))", "by_hash"),
        ("CREATE INDEX beside ON provider_connections (status) INCLUDE (encrypted_credentials)", "beside"),
        ("CREATE INDEX filled ON provider_connections (status) WHERE encrypted_credentials IS NOT NULL", "filled"),
        (
            "ALTER TABLE provider_connections ADD size int GENERATED ALWAYS AS (length(encrypted_credentials)) STORED;
             CREATE INDEX by_size ON provider_connections (size)",
            "by_size",
        ),
        (
            "ALTER TABLE provider_connections ADD CONSTRAINT none_twice EXCLUDE USING hash (encrypted_credentials WITH =)",
            "none_twice",
        ),
    ] {
        let db = loaded(60);
        assert!(finding(&db, "indexed-column").is_none());
        db.execute(setup);
        let found = finding(&db, "indexed-column").unwrap_or_else(|| panic!("{setup}"));
        let message = found["message"].as_str().expect("text");
        assert!(message.contains(index) && message.contains("no update is HOT"), "{found:#}");
        let mut judge = Judge::look(&db, &[OLD]);
        rekey(&db, ["run"]).exits(0);
        judge.all_on(&db, NEW);
    }
}

#[test]
fn other_tables_with_credentials_are_named() {
    let db = loaded(60);
    assert!(finding(&db, "other-credentials").is_none());
    db.execute(
        "CREATE SCHEMA tenant_7; CREATE TABLE tenant_7.provider_connections (LIKE provider_connections);
         CREATE TABLE connections_history (at timestamptz, encrypted_credentials bytea) PARTITION BY RANGE (at);
         CREATE TABLE history_1 PARTITION OF connections_history DEFAULT;
         CREATE VIEW shown AS SELECT encrypted_credentials FROM provider_connections;
         CREATE MATERIALIZED VIEW kept AS SELECT encrypted_credentials FROM provider_connections",
    );
    let found = finding(&db, "other-credentials").expect("a finding");
    let message = found["message"].as_str().expect("text");
    assert!(
        message.starts_with(
            "public.connections_history, public.kept, tenant_7.provider_connections also have a column"
        ),
        "{found:#}"
    );
    let run = rekey(&db, ["run"]).exits(0);
    assert!(run.stderr.contains("tenant_7.provider_connections"), "{run}");
}

#[test]
fn rows_that_a_constraint_rejects_are_counted_before_anything_is_written() {
    let db = loaded(400);
    let content = db.content();
    db.execute(
        "ALTER TABLE provider_connections ADD CONSTRAINT \"odd ones\" CHECK (get_byte(uuid_send(id), 15) % 2 = 0) NOT VALID;
         ALTER TABLE provider_connections ADD CONSTRAINT short CHECK (length(encrypted_credentials) < 100000);
         CREATE FUNCTION fine(uuid) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         ALTER TABLE provider_connections ADD CONSTRAINT all_fine CHECK (fine(id));
         CREATE OR REPLACE FUNCTION fine(uuid) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT get_byte(uuid_send($1), 15) <> 4'",
    );
    let breaking = "SELECT count(*) FROM provider_connections WHERE encrypted_credentials IS NOT NULL
                    AND (get_byte(uuid_send(id), 15) % 2 = 1 OR get_byte(uuid_send(id), 15) = 4)";
    let rows: i64 = db.value(breaking);
    assert!(rows > 100);
    let plan = rekey(&db, ["plan"]).json(0);
    assert_eq!(plan["rejected_rows"], rows, "{plan:#}");
    let text = plan["findings"].to_string();
    assert!(
        text.contains("\\\"odd ones\\\"") && text.contains("all_fine") && !text.contains("short"),
        "{plan:#}"
    );
    let dry = rekey(&db, ["run", "--dry-run"]).json(5);
    assert_eq!(dry["rejected_rows"], rows, "{dry:#}");
    assert_eq!(db.content(), content);
    rekey(&db, ["run"]).exits(5);
    let quarantined: i64 = db.value("SELECT count(*) FROM rekey.quarantine");
    assert_eq!(quarantined, rows);
}
