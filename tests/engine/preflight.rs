//! What `run` and `plan` refuse before anything is written: exit 4, every finding at once, each with its name and remedy.

mod changed;
mod columns;
mod copies;
mod forecast;
mod publications;
mod remarks;
mod schema;
mod tls;
mod trail;
mod triggers;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, Outcome, rekey};

/// `run`, `run --dry-run` and `plan` refuse, with this finding; nothing is written.
#[track_caller]
pub fn refused(db: &Db, finding: &str) -> Outcome {
    let plan = rekey(db, ["plan"]).json(4);
    let findings = plan["findings"].as_array().expect("findings");
    let found = findings.iter().any(|found| found["name"] == finding && found["severity"] == "refuse");
    assert!(found, "no {finding} in {plan:#}");
    let told = format!("  {finding}: ");
    let dry = rekey(db, ["run", "--dry-run"]).exits(4);
    assert!(dry.stderr.contains(&told), "it should name {finding}:\n{dry}");
    let outcome = rekey(db, ["run"]).exits(4);
    assert!(outcome.stderr.contains(&told), "it should name {finding}:\n{outcome}");
    assert!(!db.has_rekey_schema(), "{outcome}");
    outcome
}

#[test]
fn an_empty_table() {
    let db = Db::new();
    refused(&db, "empty-table");
    rekey(&db, ["run", "--allow", "empty-table"]).exits(0);
}

#[test]
fn no_table_at_all() {
    let db = Db::new();
    db.execute("DROP TABLE provider_connections");
    let outcome = refused(&db, "table");
    assert!(outcome.stderr.contains("This database has no table public.provider_connections"), "{outcome}");
}

#[test]
fn a_view_in_its_place() {
    let db = Db::new();
    db.execute("ALTER TABLE provider_connections RENAME TO really; CREATE VIEW provider_connections AS SELECT * FROM really");
    let outcome = refused(&db, "table");
    assert!(outcome.stderr.contains("provider_connections is a view"), "{outcome}");
}

#[test]
fn a_table_of_another_shape() {
    for (change, told) in [
        ("DROP COLUMN encrypted_credentials", "has no column encrypted_credentials"),
        ("ALTER COLUMN encrypted_credentials TYPE text USING 'x'", "has type text, not bytea"),
        (
            "DROP CONSTRAINT provider_connections_pkey",
            "The primary key of public.provider_connections is none",
        ),
        ("ALTER COLUMN id TYPE text", "has type text, not uuid"),
    ] {
        let db = Db::new();
        Load::rows(20).into(&db);
        db.execute(&format!("ALTER TABLE provider_connections {change}"));
        let outcome = refused(&db, "columns");
        assert!(outcome.stderr.contains(told), "{change}: {outcome}");
    }
}

#[test]
fn user_triggers_unless_allowed() {
    let db = Db::new();
    Load::rows(200).into(&db);
    db.execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER touch BEFORE UPDATE ON provider_connections FOR EACH ROW EXECUTE FUNCTION touch()",
    );
    refused(&db, "user-triggers");
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run", "--allow", "user-triggers"]).exits(0);
    judge.all_on(&db, NEW);
}

/// A trigger that swallows updates: 0 rows twice with an unchanged xmin is an error, not an endless retry.
#[test]
fn a_trigger_that_swallows_updates() {
    let db = Db::new();
    Load::rows(200).into(&db);
    db.execute(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER swallow BEFORE UPDATE ON provider_connections FOR EACH ROW EXECUTE FUNCTION swallow()",
    );
    let content = db.content();
    let outcome = rekey(&db, ["run", "--allow", "user-triggers"]).exits(4);
    assert!(outcome.stderr.contains("a trigger or row-level security policy suppresses it"), "{outcome}");
    assert_eq!(db.content(), content);
}

/// A role of one's own for this database, and the URL that logs it in.
fn role(db: &Db, name: &str, grants: &str) -> String {
    let role = format!("{}_{name}", db.name);
    db.execute(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role}", db.name));
    db.execute(&grants.replace("ROLE", &role));
    db.url.replace("postgres@", &format!("{role}@"))
}

#[test]
fn row_level_security_that_hides_rows() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let url = role(
        &db,
        "tenant",
        "GRANT SELECT, UPDATE ON provider_connections TO ROLE; GRANT SELECT, INSERT ON audit_logs TO ROLE",
    );
    db.execute(
        "ALTER TABLE provider_connections ENABLE ROW LEVEL SECURITY;
         CREATE POLICY visible ON provider_connections USING (status = 'active')",
    );
    let content = db.content();
    let outcome = rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(4);
    assert!(format!("{}{}", outcome.stdout, outcome.stderr).contains("row-security"), "{outcome}");
    db.execute("DROP POLICY visible ON provider_connections");
    rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(4);
    rekey(&db, ["run", "--dry-run"]).env("DATABASE_URL", &url).exits(4);
    assert_eq!(db.content(), content);
    assert!(!db.has_rekey_schema());
}

#[test]
fn a_role_without_the_privileges() {
    let (read, write) = (
        "lacks SELECT on xmin, ctid, id, encrypted_credentials of",
        "lacks UPDATE (encrypted_credentials) on",
    );
    for (name, grants, lacks) in [
        ("none", "SELECT 'nothing for ROLE'", &[read, write][..]),
        ("reader", "GRANT SELECT ON provider_connections TO ROLE", &[write]),
        ("writer", "GRANT UPDATE ON provider_connections TO ROLE", &[read]),
    ] {
        let db = Db::new();
        Load::rows(50).into(&db);
        let url = role(&db, name, grants);
        let outcome = rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(4);
        for privilege in [read, write] {
            let told = outcome.stderr.contains(&format!("  privileges: Role {}_{name} {privilege}", db.name));
            assert_eq!(told, lacks.contains(&privilege), "{privilege}: {outcome}");
        }
        assert!(!db.has_rekey_schema(), "{outcome}");
    }
}

#[test]
fn a_role_with_just_enough() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let grants =
        "GRANT SELECT, UPDATE ON provider_connections TO ROLE; GRANT SELECT, INSERT ON audit_logs TO ROLE";
    let url = role(&db, "operator", grants);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).env("DATABASE_URL", &url).exits(0);
}

/// Both are told at once: nobody wants to find them one run at a time.
#[test]
fn all_findings_are_collected() {
    let db = Db::new();
    db.execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER touch BEFORE UPDATE ON provider_connections FOR EACH ROW EXECUTE FUNCTION touch()",
    );
    refused(&db, "user-triggers");
    refused(&db, "empty-table");
    rekey(&db, ["run", "--allow", "empty-table"]).exits(4);
    rekey(&db, ["run", "--allow", "empty-table", "--allow", "user-triggers"]).exits(0);
}

#[test]
fn an_unknown_finding_to_allow_is_a_mistake_in_usage() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run", "--allow", "everything"]).exits(2);
}

/// An audit trail that is absent, as in other deployments, stops nobody.
#[test]
fn without_audit_logs() {
    let db = Db::new();
    Load::rows(100).into(&db);
    db.execute("DROP TABLE audit_logs");
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["verify"]).exits(0);
}

#[test]
fn a_plan_forecasts_and_is_machine_readable() {
    let db = Db::new();
    Load::rows(3000).nulls(10).into(&db);
    let plan = rekey(&db, ["plan", "--rehearse", "300"]).json(0);
    assert!(plan.is_object(), "{plan:#}");
    let text = plan.to_string();
    assert!(text.contains("forecast") || text.contains("seconds"), "{plan:#}");
    assert!(!db.has_rekey_schema());
}
