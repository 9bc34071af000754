//! What this role may do; each missing privilege is named with the GRANT that fixes it.

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

use super::For;
use super::finding::{About, Finding, Kind};
use super::shape::Table;
use crate::store::error::StoreError;
use crate::store::grants::{APPEND, LEDGER, RUNNER};
use crate::store::statement::statements;
use crate::store::{TABLE, schema};

pub(super) const PRIVILEGES: About = About {
    name: "privileges",
    may_be_allowed: false,
    meaning: "The role lacks a privilege",
    remedy: "Run `rekey init --print-sql` to see the grants that each role needs",
};

statements! {
    fn role() -> One<String> during "ask for the role":
        "SELECT quote_ident(current_user)";

    // ctid and xmin are columns too: a grant on the other columns alone does not reach them.
    fn table_privileges(table: Oid) -> One<(bool, Vec<String>, bool)> during "ask for privileges on the table":
        "SELECT has_schema_privilege('public', 'USAGE'), \
         (SELECT coalesce(array_agg(attname::text ORDER BY attnum), '{}') FROM pg_catalog.pg_attribute WHERE attrelid = $1 \
         AND attname IN ('id', 'encrypted_credentials', 'ctid', 'xmin') AND NOT has_column_privilege($1, attnum, 'SELECT')), \
         coalesce((SELECT has_column_privilege($1, attnum, 'UPDATE') FROM pg_catalog.pg_attribute \
         WHERE attrelid = $1 AND attname = 'encrypted_credentials' AND NOT attisdropped), true)";

    fn may_add_to_trail() -> One<Option<bool>> during "ask for privileges on audit_logs":
        "SELECT has_table_privilege(to_regclass('public.audit_logs'), 'INSERT')";

    fn ledger_privileges() -> One<(bool, String, Option<bool>)> during ON_LEDGER:
        "SELECT has_database_privilege(current_database(), 'CREATE'), quote_ident(current_database()), \
         (SELECT has_schema_privilege(oid, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = 'rekey')";

    fn missing(table: &str, wanted: &str) -> One<Vec<String>> during ON_LEDGER:
        "SELECT coalesce(array_agg(w), '{}') FROM unnest(string_to_array($2, ', ')) w \
         WHERE NOT has_table_privilege(to_regclass('rekey.' || $1), w)";

    fn may_execute(function: &str) -> One<bool> during ON_LEDGER:
        "SELECT has_function_privilege($1, 'EXECUTE')";
}

const ON_LEDGER: &str = "ask for privileges on schema rekey";

/// What may be asked next.
pub(super) struct May {
    /// The schema can be looked into, so the table can be named.
    pub(super) see_table: bool,
    /// Rows can be read.
    pub(super) read_rows: bool,
}

/// Missing privileges for writing, with the GRANTs that add them.
struct Lacking {
    role: String,
    what: Vec<(String, String)>,
}

impl Lacking {
    fn push(&mut self, what: impl Into<String>, grant: impl Into<String>) {
        self.what.push((what.into(), grant.into()));
    }

    /// Each is a refusal of its own, but only one note where nothing will be written.
    fn into_findings(self, purpose: For) -> Vec<Finding> {
        let Lacking { role, what } = self;
        match purpose {
            For::Run | For::Rollback => what
                .into_iter()
                .map(|(what, grant)| {
                    Finding::refuse(Kind::Privileges, format!("Role {role} lacks {what}"), grant)
                })
                .collect(),
            For::Reading if what.is_empty() => Vec::new(),
            For::Reading => {
                let what: Vec<String> = what.into_iter().map(|(what, _)| what).collect();
                vec![Finding::note(
                    Kind::Privileges,
                    format!("Role {role} can read but not run: it lacks {}", what.join("; ")),
                    format!(
                        "Run `rekey init --print-sql` to see role {RUNNER} and its grants, then `GRANT \
                         {RUNNER} TO` the role that runs rekey"
                    ),
                )]
            }
        }
    }
}

