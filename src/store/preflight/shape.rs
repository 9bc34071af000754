//! Is `provider_connections` the expected table, and are its rows visible?

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

use super::finding::{About, Finding, Kind};
use crate::rotation::TableFacts;
use crate::store::TABLE;
use crate::store::error::StoreError;
use crate::store::statement::statements;

pub(super) const TABLE_KIND: About = About {
    name: "table",
    may_be_allowed: false,
    meaning: "provider_connections is missing, or not an ordinary table",
    remedy: "Name the right database in DATABASE_URL",
};

pub(super) const COLUMNS: About = About {
    name: "columns",
    may_be_allowed: false,
    meaning: "A column is missing or has another type, or id is not the primary key",
    remedy: "Apply the application's migrations to the table",
};

pub(super) const UNLOGGED: About = About {
    name: "unlogged",
    may_be_allowed: true,
    meaning: "The table is not crash-safe",
    remedy: "ALTER TABLE public.provider_connections SET LOGGED",
};

pub(super) const EMPTY: About = About {
    name: "empty-table",
    may_be_allowed: true,
    meaning: "No row is visible",
    remedy: "Check that DATABASE_URL names the right database",
};

pub(super) const ROW_SECURITY: About = About {
    name: "row-security",
    may_be_allowed: false,
    meaning: "Row-level security hides rows from this role",
    remedy: "Connect as the table's owner, or give the role BYPASSRLS during the rotation",
};

pub(super) const ESTIMATES: About = About {
    name: "estimates",
    may_be_allowed: true,
    meaning: "The table has no planner statistics yet",
    remedy: "ANALYZE public.provider_connections",
};

statements! {
    // Not to_regclass: it raises an error without USAGE on the schema.
    fn find() -> Optional<(Oid, String, String, bool)> during "look for the table":
        "SELECT c.oid, c.relkind::text, c.relpersistence::text, \
         EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'public' AND c.relname = 'provider_connections'";

    fn shape(table: Oid) -> One<(Option<String>, Option<String>, Option<Vec<String>>, bool)> during "read the table's columns":
        "SELECT (SELECT format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute \
         WHERE attrelid = $1 AND attname = 'id' AND attnum > 0 AND NOT attisdropped), \
         (SELECT format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute \
         WHERE attrelid = $1 AND attname = 'encrypted_credentials' AND attnum > 0 AND NOT attisdropped), \
         (SELECT array_agg(a.attname::text ORDER BY k.ord) FROM pg_catalog.pg_index x, unnest(x.indkey) WITH ORDINALITY k(attnum, ord), \
         pg_catalog.pg_attribute a WHERE x.indrelid = $1 AND x.indisprimary AND x.indisvalid \
         AND a.attrelid = $1 AND a.attnum = k.attnum), \
         EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = 'encrypted_credentials' \
         AND NOT attisdropped AND attgenerated <> '')";

    // row_security_active() says no while row_security is off, so ask what it is made of.
    fn row_security_of(table: Oid) -> One<(bool, String, i64)> during "ask about row-level security":
        "SELECT c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls \
         AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')), current_user::text, \
         (SELECT count(*) FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid) \
         FROM pg_catalog.pg_class c, pg_catalog.pg_roles r WHERE c.oid = $1 AND r.rolname = current_user";

    fn is_filled() -> One<bool> during "look for rows":
        "SELECT EXISTS (SELECT FROM public.provider_connections)";

    fn is_analyzed() -> One<bool> during "look for statistics":
        "SELECT reltuples >= 0 FROM pg_catalog.pg_class WHERE oid = 'public.provider_connections'::regclass";
}

/// The table, found in the catalogue, which anyone may read.
pub(super) struct Table {
    pub(super) oid: Oid,
    /// It has the columns, types and primary key that every statement relies on.
    pub(super) usable: bool,
}

