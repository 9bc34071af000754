//! What each role needs, as preflight asks for it and as `rekey init --print-sql` grants it.

use std::fmt::Write as _;

use super::TABLE;

/// The engine's privileges on each of rekey's tables.
pub const LEDGER: &[(&str, &str)] = &[
    ("rotations", "SELECT, INSERT, UPDATE"),
    ("passes", "SELECT, INSERT, UPDATE"),
    ("chunks", "SELECT, INSERT, UPDATE"),
    ("proofs", "SELECT, INSERT"),
    ("quarantine", "SELECT, INSERT, UPDATE, DELETE"),
    ("processes", "SELECT, INSERT, UPDATE, DELETE"),
    ("samples", "SELECT, INSERT, UPDATE"),
    ("events", "SELECT"),
    ("chain", "SELECT"),
    ("_sqlx_migrations", "SELECT"),
];

/// Granted, and not required: what a role of an older rekey does not have.
const ALSO: &[(&str, &str)] = &[("proofs", "DELETE")];

/// The one way into the audit trail; it runs with its owner's rights.
pub const APPEND: &str = "rekey.append_event(uuid, text, text, text, jsonb)";

/// The role that runs, promotes, rolls back and finalizes.
pub const RUNNER: &str = "rekey_runner";

/// The role that plans, watches and verifies.
pub const READER: &str = "rekey_reader";

/// SQL that makes both roles and grants each what it needs, and no more. Can be run again.
pub fn sql() -> String {
    let mut sql = String::new();
    let mut line = |text: String| {
        let _ = writeln!(sql, "{text}");
    };
    line(format!(
        "-- {RUNNER}: run, promote, rollback, finalize. {READER}: plan, status, verify, run --dry-run."
    ));
    line("-- Neither can log in: grant them to roles that do, as in  GRANT rekey_runner TO alice.".into());
    line("-- Where row-level security is on, the role that logs in also needs BYPASSRLS, which is not inherited.".into());
    for role in [RUNNER, READER] {
        line(format!(
            "DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;"
        ));
    }
    line(format!("\nGRANT USAGE ON SCHEMA public, rekey TO {RUNNER}, {READER};"));
    line(format!("GRANT SELECT ON {TABLE} TO {RUNNER}, {READER};"));
    line(format!("GRANT UPDATE (encrypted_credentials) ON {TABLE} TO {RUNNER};"));
    line("-- Lag of replicas and other sessions' transactions, for the throttle.".into());
    line(format!(
        "DO $$ BEGIN GRANT pg_read_all_stats TO {RUNNER}, {READER}; EXCEPTION WHEN insufficient_privilege THEN \
         RAISE WARNING 'pg_read_all_stats was not granted: that takes a superuser'; END $$;"
    ));
    line("-- The application's own audit trail, where it exists.".into());
    line(format!(
        "DO $$ BEGIN IF to_regclass('public.audit_logs') IS NOT NULL THEN \
         GRANT INSERT ON public.audit_logs TO {RUNNER}; END IF; END $$;\n"
    ));
    for (table, privileges) in LEDGER.iter().chain(ALSO) {
        line(format!("GRANT {privileges} ON rekey.{table} TO {RUNNER};"));
    }
    line(format!("GRANT SELECT ON ALL TABLES IN SCHEMA rekey TO {READER};"));
    line(format!("REVOKE EXECUTE ON FUNCTION {APPEND} FROM PUBLIC;"));
    line(format!("GRANT EXECUTE ON FUNCTION {APPEND} TO {RUNNER};"));
    sql
}
