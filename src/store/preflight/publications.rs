//! Publications: who else gets each re-encrypted row, and rekey's own tables.

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

use super::For;
use super::finding::{About, Finding, Kind};
use crate::store::error::StoreError;
use crate::store::statement::statements;
use crate::store::{TABLE, schema};

pub(super) const PUBLICATION: About = About {
    name: "publication",
    may_be_allowed: true,
    meaning: "Logical replication sends every re-encrypted row, so subscribers need the new key too",
    remedy: "Give the subscribers the new key when the application gets it. Disable a subscription that must \
        not follow",
};

pub(super) const ALL_TABLES: About = About {
    name: "all-tables",
    may_be_allowed: true,
    meaning: "A publication for all tables would publish rekey's own tables; a subscriber without those \
        tables stops replicating",
    remedy: "Publish the application's schema instead of all tables, or create rekey's tables on each subscriber first",
};

statements! {
    /// Publications that send updates of the table, and logical slots of this database, whose readers may be subscribers.
    fn carrying(table: Oid) -> One<(Vec<String>, bool)> during "look for publications":
        "SELECT ARRAY(SELECT quote_ident(p.pubname) FROM pg_catalog.pg_publication_tables t \
     JOIN pg_catalog.pg_publication p USING (pubname) WHERE p.pubupdate AND t.schemaname = 'public' \
     AND t.tablename = 'provider_connections' ORDER BY 1), \
     (SELECT relreplident = 'f' FROM pg_catalog.pg_class WHERE oid = $1)";

    /// Slots belong to subscribers; which publications one reads is known to it alone.
    fn for_all_tables() -> One<(Vec<String>, Vec<String>)> during "look for publications":
        "SELECT ARRAY(SELECT quote_ident(pubname) FROM pg_catalog.pg_publication WHERE puballtables ORDER BY 1), \
     ARRAY(SELECT quote_ident(slot_name) FROM pg_catalog.pg_replication_slots \
     WHERE slot_type = 'logical' AND database = current_database() ORDER BY 1)";
}

/// Who gets the table's rows.
pub(super) async fn look(
    conn: &mut PgConnection,
    table: Oid,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let (names, whole) = carrying(conn, table).await?;
    if names.is_empty() {
        return Ok(());
    }
    let cost = if whole {
        "with REPLICA IDENTITY FULL, WAL and subscribers get each row twice, old and new"
    } else {
        "its subscribers get each re-encrypted row and then need the new key"
    };
    findings.push(Finding::warn(
        Kind::Publication,
        format!("Publication {} sends {TABLE}: {cost}", names.join(", ")),
        "Watch the subscribers' lag. Disable a subscription that must not follow",
    ));
    Ok(())
}

/// Whether rekey's own tables, once they are made or changed, would stop a subscriber that does not know them.
pub(super) async fn of_our_own(
    conn: &mut PgConnection,
    purpose: For,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let (names, slots) = for_all_tables(conn).await?;
    if names.is_empty() || schema::is_current(conn).await? {
        return Ok(());
    }
    let names = names.join(", ");
    let remedy = format!(
        "replace it with a publication of the application's schema (CREATE PUBLICATION … FOR TABLES IN SCHEMA public). Or, on each \
         subscriber, run the SQL of `rekey init --print-sql`, then TRUNCATE rekey._sqlx_migrations, rekey.chain; then pass \
         --allow {} and let each subscription run ALTER SUBSCRIPTION … REFRESH PUBLICATION",
        ALL_TABLES.name
    );
    findings.push(match (slots.as_slice(), purpose) {
        ([], _) => Finding::warn(
            Kind::AllTables,
            format!(
                "Publication {names} is for all tables, so it will publish rekey's own tables too; no \
                subscriber has a slot now"
            ),
            remedy,
        ),
        (slots, For::Rollback) => Finding::warn(Kind::AllTables, told(&names, slots), remedy),
        (slots, _) => Finding::refuse(Kind::AllTables, told(&names, slots), remedy),
    });
    Ok(())
}

fn told(names: &str, slots: &[String]) -> String {
    format!(
        "Publication {names} is for all tables, so it would publish schema rekey; a subscriber without \
         rekey's tables stops replicating (logical slots here: {})",
        slots.join(", ")
    )
}
