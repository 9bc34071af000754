//! Schema `rekey` itself: whether this role can create or upgrade it, and whether anything hides its rows.

use sqlx::PgConnection;

use super::For;
use super::finding::{About, Finding, Kind};
use crate::store::error::StoreError;
use crate::store::statement::{row, statements};
use crate::store::{grants, schema};

pub(super) const LEDGER: About = About {
    name: "ledger",
    may_be_allowed: false,
    meaning: "rekey can't create, upgrade or use schema rekey: another role owns it, it contains other \
        objects, or row-level security hides its rows",
    remedy: "Let a DBA or the schema's owner apply the SQL of `rekey init --print-sql`",
};

pub(super) const EVENT_TRIGGERS: About = About {
    name: "event-trigger",
    may_be_allowed: true,
    meaning: "An event trigger runs when rekey creates or upgrades its schema, and may forbid that or change \
        the tables",
    remedy: "If it forbids DDL, let a DBA apply the SQL of `rekey init --print-sql`",
};

struct Found {
    role: String,
    /// The schema's owner, where it exists.
    owner: Option<String>,
    /// This role may create objects in it.
    may_create: bool,
    /// This role owns every table in it, or may act as their owner.
    owns_tables: bool,
    /// Relations in it that are not rekey's, if they have a name of rekey's.
    taken: Vec<String>,
    /// Tables of rekey's whose rows are hidden from this role.
    hidden: Vec<String>,
}

row!(Found { role, owner, may_create, owns_tables, taken, hidden });

statements! {
    fn found(ours: Vec<String>) -> One<Found> during "look for schema rekey":
        "SELECT quote_ident(current_user) AS role, (SELECT quote_ident(r.rolname) FROM pg_catalog.pg_roles r \
     WHERE r.oid = n.nspowner) AS owner, coalesce(has_schema_privilege(n.oid, 'CREATE'), false) AS may_create, \
     coalesce((SELECT bool_and(pg_has_role(c.relowner, 'USAGE')) FROM pg_catalog.pg_class c \
     WHERE c.relnamespace = n.oid AND c.relkind = 'r'), true) AS owns_tables, \
     ARRAY(SELECT quote_ident(c.relname) FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname::text = ANY ($1) \
     ORDER BY 1) AS taken, \
     ARRAY(SELECT 'rekey.' || quote_ident(c.relname) FROM pg_catalog.pg_class c, pg_catalog.pg_roles me \
     WHERE c.relnamespace = n.oid AND c.relkind = 'r' AND me.rolname = current_user AND c.relrowsecurity \
     AND NOT me.rolsuper AND NOT me.rolbypassrls AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')) \
     ORDER BY 1) AS hidden \
     FROM (SELECT) one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'rekey'";
}

pub(super) async fn look(
    conn: &mut PgConnection,
    purpose: For,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let ours = grants::LEDGER.iter().map(|(table, _)| (*table).to_owned()).collect();
    let found = found(conn, ours).await?;
    let (exists, current) = (schema::exists(conn).await?, schema::is_current(conn).await?);
    let mut refuse = |message: String, remedy: String| {
        findings.push(match purpose {
            For::Rollback => Finding::warn(Kind::Ledger, message, remedy),
            For::Run | For::Reading => Finding::refuse(Kind::Ledger, message, remedy),
        });
    };
    let Found { role, owner, may_create, owns_tables, taken, hidden } = found;
    if let (Some(owner), false) = (&owner, exists) {
        if !taken.is_empty() {
            refuse(
                format!(
                    "Schema rekey belongs to {owner} and was not created by this program: it has {}, and no \
                     table chain",
                    taken.join(", ")
                ),
                "Rename that schema, or drop it if a failed attempt left it behind".to_owned(),
            );
        } else if !may_create {
            refuse(
                format!(
                    "Schema rekey exists and belongs to {owner}, and role {role} can't create tables in it"
                ),
                format!(
                    "Let {owner} run `rekey init`, or let a DBA apply the SQL of `rekey init --print-sql`, \
                     or run GRANT USAGE, CREATE ON SCHEMA rekey TO {role}"
                ),
            );
        }
    }
    if let (Some(owner), true, false, false) = (&owner, exists, current, owns_tables) {
        refuse(
            format!("Schema rekey has an older version, and only its owner {owner} can upgrade it"),
            format!("Run `rekey init` as {owner}"),
        );
    }
    if !hidden.is_empty() {
        let disable: Vec<String> =
            hidden.iter().map(|table| format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")).collect();
        refuse(
            format!(
                "Row-level security on {} hides rekey's own rows from role {role}{}",
                hidden.join(", "),
                by(&schema::event_triggers(conn).await?)
            ),
            format!("As the owner of schema rekey, run `{}`", disable.join("; ")),
        );
    }
    if !current {
        findings.extend(event_triggers(conn).await?);
    }
    Ok(())
}

/// rekey can't know what an event trigger does, so it reports one before the window.
async fn event_triggers(conn: &mut PgConnection) -> Result<Option<Finding>, StoreError> {
    let triggers = schema::event_triggers(conn).await?;
    Ok((!triggers.is_empty()).then(|| {
        Finding::warn(
            Kind::EventTrigger,
            format!(
                "Event trigger {} runs when rekey creates or upgrades its schema, and may forbid that or \
                 change rekey's tables",
                triggers.join(", ")
            ),
            "Run `rekey init` before the window. If it is refused, let a DBA apply the SQL of `rekey init \
             --print-sql`",
        )
    }))
}

fn by(triggers: &[String]) -> String {
    if triggers.is_empty() {
        String::new()
    } else {
        format!("; event trigger {} may have set it", triggers.join(", "))
    }
}
