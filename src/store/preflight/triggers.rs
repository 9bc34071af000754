//! Triggers that fire on each row that is re-encrypted. Which of them belong to a tool that copies the table is told in
//! `copiers`; what the others do, only their owner knows.

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

use super::copiers;
use super::finding::{About, Finding, Kind};
use crate::store::TABLE;
use crate::store::error::StoreError;
use crate::store::statement::{row, statements};

pub(super) const TRIGGERS: About = About {
    name: "user-triggers",
    may_be_allowed: true,
    meaning: "Triggers fire for every row that rekey re-encrypts",
    remedy: "Read what each trigger does, then allow it. Disable one only if it rejects, changes or reports \
        rows; never one that copies rows elsewhere",
};

/// A trigger on UPDATE, with its function.
pub(super) struct Trigger {
    /// As it is written in SQL.
    pub(super) name: String,
    pub(super) function_schema: String,
    pub(super) function_name: String,
    /// It fires in a session like rekey's.
    pub(super) fires: bool,
    /// It fires whatever `session_replication_role` says.
    pub(super) always: bool,
}

row!(Trigger { name, function_schema, function_name, fires, always });

statements! {
    /// Bit 4 of tgtype: fires on UPDATE (src/include/catalog/pg_trigger.h).
    fn on_update(table: Oid) -> All<Trigger> during "look for triggers":
        "SELECT quote_ident(t.tgname) AS name, n.nspname::text AS function_schema, p.proname::text AS function_name, \
     t.tgenabled = 'A' OR t.tgenabled = CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END \
     AS fires, t.tgenabled = 'A' AS always \
     FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid \
     JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE t.tgrelid = $1 AND NOT t.tgisinternal \
     AND t.tgtype & 16 <> 0 AND (cardinality(t.tgattr::int2[]) = 0 OR EXISTS \
     (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attname = 'encrypted_credentials' \
     AND a.attnum = ANY (t.tgattr::int2[]))) ORDER BY t.tgname";
}

pub(super) async fn look(
    conn: &mut PgConnection,
    table: Oid,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let triggers = on_update(conn, table).await?;
    let mut firing = Vec::new();
    for trigger in triggers {
        match copiers::look(&trigger) {
            Some(finding) => findings.extend(finding),
            None if trigger.fires => firing.push(trigger),
            None => {}
        }
    }
    if !firing.is_empty() {
        findings.push(tell(&firing));
    }
    Ok(())
}

fn tell(firing: &[Trigger]) -> Finding {
    let each = |write: &dyn Fn(&Trigger) -> String| firing.iter().map(write).collect::<Vec<_>>().join(", ");
    let named = each(&|t| format!("{} ({}.{})", t.name, t.function_schema, t.function_name));
    // Replication and the tools that copy tables want theirs fired always; hardly anybody else does.
    let disable = if firing.iter().any(|trigger| trigger.always) {
        "Disable none of them: a trigger that fires always (ENABLE ALWAYS) may copy rows elsewhere".to_owned()
    } else {
        format!(
            "If one of them rejects, changes or reports rows, disable it for the rotation: ALTER TABLE {TABLE} {}. Never disable \
             a trigger that copies rows elsewhere",
            each(&|trigger| format!("DISABLE TRIGGER {}", trigger.name))
        )
    };
    Finding::refuse(
        Kind::UserTriggers,
        format!("{named} on UPDATE of {TABLE} will fire for every row that rekey re-encrypts"),
        format!("Read what these functions do, and allow them with `--allow user-triggers`. {disable}"),
    )
}
