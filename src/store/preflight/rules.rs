//! Rules that rewrite an update of the table.

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

use super::finding::{About, Finding, Kind};
use crate::store::TABLE;
use crate::store::error::StoreError;
use crate::store::statement::statements;

pub(super) const RULES: About = About {
    name: "rules",
    may_be_allowed: false,
    meaning: "A rule rewrites updates of the table",
    remedy: "Disable the rule during the rotation, if that is safe",
};

statements! {
    fn on_update(table: Oid) -> All<String> during "look for rules":
        "SELECT quote_ident(rulename) FROM pg_catalog.pg_rewrite WHERE ev_class = $1 AND ev_type = '2' AND ev_enabled <> 'D' ORDER BY 1";
}

pub(super) async fn look(
    conn: &mut PgConnection,
    table: Oid,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let names = on_update(conn, table).await?;
    if !names.is_empty() {
        findings.push(Finding::refuse(
            Kind::Rules,
            format!("Rule {} rewrites updates of {TABLE}", names.join(", ")),
            format!(
                "If that is safe, run this for the time of the rotation: `{}`",
                names
                    .iter()
                    .map(|name| format!("ALTER TABLE {TABLE} DISABLE RULE {name}"))
                    .collect::<Vec<_>>()
                    .join("; ")
            ),
        ));
    }
    Ok(())
}
