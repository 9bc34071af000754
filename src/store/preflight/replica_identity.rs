//! Publications under which PostgreSQL refuses every update of the table: a replica identity that is missing, or that a
//! row filter or a column list does not fit.

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

use super::finding::{About, Finding, Kind};
use crate::store::TABLE;
use crate::store::error::StoreError;
use crate::store::statement::{row, statements};

pub(super) const IDENTITY: About = About {
    name: "replica-identity",
    may_be_allowed: false,
    meaning: "A publication sends updates of the table, but the table's replica identity is missing or does \
        not fit the publication's row filter or column list; PostgreSQL refuses every update",
    remedy: "Give the table a replica identity, or change the publication's row filter or column list",
};

struct Published {
    publication: String,
    /// `pg_class.relreplident`.
    kind: String,
    missing: bool,
    filter: bool,
    list: bool,
}

row!(Published { publication, kind, missing, filter, list });

statements! {
    /// As the server checks it before an update (CheckCmdReplicaIdentity, src/backend/executor/execReplication.c). The columns
    /// of an expression stand in its stored form.
    fn published(table: Oid) -> All<Published> during "look for publications":
        r"WITH identity AS (SELECT c.relreplident::text AS kind, c.relreplident = 'f' AS whole,
     (SELECT x.indkey::int2[] FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid AND x.indisvalid AND x.indisunique
     AND x.indimmediate AND CASE c.relreplident WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident END) AS columns
     FROM pg_catalog.pg_class c WHERE c.oid = $1)
     SELECT quote_ident(p.pubname) AS publication, i.kind, i.columns IS NULL AND NOT i.whole AS missing,
     coalesce(NOT i.whole AND r.prqual IS NOT NULL AND EXISTS (SELECT FROM regexp_matches(r.prqual::text, ':varattno (\d+)', 'g') v
     WHERE v[1]::int2 <> ALL (i.columns)), false) AS filter,
     coalesce(r.prattrs IS NOT NULL AND (i.whole OR NOT i.columns <@ r.prattrs::int2[]), false) AS list
     FROM identity i, pg_catalog.pg_publication_tables t JOIN pg_catalog.pg_publication p USING (pubname)
     LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = $1
     WHERE p.pubupdate AND t.schemaname = 'public' AND t.tablename = 'provider_connections' ORDER BY p.pubname";
}

pub(super) async fn look(
    conn: &mut PgConnection,
    table: Oid,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    findings.extend(published(conn, table).await?.into_iter().filter_map(judge));
    Ok(())
}

fn judge(p: Published) -> Option<Finding> {
    let name = p.publication;
    let (why, remedy) = if p.missing {
        let why = match p.kind.as_str() {
            "i" => "the index of its replica identity was dropped",
            "d" => "its primary key is deferrable and can't be its replica identity",
            _ => "it has no replica identity",
        };
        let remedy = match p.kind.as_str() {
            "d" => format!("ALTER TABLE {TABLE} REPLICA IDENTITY FULL"),
            _ => format!("ALTER TABLE {TABLE} REPLICA IDENTITY DEFAULT"),
        };
        (why, remedy)
    } else if p.filter {
        (
            "the publication's row filter names a column outside the replica identity",
            format!(
                "Filter by id only, or run `ALTER TABLE {TABLE} REPLICA IDENTITY FULL`, or stop publishing \
                 updates: `ALTER PUBLICATION {name} SET (publish = 'insert, delete, truncate')`"
            ),
        )
    } else if p.list {
        (
            "the publication's column list leaves out a column of the replica identity",
            format!(
                "ALTER PUBLICATION {name} SET TABLE {TABLE} (id, …), with every column of the replica identity"
            ),
        )
    } else {
        return None;
    };
    Some(Finding::refuse(
        Kind::ReplicaIdentity,
        format!("Publication {name} sends updates of {TABLE}, but {why}; every update fails"),
        remedy,
    ))
}
