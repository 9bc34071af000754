//! What happens besides when a row is updated: triggers, rules, logical replication, indexes.

use sqlx::{PgConnection, Row};

use super::finding::{Finding, Kind};
use super::shape::Table;
use crate::store::TABLE;
use crate::store::error::{Statement, StoreError};

/// Bit 4 of tgtype: fires on UPDATE (src/include/catalog/pg_trigger.h).
pub(super) async fn triggers(
    conn: &mut PgConnection,
    table: &Table,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT quote_ident(t.tgname) FROM pg_catalog.pg_trigger t WHERE t.tgrelid = $1 AND NOT t.tgisinternal \
         AND t.tgenabled IN ('O', 'A') AND t.tgtype & 16 <> 0 AND (cardinality(t.tgattr::int2[]) = 0 OR EXISTS \
         (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attname = 'encrypted_credentials' \
         AND a.attnum = ANY (t.tgattr::int2[]))) ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(conn)
    .during("look for triggers")
    .await?;
    if !names.is_empty() {
        findings.push(Finding::refuse(
            Kind::UserTriggers,
            format!("{} on UPDATE of {TABLE} will fire for every row that is re-encrypted", names.join(", ")),
            format!(
                "ALTER TABLE {TABLE} DISABLE TRIGGER {} for the time of the rotation, if that is safe",
                names[0]
            ),
        ));
    }
    Ok(())
}

pub(super) async fn rules(
    conn: &mut PgConnection,
    table: &Table,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT quote_ident(rulename) FROM pg_catalog.pg_rewrite WHERE ev_class = $1 AND ev_type = '2' AND ev_enabled <> 'D' ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(conn)
    .during("look for rules")
    .await?;
    if !names.is_empty() {
        findings.push(Finding::refuse(
            Kind::Rules,
            format!("rule {} rewrites updates of {TABLE}", names.join(", ")),
            format!(
                "ALTER TABLE {TABLE} DISABLE RULE {} for the time of the rotation, if that is safe",
                names[0]
            ),
        ));
    }
    Ok(())
}

pub(super) async fn publications(
    conn: &mut PgConnection,
    table: &Table,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT relreplident::text FROM pg_catalog.pg_class WHERE oid = $1), \
         (SELECT coalesce(array_agg(p.pubname::text ORDER BY p.pubname), '{}') FROM pg_catalog.pg_publication_tables t \
         JOIN pg_catalog.pg_publication p USING (pubname) WHERE p.pubupdate AND t.schemaname = 'public' \
         AND t.tablename = 'provider_connections')",
    )
    .bind(table.oid)
    .fetch_one(conn)
    .during("look for publications")
    .await?;
    let (identity, names): (String, Vec<String>) = (row.get(0), row.get(1));
    if names.is_empty() {
        return Ok(());
    }
    let names = names.join(", ");
    if identity == "n" {
        findings.push(Finding::refuse(
            Kind::ReplicaIdentity,
            format!("publication {names} sends updates of {TABLE}, which has no replica identity: every update fails"),
            format!("ALTER TABLE {TABLE} REPLICA IDENTITY DEFAULT"),
        ));
        return Ok(());
    }
    let cost = match identity.as_str() {
        "f" => "with REPLICA IDENTITY FULL each row goes into the WAL and to subscribers twice, old and new",
        _ => "each re-encrypted row is sent to its subscribers, which then need the new key",
    };
    findings.push(Finding::warn(
        Kind::Publication,
        format!("publication {names} carries {TABLE}: {cost}"),
        "watch the subscribers' lag; stop a subscriber that must not follow",
    ));
    Ok(())
}

pub(super) async fn indexes(
    conn: &mut PgConnection,
    table: &Table,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT d.objid::regclass::text FROM pg_catalog.pg_depend d \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
         JOIN pg_catalog.pg_index x ON x.indexrelid = d.objid \
         WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass \
         AND d.refobjid = $1 AND a.attname = 'encrypted_credentials'",
    )
    .bind(table.oid)
    .fetch_all(conn)
    .during("look for indexes on the credentials")
    .await?;
    if !names.is_empty() {
        findings.push(Finding::warn(
            Kind::IndexedColumn,
            format!(
                "index {} depends on encrypted_credentials: no update can stay on its page, all indexes grow",
                names.join(", ")
            ),
            "drop it for the time of the rotation; expect a third of the rate otherwise",
        ));
    }
    Ok(())
}
