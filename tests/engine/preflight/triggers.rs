//! Triggers on the table: all of them are named, and those of tools that copy it are known and never to be disabled.

use serde_json::Value;

use super::refused;
use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, rekey};

fn loaded(rows: u64) -> Db {
    let db = Db::new();
    Load::rows(rows).into(&db);
    db
}

fn finding(db: &Db, name: &str) -> Value {
    let plan = rekey(db, ["plan"]).json(4);
    let findings = plan["findings"].as_array().expect("findings");
    findings.iter().find(|found| found["name"] == name).unwrap_or_else(|| panic!("{plan:#}")).clone()
}

/// What pg_repack 1.5 puts into the database while it works.
const PG_REPACK: &str =
    "CREATE SCHEMA repack; CREATE TABLE repack.log_1 (id bigserial PRIMARY KEY, row provider_connections);
    CREATE TABLE repack.table_1 (LIKE provider_connections);
    CREATE FUNCTION repack.repack_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO repack.log_1 (row) VALUES (NEW); RETURN NEW; END $$;
    CREATE TRIGGER repack_trigger AFTER INSERT OR DELETE OR UPDATE ON provider_connections
        FOR EACH ROW EXECUTE FUNCTION repack.repack_trigger();
    ALTER TABLE provider_connections ENABLE ALWAYS TRIGGER repack_trigger";

#[test]
fn a_table_that_pg_repack_copies_is_waited_for_and_its_trigger_left_alone() {
    let db = loaded(200);
    db.execute(PG_REPACK);
    let run = refused(&db, "table-copier");
    let found = finding(&db, "table-copier");
    let remedy = found["remedy"].as_str().expect("a remedy");
    assert!(found["message"].as_str().is_some_and(|said| said.contains("pg_repack is copying")), "{found:#}");
    assert!(remedy.starts_with("Wait until pg_repack has finished"), "{found:#}");
    assert!(!run.stderr.contains("DISABLE TRIGGER"), "{run}");
    // Its trigger writes down what is re-encrypted, so that the copy gets it.
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run", "--allow", "table-copier"]).exits(0);
    judge.all_on(&db, NEW);
    assert!(db.value::<i64>("SELECT count(*) FROM repack.log_1") > 0);
}

/// Somebody followed the advice of an earlier release: the copy will bring the old key back.
#[test]
fn a_disabled_trigger_of_a_tool_that_swaps_tables_is_refused_too() {
    let db = loaded(50);
    db.execute(PG_REPACK);
    db.execute("ALTER TABLE provider_connections DISABLE TRIGGER repack_trigger");
    refused(&db, "table-copier");
    let found = finding(&db, "table-copier");
    assert!(found["message"].as_str().is_some_and(|said| said.contains("is disabled")), "{found:#}");
}

#[test]
fn trigger_based_replication_is_known_and_never_to_be_disabled() {
    for (tool, schema, function, trigger) in [
        ("Slony-I", "_ring", "logtrigger", "_ring_logtrigger"),
        ("Londiste", "pgq", "logutriga", "_londiste_replika"),
        ("Bucardo", "bucardo", "delta_public_provider_connections", "bucardo_delta"),
        ("SymmetricDS", "public", "fsym_on_u_for_prvdr", "sym_on_u_for_prvdr"),
    ] {
        let db = loaded(20);
        db.execute(&format!(
            "CREATE SCHEMA IF NOT EXISTS {schema};
             CREATE FUNCTION {schema}.{function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE TRIGGER {trigger} AFTER UPDATE ON provider_connections FOR EACH ROW EXECUTE FUNCTION {schema}.{function}()"
        ));
        let run = refused(&db, "table-copier");
        assert!(run.stderr.contains(&format!("{tool} replicates")), "{run}");
        assert!(!run.stderr.contains("DISABLE TRIGGER"), "{run}");
    }
}

#[test]
fn every_trigger_is_named_with_its_function() {
    let db = loaded(20);
    db.execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER \"One\" BEFORE UPDATE ON provider_connections FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE TRIGGER two AFTER UPDATE OF encrypted_credentials ON provider_connections FOR EACH STATEMENT EXECUTE FUNCTION touch();
         CREATE TRIGGER not_this BEFORE UPDATE OF status ON provider_connections FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE TRIGGER nor_this BEFORE INSERT ON provider_connections FOR EACH ROW EXECUTE FUNCTION touch()",
    );
    let found = finding(&db, "user-triggers");
    let (message, remedy) =
        (found["message"].as_str().expect("text"), found["remedy"].as_str().expect("text"));
    assert!(message.starts_with("\"One\" (public.touch), two (public.touch) on UPDATE"), "{found:#}");
    assert!(remedy.contains("DISABLE TRIGGER \"One\", DISABLE TRIGGER two"), "{found:#}");
    // One that fires always may be a copier that nobody has heard of.
    db.execute("ALTER TABLE provider_connections ENABLE ALWAYS TRIGGER two");
    let found = finding(&db, "user-triggers");
    assert!(found["remedy"].as_str().is_some_and(|said| !said.contains("DISABLE TRIGGER")), "{found:#}");
}