/// Asks for all privileges, on the application's table and on our own.
pub(super) async fn look(
    conn: &mut PgConnection,
    table: &Table,
    purpose: For,
    findings: &mut Vec<Finding>,
) -> Result<May, StoreError> {
    let mut lacking = Lacking { role: role(conn).await?, what: Vec::new() };
    let may = on_table(conn, table, &mut lacking, findings).await?;
    on_ledger(conn, &mut lacking).await?;
    // Without USAGE the trail cannot even be named.
    if purpose != For::Reading && may.see_table {
        findings.extend(on_trail(conn, &lacking.role).await?);
    }
    findings.extend(lacking.into_findings(purpose));
    Ok(may)
}

async fn on_table(
    conn: &mut PgConnection,
    table: &Table,
    lacking: &mut Lacking,
    findings: &mut Vec<Finding>,
) -> Result<May, StoreError> {
    let (usage, unreadable, update) = table_privileges(conn, table.oid).await?;
    let role = lacking.role.clone();
    if !usage {
        let grant = format!("GRANT USAGE ON SCHEMA public TO {role}");
        findings.push(Finding::refuse(
            Kind::Privileges,
            format!("Role {role} lacks USAGE on schema public"),
            grant,
        ));
    }
    if !unreadable.is_empty() {
        findings.push(Finding::refuse(
            Kind::Privileges,
            format!("Role {role} lacks SELECT on {} of {TABLE}", unreadable.join(", ")),
            format!("GRANT SELECT ON {TABLE} TO {role}"),
        ));
    }
    if !update {
        let grant = format!("GRANT UPDATE (encrypted_credentials) ON {TABLE} TO {role}");
        lacking.push(format!("UPDATE (encrypted_credentials) on {TABLE}"), grant);
    }
    Ok(May { see_table: usage, read_rows: usage && unreadable.is_empty() })
}

/// The application's own audit trail: without the right to add to it a rotation leaves no trace there.
async fn on_trail(conn: &mut PgConnection, role: &str) -> Result<Option<Finding>, StoreError> {
    let may = may_add_to_trail(conn).await?;
    Ok((may == Some(false)).then(|| {
        Finding::warn(
            Kind::Privileges,
            format!(
                "Role {role} lacks INSERT on public.audit_logs, so the application's audit trail will not \
                 mention this"
            ),
            format!("GRANT INSERT ON public.audit_logs TO {role}"),
        )
    }))
}

/// Schema `rekey`: the right to make it, or to use it.
async fn on_ledger(conn: &mut PgConnection, lacking: &mut Lacking) -> Result<(), StoreError> {
    let (create, database, usage) = ledger_privileges(conn).await?;
    let role = lacking.role.clone();
    let made = schema::exists(conn).await?;
    if usage == Some(false) && made {
        let grant = format!("GRANT USAGE ON SCHEMA rekey TO {role}");
        lacking.push("USAGE on schema rekey", grant);
        return Ok(());
    }
    if !made {
        // Finding `ledger` reports what blocks the use of a schema that another role owns.
        if usage.is_none() && !create {
            let grant =
                format!("GRANT CREATE ON DATABASE {database} TO {role}, or let its owner run `rekey init`");
            lacking.push("CREATE on the database, to make schema rekey", grant);
        }
        return Ok(());
    }
    for (table, wanted) in LEDGER {
        let missing = missing(conn, table, wanted).await?;
        if !missing.is_empty() {
            let missing = missing.join(", ");
            let grant = format!("GRANT {missing} ON rekey.{table} TO {role}");
            lacking.push(format!("{missing} on rekey.{table}"), grant);
        }
    }
    if !may_execute(conn, APPEND).await? {
        let grant = format!("GRANT EXECUTE ON FUNCTION {APPEND} TO {role}");
        lacking.push("EXECUTE on rekey.append_event", grant);
    }
    Ok(())
}
