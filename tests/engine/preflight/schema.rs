//! Schema `rekey` where it cannot be made as it should be: event triggers, another owner, somebody else's schema of that
//! name, row-level security on new tables.

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, rekey};

fn loaded() -> Db {
    let db = Db::new();
    Load::rows(100).into(&db);
    db
}

/// A role that may do all that a run needs but what `grants` leaves out, and the URL that logs it in.
fn login(db: &Db, name: &str, grants: &str) -> (String, String) {
    let role = format!("{}_{name}", db.name);
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON provider_connections TO {role}; {}",
        grants.replace("ROLE", &role).replace("DATABASE", &format!("DATABASE {}", db.name))
    ));
    let url = db.url.replace("postgres@", &format!("{role}@"));
    (role, url)
}

#[test]
fn an_event_trigger_that_forbids_ddl_is_named() {
    let db = loaded();
    db.execute(
        "CREATE FUNCTION freeze() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'change freeze'; END $$;
         CREATE EVENT TRIGGER change_freeze ON ddl_command_start EXECUTE FUNCTION freeze()",
    );
    let plan = rekey(&db, ["plan"]).json(0);
    let told = plan["findings"].as_array().expect("findings").iter().any(|f| f["name"] == "event-trigger");
    assert!(told, "{plan:#}");
    for command in ["run", "init"] {
        let refusal = rekey(&db, [command]).exits(4);
        for word in ["change_freeze", "change freeze", "init --print-sql"] {
            assert!(refusal.stderr.contains(word), "{word}: {refusal}");
        }
    }
    // The DBA applies what is printed, and whoever runs needs no DDL.
    let sql = rekey(&db, ["init", "--print-sql"]).exits(0).stdout;
    db.execute("ALTER EVENT TRIGGER change_freeze DISABLE");
    db.execute(&sql);
    db.execute("ALTER EVENT TRIGGER change_freeze ENABLE");
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
}

const SECURE_NEW_TABLES: &str = "CREATE FUNCTION secure() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE made record; BEGIN
    FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', made.object_identity);
        IF FORCED THEN EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', made.object_identity); END IF;
    END LOOP; END $$;
    CREATE EVENT TRIGGER secure_new_tables ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION secure()";

#[test]
fn an_event_trigger_that_secures_new_tables_is_named() {
    let db = loaded();
    db.execute(&SECURE_NEW_TABLES.replace("FORCED", "false"));
    rekey(&db, ["init"]).exits(0);
    db.execute(&grants(&db));
    let (_, url) = login(&db, "runner", "GRANT rekey_runner TO ROLE");
    let plan = rekey(&db, ["plan"]).env("DATABASE_URL", &url).json(4);
    let findings = plan["findings"].as_array().unwrap_or_else(|| panic!("{plan:#}"));
    let found = findings.iter().find(|f| f["name"] == "ledger").unwrap_or_else(|| panic!("{plan:#}"));
    let (message, remedy) =
        (found["message"].as_str().expect("text"), found["remedy"].as_str().expect("text"));
    assert!(
        message.contains("Row-level security on rekey.") && message.contains("secure_new_tables"),
        "{found:#}"
    );
    let run = rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(4);
    assert!(run.stderr.contains("  ledger: Row-level security on"), "{run}");
    // The remedy, word for word.
    db.execute(remedy.split('`').nth(1).expect("statements"));
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(0);
    judge.all_on(&db, NEW);
}

/// The part that follows `init`.
fn grants(db: &Db) -> String {
    let sql = rekey(db, ["init", "--print-sql"]).exits(0).stdout;
    format!("BEGIN;{}", sql.split_once("-- Roles").expect("roles").1)
}

#[test]
fn row_security_that_binds_the_owner_too_is_named_by_whoever_makes_the_schema() {
    let db = loaded();
    let (_, url) = login(&db, "owner", "GRANT CREATE ON DATABASE TO ROLE");
    db.execute(&SECURE_NEW_TABLES.replace("FORCED", "true"));
    let init = rekey(&db, ["init"]).env("DATABASE_URL", &url).exits(4);
    assert!(init.stderr.contains("secure_new_tables") && init.stderr.contains("init --print-sql"), "{init}");
    rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(4);
}

#[test]
fn a_schema_of_another_owner_is_named_with_its_owner() {
    let db = loaded();
    let (_, url) = login(&db, "runner", "GRANT CREATE ON DATABASE TO ROLE");
    db.execute(&format!("CREATE ROLE {0}_dba; CREATE SCHEMA rekey AUTHORIZATION {0}_dba", db.name));
    for command in [&["plan"][..], &["run"], &["init"], &["run", "--dry-run"]] {
        let outcome = rekey(&db, []).more(command).env("DATABASE_URL", &url).exits(4);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains(&format!("belongs to {}_dba", db.name)), "{outcome}");
        assert!(said.contains("init --print-sql"), "{outcome}");
    }
    // An empty schema that was made for rekey is what it takes, without the right to make schemas.
    db.execute(&format!(
        "GRANT USAGE, CREATE ON SCHEMA rekey TO {0}_runner; REVOKE CREATE ON DATABASE {0} FROM {0}_runner",
        db.name
    ));
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(0);
    judge.all_on(&db, NEW);
}

#[test]
fn a_ledger_that_this_role_may_not_read_stops_no_plan() {
    let db = loaded();
    rekey(&db, ["init"]).exits(0);
    let (_, url) = login(&db, "stranger", "GRANT CREATE ON DATABASE TO ROLE");
    let plan = rekey(&db, ["plan"]).env("DATABASE_URL", &url).exits(0);
    assert!(plan.stdout.contains("USAGE on schema rekey"), "{plan}");
    let run = rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(4);
    assert!(run.stderr.contains("Schema rekey") || run.stderr.contains("schema rekey"), "{run}");
}

#[test]
fn somebody_elses_schema_of_that_name_is_refused() {
    let db = loaded();
    db.execute("CREATE SCHEMA rekey; CREATE TABLE rekey.events (what text)");
    for command in [&["plan"][..], &["run"], &["init"]] {
        let outcome = rekey(&db, []).more(command).exits(4);
        assert!(
            format!("{}{}", outcome.stdout, outcome.stderr).contains("was not created by this program"),
            "{outcome}"
        );
    }
}
