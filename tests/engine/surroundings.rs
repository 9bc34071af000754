//! What stands around the table: poolers, server settings, replication, other sessions, rules, roles. What costs
//! something is told by `plan` and does not stop a run; what would break it does.

use serde_json::Value;

use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, OTHER, Pooler, SOON, rekey, until};

fn loaded(rows: u64) -> Db {
    let db = Db::new();
    Load::rows(rows).into(&db);
    db
}

/// The severity of a finding in a plan, if it is there.
fn severity<'a>(plan: &'a Value, name: &str) -> Option<&'a str> {
    let findings = plan["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["name"] == name)?["severity"].as_str()
}

#[track_caller]
fn warns(db: &Db, name: &str) {
    let plan = rekey(db, ["plan"]).json(0);
    assert_eq!(severity(&plan, name), Some("warn"), "{plan:#}");
}

#[track_caller]
fn refuses(db: &Db, name: &str) {
    let plan = rekey(db, ["plan"]).json(4);
    assert_eq!(severity(&plan, name), Some("refuse"), "{plan:#}");
    let run = rekey(db, ["run"]).exits(4);
    assert!(run.stderr.contains(name), "{run}");
    assert!(!db.has_rekey_schema(), "{run}");
}

/// Twice: what the first process left in the pool must not change what the second one says.
#[test]
fn a_pooler_in_transaction_mode_is_refused_and_keeps_nothing_of_ours() {
    let db = loaded(200);
    let content = db.content();
    let pooler = Pooler::start(&db, "transaction");
    let commands =
        [rekey(&db, ["run"]), rekey(&db, ["plan"]), rekey(&db, ["run", "--dry-run"]), rekey(&db, ["run"])];
    for command in commands {
        let outcome = command.env("DATABASE_URL", pooler.url(&db)).exits(4);
        assert!(format!("{}{}", outcome.stdout, outcome.stderr).contains("pooling"), "{outcome}");
    }
    for (setting, value) in
        [("lock_timeout", "0"), ("row_security", "on"), ("default_transaction_read_only", "off")]
    {
        assert_eq!(pooler.show(&db, setting), value, "{setting}");
    }
    assert_eq!(db.content(), content);
    assert!(!db.has_rekey_schema());
}

#[test]
fn a_pooler_in_session_mode_is_fine() {
    let db = loaded(600);
    let mut judge = Judge::look(&db, &[OLD]);
    let pooler = Pooler::start(&db, "session");
    rekey(&db, ["run"]).env("DATABASE_URL", pooler.url(&db)).exits(0);
    judge.all_on(&db, NEW);
}

#[test]
fn a_server_that_may_lose_what_it_wrote_warns() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(100).into(&db);
    db.execute("ALTER SYSTEM SET fsync = off");
    db.execute("SELECT pg_create_physical_replication_slot('forgotten', true)");
    db.execute("SELECT pg_reload_conf()");
    until("the setting to arrive", SOON, || {
        (db.value::<String>("SELECT current_setting('fsync')") == "off").then_some(())
    });
    warns(&db, "durability");
    warns(&db, "slots");
    rekey(&db, ["run"]).exits(0);
}

#[test]
fn a_session_that_holds_back_the_horizon_warns() {
    let db = loaded(100);
    let mut other = db.hold();
    other.execute(sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"));
    other.execute(sqlx::query("SELECT 1"));
    until("the transaction to be old", SOON, || {
        let plan = rekey(&db, ["plan"]).json(0);
        severity(&plan, "old-snapshot").map(|severity| assert_eq!(severity, "warn"))
    });
    rekey(&db, ["run"]).exits(0);
    other.rollback();
}

#[test]
fn logical_replication_warns_or_refuses_by_replica_identity() {
    let db = loaded(100);
    db.execute("CREATE PUBLICATION changes FOR TABLE provider_connections");
    warns(&db, "publication");
    db.execute("ALTER TABLE provider_connections REPLICA IDENTITY FULL");
    warns(&db, "publication");
    db.execute("ALTER TABLE provider_connections REPLICA IDENTITY NOTHING");
    refuses(&db, "replica-identity");
    db.execute("ALTER PUBLICATION changes SET (publish = 'insert, delete')");
    let plan = rekey(&db, ["plan"]).json(0);
    assert_eq!(severity(&plan, "publication"), None, "{plan:#}");
}

#[test]
fn rules_and_inheritance_are_refused() {
    let db = loaded(100);
    db.execute("CREATE RULE quiet AS ON UPDATE TO provider_connections DO INSTEAD NOTHING");
    refuses(&db, "rules");
    db.execute("DROP RULE quiet ON provider_connections");
    db.execute("CREATE TABLE archived () INHERITS (provider_connections)");
    refuses(&db, "table");
}

#[test]
fn a_trigger_on_another_column_and_an_index_on_the_credentials() {
    let db = loaded(100);
    db.execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER touch BEFORE UPDATE OF status ON provider_connections FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE INDEX sizes ON provider_connections (length(encrypted_credentials))",
    );
    warns(&db, "indexed-column");
    let plan = rekey(&db, ["plan"]).json(0);
    assert_eq!(severity(&plan, "user-triggers"), None, "{plan:#}");
}

