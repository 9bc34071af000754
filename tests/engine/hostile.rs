//! Tables that bear the name and are not the table, roles that may do only some of it, triggers that interfere, ids at the
//! edges, search paths that lie, and a catalogue with ten thousand tables: refused with a reason, or right all the same.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Db, Ids, Judge, NEW, OLD, Outcome, rekey, state};
use serde_json::Value;

fn loaded(rows: u64) -> Db {
    let db = Db::new();
    Load::rows(rows).into(&db);
    db
}

/// `run` and `plan` refuse with this finding, and nothing of ours is left behind.
#[track_caller]
fn refused(db: &Db, finding: &str) -> Outcome {
    let plan = rekey(db, ["plan"]).json(4);
    let findings = plan["findings"].as_array().expect("findings");
    let found = findings.iter().find(|found| found["name"] == finding && found["severity"] == "refuse");
    let found = found.unwrap_or_else(|| panic!("no {finding} in {plan:#}"));
    assert!(found["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{found:#}");
    let outcome = rekey(db, ["run"]).exits(4);
    assert!(!db.has_rekey_schema(), "{outcome}");
    outcome
}

#[test]
fn what_only_bears_the_tables_name() {
    let renamed = "ALTER TABLE provider_connections RENAME TO really; ";
    for instead in [
        "CREATE TABLE provider_connections (LIKE really) PARTITION BY RANGE (created_at)",
        "CREATE MATERIALIZED VIEW provider_connections AS SELECT * FROM really",
        "CREATE TABLE provider_connections (LIKE really INCLUDING ALL) INHERITS (really)",
        "CREATE SEQUENCE provider_connections",
        "CREATE TYPE provider_connections AS (id uuid, encrypted_credentials bytea)",
        "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER away FOREIGN DATA WRAPPER away; \
         CREATE FOREIGN TABLE provider_connections (id uuid, encrypted_credentials bytea) SERVER away",
    ] {
        let db = loaded(20);
        db.execute(&format!("{renamed}{instead}"));
        let outcome = refused(&db, "table");
        assert!(outcome.stderr.contains("provider_connections"), "{outcome}");
    }
}

#[test]
fn columns_that_are_not_the_columns() {
    for (change, finding) in [
        (
            "ALTER TABLE provider_connections ALTER COLUMN encrypted_credentials TYPE text USING 'x'",
            "columns",
        ),
        (
            "CREATE DOMAIN sealed AS bytea; \
             ALTER TABLE provider_connections ALTER COLUMN encrypted_credentials TYPE sealed",
            "columns",
        ),
        (
            "ALTER TABLE provider_connections DROP CONSTRAINT provider_connections_pkey; \
             ALTER TABLE provider_connections ADD PRIMARY KEY (id, user_id)",
            "columns",
        ),
        (
            "ALTER TABLE provider_connections DROP COLUMN encrypted_credentials; ALTER TABLE provider_connections \
             ADD COLUMN encrypted_credentials bytea GENERATED ALWAYS AS (alias::bytea) STORED",
            "columns",
        ),
    ] {
        let db = loaded(20);
        db.execute(change);
        refused(&db, finding);
    }
}

/// Columns of other orders and ages, defaults, a deferred key and a compressed column are nobody's concern.
#[test]
fn a_table_with_a_past() {
    let db = loaded(400);
    db.execute(
        "ALTER TABLE provider_connections ADD COLUMN first text DEFAULT 'x', DROP COLUMN alias;
         ALTER TABLE provider_connections ADD COLUMN old_credentials bytea;
         UPDATE provider_connections SET old_credentials = encrypted_credentials;
         ALTER TABLE provider_connections DROP COLUMN encrypted_credentials;
         ALTER TABLE provider_connections RENAME old_credentials TO encrypted_credentials;
         ALTER TABLE provider_connections ALTER COLUMN encrypted_credentials SET STORAGE EXTERNAL;
         ALTER TABLE provider_connections DROP CONSTRAINT provider_connections_pkey;
         ALTER TABLE provider_connections ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED;
         ALTER TABLE provider_connections ADD CHECK (length(encrypted_credentials) < 10000)",
    );
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
}

/// A role of one's own for this database, and the URL that logs it in.
fn role(db: &Db, grants: &str) -> String {
    let role = format!("{}_role", db.name);
    db.execute(&format!("CREATE ROLE {role} LOGIN; {}", grants.replace("ROLE", &role)));
    db.url.replace("postgres@", &format!("{role}@"))
}

/// Row-level security in any form that can hide a row or an update from us is refused, whomever it is meant for.
#[test]
fn row_level_security_on_reading_or_on_writing_only() {
    for policy in [
        "CREATE POLICY a_few ON provider_connections FOR SELECT USING (status = 'active'); \
         CREATE POLICY others ON provider_connections FOR UPDATE USING (true)",
        "CREATE POLICY all_rows ON provider_connections FOR SELECT USING (true); \
         CREATE POLICY a_few ON provider_connections FOR UPDATE USING (status = 'active')",
        "CREATE POLICY all_rows ON provider_connections FOR SELECT USING (true); \
         CREATE POLICY checked ON provider_connections FOR UPDATE USING (true) WITH CHECK (status = 'active')",
        "CREATE POLICY all_rows ON provider_connections USING (true); \
         CREATE POLICY a_few ON provider_connections AS RESTRICTIVE USING (status = 'active')",
    ] {
        let db = loaded(100);
        db.execute(&format!("ALTER TABLE provider_connections ENABLE ROW LEVEL SECURITY; {policy}"));
        let url = role(
            &db,
            &format!(
                "GRANT SELECT, UPDATE ON provider_connections TO ROLE; GRANT CREATE ON DATABASE {} TO ROLE",
                db.name
            ),
        );
        let content = db.content();
        let outcome = rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(4);
        assert!(outcome.stderr.contains("row-security"), "{outcome}");
        assert_eq!(db.content(), content);
        // The table's owner is not subject to it, unless it says so.
        db.execute(&format!("ALTER TABLE provider_connections OWNER TO {}_role", db.name));
        db.execute("ALTER TABLE provider_connections FORCE ROW LEVEL SECURITY");
        rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(4);
        db.execute("ALTER TABLE provider_connections NO FORCE ROW LEVEL SECURITY");
        let mut judge = Judge::look(&db, &[OLD]);
        rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(0);
        judge.all_on(&db, NEW);
    }
}

/// From no privilege at all, doing what each refusal says ends in a run: no remedy is wrong, none is missing.
#[test]
fn the_remedies_of_missing_privileges_lead_to_a_run() {
    let db = loaded(200);
    db.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let url = role(&db, "SELECT 'nothing for ROLE'");
    let plan = || rekey(&db, ["plan", "--output", "json"]).env("DATABASE_URL", &url).run();
    let mut granted = Vec::new();
    loop {
        let run = rekey(&db, ["run"]).env("DATABASE_URL", &url).run();
        if run.code() == Some(0) {
            break;
        }
        let run = run.expect(4);
        assert!(!db.has_rekey_schema(), "{run}");
        // Findings of `plan` also say what a run would lack, as notes.
        let said = format!("{}{}", run.stderr, plan().stdout);
        let grants: Vec<String> = said
            .split("GRANT ")
            .skip(1)
            .filter_map(|rest| Some(rest.split(&['"', '\n', ';', ','][..]).next()?.to_owned()))
            .filter(|grant| grant.contains(" ON ") && grant.contains("_role"))
            .map(|grant| format!("GRANT {}", grant.split("_role").next().unwrap_or_default()) + "_role")
            .filter(|grant| !granted.contains(grant))
            .collect();
        assert!(!grants.is_empty(), "no new remedy in\n{run}\n{granted:?}");
        for grant in grants {
            db.execute(&grant);
            granted.push(grant);
        }
        assert!(granted.len() < 20, "{granted:?}");
    }
    assert!(granted.len() >= 3, "{granted:?}");
    assert_eq!(state(&db), "migrated");
}

fn trigger(db: &Db, when: &str, body: &str) {
    db.execute(&format!(
        "CREATE FUNCTION interfere() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
         CREATE TRIGGER interfere {when} ON provider_connections FOR EACH ROW EXECUTE FUNCTION interfere()"
    ));
}

/// Allowed triggers that undo or change what we write must not be taken for success: no row may be lost, and a run that
/// says 0 has every row on the new key.
#[test]
fn triggers_that_alter_what_is_written() {
    for (when, body) in [
        // "This column is immutable": the old value stays, and the row counts as updated.
        ("BEFORE UPDATE", "NEW.encrypted_credentials := OLD.encrypted_credentials; RETURN NEW;"),
        ("BEFORE UPDATE", "NEW := OLD; RETURN NEW;"),
        ("BEFORE UPDATE", "NEW.encrypted_credentials := '\\x00'; RETURN NEW;"),
        ("BEFORE UPDATE", "NEW.encrypted_credentials := NULL; RETURN NEW;"),
        ("BEFORE UPDATE", "NEW.encrypted_credentials := NEW.encrypted_credentials || '\\x00'; RETURN NEW;"),
        // Some rows only.
        (
            "BEFORE UPDATE",
            "IF OLD.id::text LIKE '%7' THEN NEW.encrypted_credentials := OLD.encrypted_credentials; END IF; RETURN NEW;",
        ),
        ("BEFORE UPDATE", "IF OLD.id::text LIKE '%7' THEN RETURN NULL; END IF; RETURN NEW;"),
        ("AFTER UPDATE", "RAISE EXCEPTION 'no'; RETURN NULL;"),
    ] {
        let db = loaded(300);
        trigger(&db, when, body);
        let code = if body.starts_with("RAISE") { 5 } else { 4 };
        let mut judge = Judge::look(&db, &[OLD]);
        let outcome = rekey(&db, ["run", "--allow", "user-triggers"]).run();
        judge.none_lost(&db, &[OLD, NEW]);
        assert_eq!(outcome.code(), Some(code), "{body}: {outcome}");
    }
}

/// Triggers that only touch other columns, or other tables, are fine once they are allowed.
#[test]
fn triggers_that_alter_something_else() {
    for (when, body) in [
        ("BEFORE UPDATE", "NEW.updated_at := clock_timestamp(); RETURN NEW;"),
        (
            "AFTER UPDATE",
            "UPDATE provider_connections SET alias = 'seen' WHERE id = NEW.id AND alias IS DISTINCT FROM 'seen'; RETURN NULL;",
        ),
        ("AFTER UPDATE", "UPDATE users SET updated_at = now() WHERE id = NEW.user_id; RETURN NULL;"),
    ] {
        let db = loaded(300);
        trigger(&db, when, body);
        let mut judge = Judge::look(&db, &[OLD]);
        let ids = crate::support::load::ids(&db);
        ids.iter().for_each(|id| judge.expect_touched(*id));
        rekey(&db, ["run", "--allow", "user-triggers"]).exits(0);
        judge.all_on(&db, NEW);
        rekey(&db, ["verify"]).exits(0);
    }
}

/// Functions of ours to be would be found first: every name we use must mean the system's own.
#[test]
fn a_search_path_that_lies() {
    let db = loaded(200);
    db.execute(
        "CREATE SCHEMA hostile;
         CREATE FUNCTION hostile.substr(bytea, int, int) RETURNS bytea LANGUAGE sql AS $$ SELECT '\\x00'::bytea $$;
         CREATE FUNCTION hostile.octet_length(bytea) RETURNS int LANGUAGE sql AS $$ SELECT NULL::int $$;
         CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;
         CREATE FUNCTION hostile.pg_current_snapshot() RETURNS pg_snapshot LANGUAGE sql AS $$ SELECT NULL::pg_snapshot $$;
         CREATE FUNCTION hostile.same(uuid, uuid) RETURNS bool LANGUAGE sql AS $$ SELECT false $$;
         CREATE OPERATOR hostile.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = hostile.same);
         CREATE TABLE hostile.provider_connections (LIKE public.provider_connections)",
    );
    // rekey's role alone is lied to, not the judge.
    let role = format!("lied_to_{}", db.name);
    db.execute(&format!(
        "CREATE ROLE {role} SUPERUSER LOGIN; ALTER ROLE {role} SET search_path = hostile, pg_catalog"
    ));
    let url = db.url.replace("//postgres@", &format!("//{role}@"));
    let lied_to = |command: &[&str]| rekey(&db, []).more(command).env("DATABASE_URL", &url);
    let mut judge = Judge::look(&db, &[OLD]);
    lied_to(&["run"]).exits(0);
    lied_to(&["verify"]).exits(0);
    judge.all_on(&db, NEW);
    lied_to(&["rollback", "--yes"]).exits(0);
    judge.all_on(&db, OLD);
}

