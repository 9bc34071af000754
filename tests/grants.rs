//! scripts/sql/role.sql: a whole rotation as that role, and each privilege taken away in turn is named by preflight.

#[path = "support/mod.rs"]
mod support;

use support::load::Load;
use support::{Db, Judge, NEW, OLD, Rekey, rekey};

const ROLE: &str = include_str!("../scripts/sql/role.sql");

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

fn each_privilege_is_missed(db: &Db) {
    rekey(db, ["rollback", "--yes"]).exits(0);
    for (revoke, named) in [
        ("USAGE ON SCHEMA public", "USAGE on schema public"),
        ("SELECT ON provider_connections", "SELECT on"),
        ("UPDATE (encrypted_credentials) ON provider_connections", "UPDATE (encrypted_credentials)"),
        // Met before preflight: the ledger is looked at first, for the rotation's state.
        ("USAGE ON SCHEMA rekey", "schema rekey"),
        ("INSERT ON rekey.rotations", "INSERT on rekey.rotations"),
        ("UPDATE ON rekey.passes", "UPDATE on rekey.passes"),
        ("UPDATE ON rekey.chunks", "UPDATE on rekey.chunks"),
        ("INSERT ON rekey.proofs", "INSERT on rekey.proofs"),
        ("DELETE ON rekey.quarantine", "DELETE on rekey.quarantine"),
        ("INSERT ON rekey.processes", "INSERT on rekey.processes"),
        ("SELECT ON rekey.events", "SELECT on rekey.events"),
        ("SELECT ON rekey.chain", "SELECT on rekey.chain"),
    ] {
        // In schema public, PUBLIC may look around by default.
        db.execute(&format!("REVOKE {revoke} FROM rekey; REVOKE USAGE ON SCHEMA public FROM PUBLIC"));
        let outcome = as_role(db, ["run"]).run();
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert_eq!(outcome.code(), Some(4), "without {revoke}:\n{outcome}");
        assert!(said.contains(named), "without {revoke} it should name {named}:\n{outcome}");
        db.execute(ROLE);
    }
    as_role(db, ["run"]).exits(0);
}