/// Finds the table and compares it with what is expected. `None` if nothing more can be asked about it.
pub(super) async fn table(
    conn: &mut PgConnection,
    findings: &mut Vec<Finding>,
) -> Result<Option<Table>, StoreError> {
    let Some(found) = find(conn).await? else {
        findings.push(Finding::refuse(
            Kind::Table,
            format!("This database has no table {TABLE}"),
            "Check the database's name in DATABASE_URL",
        ));
        return Ok(None);
    };
    let (oid, kind, persistence, inherits) = found;
    let what = match (kind.as_str(), inherits) {
        ("r", false) => None,
        ("r", true) => Some("part of an inheritance tree or a partition"),
        ("p", _) => Some("a partitioned table"),
        ("v", _) => Some("a view"),
        ("m", _) => Some("a materialized view"),
        ("f", _) => Some("a foreign table"),
        _ => Some("not a table"),
    };
    if let Some(what) = what {
        findings.push(Finding::refuse(
            Kind::Table,
            format!("{TABLE} is {what}; rekey re-encrypts one ordinary table"),
            "Name the database in which it is the application's own table",
        ));
        return Ok(None);
    }
    if persistence != "p" {
        findings.push(Finding::warn(
            Kind::Unlogged,
            format!("{TABLE} is unlogged, so a crash of the server empties it"),
            format!("ALTER TABLE {TABLE} SET LOGGED"),
        ));
    }
    let usable = columns(conn, oid, findings).await?;
    Ok(Some(Table { oid, usable }))
}

async fn columns(conn: &mut PgConnection, oid: Oid, findings: &mut Vec<Finding>) -> Result<bool, StoreError> {
    let (id, credentials, key, generated) = shape(conn, oid).await?;
    let mut usable = true;
    for (found, column, expected) in [(id, "id", "uuid"), (credentials, "encrypted_credentials", "bytea")] {
        let message = match found {
            Some(found) if found == expected => continue,
            Some(found) => format!("Column {column} of {TABLE} has type {found}, not {expected}"),
            None => format!("{TABLE} has no column {column}"),
        };
        usable = false;
        findings.push(Finding::refuse(
            Kind::Columns,
            message,
            "Apply the application's migrations to the table",
        ));
    }
    if generated {
        usable = false;
        findings.push(Finding::refuse(
            Kind::Columns,
            format!("Column encrypted_credentials of {TABLE} is a generated column and can't be written"),
            "Apply the application's migrations to the table",
        ));
    }
    if key.as_deref() != Some(&["id".to_owned()]) {
        usable = false;
        let found = key.map_or("none".to_owned(), |key| format!("({})", key.join(", ")));
        findings.push(Finding::refuse(
            Kind::Columns,
            format!("The primary key of {TABLE} is {found}, not (id)"),
            format!("ALTER TABLE {TABLE} ADD PRIMARY KEY (id)"),
        ));
    }
    Ok(usable)
}

/// True where row-level security applies to this role. Sessions of ours set `row_security = off`: reading would
/// then fail rather than silently leave rows out.
pub(super) async fn row_security(
    conn: &mut PgConnection,
    table: &Table,
    findings: &mut Vec<Finding>,
) -> Result<bool, StoreError> {
    let (active, role, policies) = row_security_of(conn, table.oid).await?;
    if active {
        findings.push(Finding::refuse(
            Kind::RowSecurity,
            format!(
                "Row-level security ({policies} policies) applies to role {role}; it may hide rows, \
                which would stay on the old key"
            ),
            format!("ALTER ROLE {role} BYPASSRLS for the time of the rotation, or use the table's owner"),
        ));
    }
    Ok(active)
}

/// Whether there is anything to re-encrypt; an empty table is more likely the wrong database than a success.
pub(super) async fn has_rows(
    conn: &mut PgConnection,
    facts: &TableFacts,
    findings: &mut Vec<Finding>,
) -> Result<bool, StoreError> {
    if !is_filled(conn).await? {
        let expected = if facts.rows >= 1.0 {
            format!(", but about {:.0} were expected", facts.rows)
        } else {
            String::new()
        };
        findings.push(Finding::refuse(
            Kind::EmptyTable,
            format!("{TABLE} has no visible row{expected}"),
            "Check that DATABASE_URL names the right database",
        ));
        return Ok(false);
    }
    if !is_analyzed(conn).await? {
        findings.push(Finding::note(
            Kind::Estimates,
            format!("{TABLE} was never analyzed, so forecasts and chunk sizes are rough"),
            format!("ANALYZE {TABLE}"),
        ));
    }
    Ok(true)
}