/// The first and the last id there can be.
fn with_ids_at_both_ends(db: &Db) {
    let (nil, max) = ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff");
    db.execute(&format!(
        "UPDATE provider_connections SET id = '{nil}' WHERE id = (SELECT min(id::text)::uuid FROM provider_connections);
         UPDATE provider_connections SET id = '{max}' WHERE id = (SELECT max(id::text)::uuid FROM provider_connections)"
    ));
}

/// Every row, there and back, in such chunks and batches.
fn there_and_back(db: &Db, addressing: &str, steps: [&str; 4]) {
    let mut judge = Judge::look(db, &[OLD]);
    rekey(db, ["run", "--dry-run"]).args(steps).exits(0);
    rekey(db, ["run"]).args(steps).exits(0);
    judge.all_on(db, NEW);
    assert_eq!(db.value::<String>("SELECT addressing FROM rekey.passes WHERE pass = 1"), addressing);
    let verified = rekey(db, ["verify"]).json(0);
    assert_eq!(verified["identical"], judge.openable(), "{verified:#}");
    rekey(db, ["rollback", "--yes"]).args(steps).exits(0);
    judge.all_on(db, OLD);
}

/// Alone, as a chunk's bounds, and in its midst.
#[test]
fn ids_at_both_ends_as_bounds_of_chunks() {
    for (rows, chunk) in [(2, "1"), (2, "2"), (3, "2"), (65, "64"), (130, "64")] {
        let db = loaded(rows);
        with_ids_at_both_ends(&db);
        there_and_back(&db, "keys", ["--chunk-rows", chunk, "--batch-rows", "1"]);
    }
}

