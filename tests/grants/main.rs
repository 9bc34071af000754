//! Least privilege. scripts/sql/role.sql: a whole rotation as that role, and each privilege taken away in turn is named
//! by preflight. scripts/iam: what each command asks of Secrets Manager is allowed by its policy, and no more is.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support_aws/mod.rs"]
mod support_aws;

mod policies;

use support::load::Load;
use support::{Db, Judge, NEW, OLD, Rekey, rekey};

const ROLE: &str = include_str!("../../scripts/sql/role.sql");

/// `rekey …` as the role.
fn as_role<const N: usize>(db: &Db, arguments: [&str; N]) -> Rekey {
    rekey(db, arguments).env("DATABASE_URL", db.url.replace("//postgres@", "//rekey@"))
}

#[test]
fn a_whole_rotation_with_exactly_these_grants() {
    // The schema is made by the role itself, as on a first run …
    let db = Db::new();
    Load::rows(600).nulls(5).into(&db);
    db.execute(ROLE);
    let mut judge = Judge::look(&db, &[OLD]);
    as_role(&db, ["run"]).exits(0);
    as_role(&db, ["verify"]).exits(0);
    judge.all_on(&db, NEW);
    // … and the right to make one is taken back.
    db.execute(ROLE);
    assert!(!db.value::<bool>("SELECT has_database_privilege('rekey', current_database(), 'CREATE')"));
    as_role(&db, ["rollback", "--yes"]).exits(0);
    as_role(&db, ["verify"]).exits(0);
    judge.all_on(&db, OLD);

    // Or by an owner, once: then the role may not touch the trail it appends to.
    let db = Db::new();
    Load::rows(600).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    db.execute(ROLE);
    as_role(&db, ["run"]).exits(0);
    as_role(&db, ["verify"]).exits(0);
    judge.all_on(&db, NEW);
    let forge = "SET ROLE rekey; UPDATE rekey.events SET operator = 'nobody'";
    let refused = support::block_on(sqlx::raw_sql(forge).execute(db.pool())).unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");

    each_privilege_is_missed(&db);
}

/// What the role holds in this database, straight from the catalogs: what to revoke, and what must be named then.
const HELD: &str = "
    WITH objects AS (
        SELECT format('SCHEMA %I', nspname) AS object, format('schema %s', nspname) AS name, nspacl AS acl
        FROM pg_namespace
        UNION ALL SELECT format('%I.%I', n.nspname, c.relname), format('%s.%s', n.nspname, c.relname), c.relacl
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        UNION ALL SELECT format('FUNCTION %s', oid::regprocedure), format('rekey.%s', proname), proacl
        FROM pg_proc WHERE pronamespace = to_regnamespace('rekey')
        UNION ALL SELECT format('DATABASE %I', datname), 'database', datacl
        FROM pg_database WHERE datname = current_database()
    )
    SELECT format('%s ON %s|%s|%s', a.privilege_type, object, a.privilege_type, name)
    FROM objects, aclexplode(acl) a WHERE a.grantee = 'rekey'::regrole
    UNION ALL
    SELECT format('%s (%I) ON %I.%I|%s (%s)|%s.%s', a.privilege_type, attname, nspname, relname, a.privilege_type,
        attname, nspname, relname)
    FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
        aclexplode(attacl) a WHERE a.grantee = 'rekey'::regrole
    UNION ALL
    SELECT format('%I|pg_read_all_stats|pg_monitor', roleid::regrole) FROM pg_auth_members WHERE member = 'rekey'::regrole
    ORDER BY 1";

/// Each in turn is taken away: preflight names it, and `run` refuses, or does without where it can.
fn each_privilege_is_missed(db: &Db) {
    rekey(db, ["rollback", "--yes"]).exits(0);
    // What everybody may do hides what the role may.
    db.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC");
    db.execute(&format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", db.name));
    let held: Vec<String> = db.column(HELD);
    assert!(held.len() > 25, "{held:#?}");
    for grant in &held {
        let parts: Vec<&str> = grant.split('|').collect();
        let [revoke, privilege, name] = parts[..] else { panic!("{grant}") };
        db.execute(&format!("REVOKE {revoke} FROM rekey"));
        let outcome = as_role(db, [if name == "pg_monitor" { "plan" } else { "run" }]).run();
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        let (code, words) = match (privilege, name) {
            // The throttle does without.
            (_, "pg_monitor") => (0, ["pg_monitor", "monitoring"]),
            ("CONNECT", _) => (2, ["permission denied for database", "DATABASE_URL"]),
            // The application's trail is written where it may be.
            (_, "public.audit_logs") => (0, ["audit_logs", "INSERT"]),
            // Proofs of an ended rotation stay where they are.
            ("DELETE", "rekey.proofs") => (0, ["GRANT DELETE ON rekey.proofs", ""]),
            // Met before preflight: the ledger is looked at first, for the rotation's state.
            ("USAGE", "schema rekey") => (4, ["schema rekey", ""]),
            ("SELECT", "rekey.rotations") => (4, ["rotations", "permission denied"]),
            // So is the trail, for keys that it calls compromised.
            ("SELECT", "rekey.events") => (4, ["events", "permission denied"]),
            _ => (4, [privilege, name]),
        };
        assert_eq!(outcome.code(), Some(code), "without {revoke}:\n{outcome}");
        for word in words {
            assert!(said.contains(word), "without {revoke} it should name {word}:\n{outcome}");
        }
        if code == 0 && name != "pg_monitor" {
            rekey(db, ["rollback", "--yes"]).exits(0);
        }
        db.execute(ROLE);
    }
    as_role(db, ["run"]).exits(0);
}