#[test]
fn a_plan_tells_wrong_keys_and_everything_else_at_once() {
    let db = loaded(300);
    db.execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER touch BEFORE UPDATE ON provider_connections FOR EACH ROW EXECUTE FUNCTION touch()",
    );
    for (old, new, name) in [(OTHER, NEW, "wrong-key"), (NEW, OLD, "wrong-key"), (OLD, "short", "keys")] {
        let plan = rekey(&db, ["plan"]).env("ENCRYPTION_KEY", old).env("NEW_ENCRYPTION_KEY", new);
        let outcome = plan.args(["--output", "json"]).exits(3);
        outcome.says_none_of(&[OLD, NEW, OTHER]);
        let plan = outcome.json();
        assert_eq!(severity(&plan, name), Some("refuse_key"), "{plan:#}");
        assert_eq!(severity(&plan, "user-triggers"), Some("refuse"), "{plan:#}");
    }
    let plan = rekey(&db, ["plan", "--allow", "user-triggers"]).json(0);
    assert_eq!(plan["sample"]["neither"], 0, "{plan:#}");
    assert!(plan["sample"]["on_source"].as_i64().is_some_and(|rows| rows > 32), "{plan:#}");
}

/// A few rows that no key opens are for the quarantine, not a reason to refuse.
#[test]
fn a_few_unreadable_rows_warn() {
    let db = loaded(300);
    db.execute(
        "UPDATE provider_connections SET encrypted_credentials = '\\x00' WHERE id IN \
         (SELECT id FROM provider_connections ORDER BY id LIMIT 5)",
    );
    warns(&db, "wrong-key");
}

#[test]
fn a_rehearsal_measures_and_leaves_every_row_as_it_was() {
    let db = loaded(2000);
    let content = db.content();
    let plan = rekey(&db, ["plan", "--rehearse", "1000"]).json(0);
    assert_eq!(plan["rehearsed_rows"], 1000, "{plan:#}");
    assert_eq!(plan["forecast"]["measured"], true, "{plan:#}");
    for figure in ["seconds", "rows_per_second", "wal_bytes", "lock_seconds"] {
        assert!(plan["forecast"][figure].as_f64().is_some_and(|n| n > 0.0), "{figure}: {plan:#}");
    }
    assert_eq!(db.content(), content);
}

/// What `init --print-sql` prints is all that is needed: an owner applies it, and neither role ever owns anything.
#[test]
fn the_printed_grants_suffice_and_are_needed() {
    let db = loaded(400);
    // Twice: what is there stays. And what `init` itself prints is SQL.
    let printed = rekey(&db, ["init", "--print-sql"]).exits(0).stdout;
    db.execute(&printed);
    db.execute(&printed);
    assert_eq!(rekey(&db, ["init", "--print-sql"]).json(0)["sql"], printed);
    db.execute(&rekey(&db, ["init"]).exits(0).stdout);
    let login = |name: &str, grants: &str| {
        let role = format!("{}_{name}", db.name);
        db.execute(&format!("CREATE ROLE {role} LOGIN; {}", grants.replace("ROLE", &role)));
        db.url.replace("postgres@", &format!("{role}@"))
    };
    let runner = login("runner", "GRANT rekey_runner TO ROLE");
    let reader = login("reader", "GRANT rekey_reader TO ROLE");
    let unreachable: Vec<String> = db.column(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'rekey'::regnamespace AND relkind = 'r' \
         AND NOT (has_table_privilege('rekey_runner', oid, 'SELECT') AND has_table_privilege('rekey_reader', oid, 'SELECT'))",
    );
    assert!(unreachable.is_empty(), "a table of ours without grants: {unreachable:?}");

    rekey(&db, ["plan"]).env("DATABASE_URL", &reader).exits(0);
    rekey(&db, ["run", "--dry-run"]).env("DATABASE_URL", &reader).exits(0);
    let refused = rekey(&db, ["run"]).env("DATABASE_URL", &reader).exits(4);
    assert!(refused.stderr.contains("GRANT UPDATE (encrypted_credentials)"), "{refused}");

    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["init"]).env("DATABASE_URL", &runner).exits(0);
    rekey(&db, ["run"]).env("DATABASE_URL", &runner).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).env("DATABASE_URL", &reader).exits(0);
    rekey(&db, ["status"]).env("DATABASE_URL", &reader).exits(0);
    rekey(&db, ["verify"]).env("DATABASE_URL", &runner).exits(0);
    rekey(&db, ["rollback", "--yes"]).env("DATABASE_URL", &runner).exits(0);
    judge.all_on(&db, OLD);
}