/// Rows so wide that a few of them fill more than the 256 pages that blocks are for.
#[test]
fn ids_at_both_ends_by_blocks() {
    let db = Db::new();
    Load::rows(1300).bytes(1500).ids(Ids::V4).into(&db);
    with_ids_at_both_ends(&db);
    there_and_back(&db, "blocks", ["--chunk-rows", "200", "--batch-rows", "50"]);
}

#[test]
fn not_one_row_has_a_credential() {
    let db = Db::new();
    Load::rows(300).nulls(100).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let run = rekey(&db, ["run"]).json(0);
    assert_eq!((&run["totals"]["re_encrypted"], &run["totals"]["null"]), (&0.into(), &300.into()), "{run:#}");
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}

/// A whole life, and how long each command of it takes.
fn timed(db: &Db) -> Vec<(&'static str, Duration)> {
    let commands = ["plan", "run", "status", "verify"];
    commands.map(|command| (command, rekey(db, [command]).exits(0).took)).into()
}

/// The catalogue is asked by name, never walked.
#[test]
fn ten_thousand_other_tables() {
    let small = timed(&loaded(300));
    let db = loaded(300);
    db.execute(
        "DO $$ BEGIN FOR n IN 1..10000 LOOP EXECUTE 'CREATE TABLE other_' || n || ' (n int)';
         IF n % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$",
    );
    let mut judge = Judge::look(&db, &[OLD]);
    for ((command, took), (_, alone)) in timed(&db).into_iter().zip(small) {
        assert!(
            took < alone * 10 + Duration::from_secs(5),
            "{command}: {took:?}, and {alone:?} without them"
        );
    }
    judge.all_on(&db, NEW);
    let plan: Value = rekey(&db, ["plan"]).json(0);
    assert!(plan["findings"].is_array());
}
