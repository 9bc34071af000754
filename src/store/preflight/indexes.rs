//! Indexes that hold the credential: with one of them no update can stay on its page.

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

use super::finding::{About, Finding, Kind};
use crate::store::error::StoreError;
use crate::store::statement::statements;

pub(super) const INDEXED: About = About {
    name: "indexed-column",
    may_be_allowed: true,
    meaning: "An index contains the credential column, so no update is HOT and every index of the table grows",
    remedy: "Drop the index during the rotation, or expect a third of the rate",
};

statements! {
    /// An index depends on the column by its key, an INCLUDE column, an expression or its predicate, or by a constraint; or on
    /// a generated column that is made of it. An index that only summarizes (BRIN) does not hinder HOT from PostgreSQL 16 on.
    fn on_credential(table: Oid) -> All<String> during "look for indexes on the credentials":
        "WITH credential AS (SELECT attnum FROM pg_catalog.pg_attribute \
     WHERE attrelid = $1 AND attname = 'encrypted_credentials' AND NOT attisdropped \
     UNION SELECT g.adnum FROM pg_catalog.pg_attrdef g JOIN pg_catalog.pg_attribute made ON made.attrelid = $1 \
     AND made.attnum = g.adnum AND made.attgenerated = 's' \
     JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = g.oid \
     JOIN pg_catalog.pg_attribute a ON a.attrelid = $1 AND a.attnum = d.refobjsubid AND a.attname = 'encrypted_credentials' \
     WHERE g.adrelid = $1 AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = $1) \
     SELECT x.indexrelid::regclass::text FROM pg_catalog.pg_index x \
     JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam \
     WHERE x.indrelid = $1 AND NOT (m.amname = 'brin' AND current_setting('server_version_num')::int >= 160000) \
     AND EXISTS (SELECT FROM credential WHERE attnum = ANY (x.indkey::int2[]) OR EXISTS (SELECT FROM pg_catalog.pg_depend d \
     WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = x.indexrelid AND d.refobjid = $1 \
     AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid = attnum)) ORDER BY 1";
}

pub(super) async fn look(
    conn: &mut PgConnection,
    table: Oid,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let names = on_credential(conn, table).await?;
    if !names.is_empty() {
        findings.push(Finding::warn(
            Kind::IndexedColumn,
            format!(
                "Index {} contains encrypted_credentials, so no update is HOT and every index of the table \
                 grows",
                names.join(", ")
            ),
            "Drop it during the rotation, or expect a third of the rate and several times the WAL",
        ));
    }
    Ok(())
}
