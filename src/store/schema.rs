//! Schema `rekey`: created under a lock, because several pods start in the same second.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection as _, PgConnection, SqlSafeStr as _};

use super::error::{During, StoreError, pass_point};
use super::statement::statements;
use crate::fault_point::Side;

/// Every migration, the oldest first: number, name and text.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "ledger", include_str!("../../migrations/0001_ledger.sql")),
    (2, "trail", include_str!("../../migrations/0002_trail.sql")),
    (3, "waiting", include_str!("../../migrations/0003_waiting.sql")),
    (4, "origin", include_str!("../../migrations/0004_origin.sql")),
    (5, "operator", include_str!("../../migrations/0005_operator.sql")),
    (6, "version", include_str!("../../migrations/0006_version.sql")),
    (7, "triggers", include_str!("../../migrations/0007_triggers.sql")),
    (8, "samples", include_str!("../../migrations/0008_samples.sql")),
    (9, "found", include_str!("../../migrations/0009_found.sql")),
];

/// Made here and not by sqlx's macro, for whose sake sqlx, tokio and TLS would be compiled a second time.
static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let migrations = MIGRATIONS.iter().map(|&(number, name, text)| {
        Migration::new(number, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name("rekey._sqlx_migrations");
    migrator.create_schema("rekey");
    migrator
});

/// "rekey" in ASCII, for rekey's advisory locks.
pub const LOCK: i64 = 0x72_656b_6579;

statements! {
    /// Whether rekey's tables are there. Needs no privilege: `to_regclass` would raise an error without USAGE.
    pub fn exists() -> One<bool> during LOOK:
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'rekey' AND c.relname = 'chain')";

    /// Whether rekey's tables are there and this role may read, of all their rows, what they say of rotations.
    pub fn is_readable() -> One<bool> during LOOK:
        "SELECT count(*) = 3 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_roles me ON me.rolname = current_user WHERE n.nspname = 'rekey' \
         AND c.relname IN ('rotations', 'passes', 'chunks') AND has_schema_privilege(n.oid, 'USAGE') \
         AND has_table_privilege(c.oid, 'SELECT') AND NOT (c.relrowsecurity AND NOT me.rolsuper AND NOT me.rolbypassrls \
         AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')))";

    fn is_made() -> One<bool> during LOOK:
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'rekey')";

    fn migrations_are_readable() -> One<bool> during "look for rekey's migrations":
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_roles me ON me.rolname = current_user \
         WHERE n.nspname = 'rekey' AND c.relname = '_sqlx_migrations' AND has_schema_privilege(n.oid, 'USAGE') \
         AND has_table_privilege(c.oid, 'SELECT') AND NOT (c.relrowsecurity AND NOT me.rolsuper AND NOT me.rolbypassrls \
         AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE'))))";

    fn applied() -> All<i64> during "read rekey's migrations":
        "SELECT version FROM rekey._sqlx_migrations WHERE success";

    fn needs() -> One<Option<String>> during "read rekey's migrations":
        "SELECT obj_description('rekey.rotations'::regclass, 'pg_class')";

    fn try_lock(lock: i64) -> One<bool> during "lock the schema":
        "SELECT pg_try_advisory_lock($1)";

    fn unlock(lock: i64) during "unlock the schema":
        "SELECT pg_advisory_unlock($1)";

    /// Event triggers, as SQL names them, that run for the statements of a migration.
    pub(super) fn event_triggers() -> All<String> during "look for event triggers":
        "SELECT quote_ident(evtname) FROM pg_catalog.pg_event_trigger WHERE evtenabled IN ('O', 'A') \
         AND evtevent IN ('ddl_command_start', 'ddl_command_end') AND (evttags IS NULL OR evttags && ARRAY['CREATE SCHEMA', \
         'CREATE TABLE', 'CREATE INDEX', 'CREATE FUNCTION', 'CREATE TRIGGER', 'ALTER TABLE']) ORDER BY 1";
}

const LOOK: &str = "look for schema rekey";

/// The number of the newest migration that this binary knows.
pub(super) fn newest() -> i64 {
    MIGRATIONS.iter().map(|(number, ..)| *number).max().unwrap_or_default()
}

/// Which rekey made the tables last.
enum Maker {
    /// One that knows the migrations which this binary knows, as far as this role can tell.
    Same,
    /// An older one, or none.
    Older,
    /// A newer one, with what the tables say of it.
    Newer(String),
}

async fn maker(conn: &mut PgConnection) -> Result<Maker, StoreError> {
    if !migrations_are_readable(conn).await? {
        return Ok(if exists(conn).await? { Maker::Same } else { Maker::Older });
    }
    let applied = applied(conn).await?;
    if applied.iter().any(|number| *number > newest()) {
        return Ok(Maker::Newer(needs(conn).await?.unwrap_or_else(|| "needs a newer rekey".to_owned())));
    }
    let all = MIGRATOR.iter().all(|m| applied.contains(&m.version));
    Ok(if all { Maker::Same } else { Maker::Older })
}

/// Whether every migration of this binary is applied, as far as this role can tell.
pub(super) async fn is_current(conn: &mut PgConnection) -> Result<bool, StoreError> {
    Ok(matches!(maker(conn).await?, Maker::Same))
}

/// Whether rekey's tables are there. Refuses those that another version has made.
pub async fn is_there(conn: &mut PgConnection) -> Result<bool, StoreError> {
    if !exists(conn).await? {
        return Ok(false);
    }
    match maker(conn).await? {
        Maker::Same => Ok(true),
        Maker::Older => Err(StoreError::OlderLedger),
        Maker::Newer(needs) => Err(StoreError::NewerLedger { needs }),
    }
}

/// Updates the tables of an older version, where there are any.
pub async fn upgrade(conn: &mut PgConnection) -> Result<(), StoreError> {
    match exists(conn).await? {
        true => ensure(conn).await,
        false => Ok(()),
    }
}

/// Creates or updates the schema. A role that may not create it is fine as long as there is nothing to do.
pub async fn ensure(conn: &mut PgConnection) -> Result<(), StoreError> {
    match maker(conn).await? {
        Maker::Same => return Ok(()),
        Maker::Newer(needs) => return Err(StoreError::NewerLedger { needs }),
        Maker::Older => {}
    }
    // sqlx takes an advisory lock itself, but creates it from the database's name only and waits without limit;
    // ours is waited for politely, so that lock_timeout can stay short.
    let started = std::time::Instant::now();
    loop {
        if try_lock(conn, LOCK).await? {
            break;
        }
        if started.elapsed() > Duration::from_secs(60) {
            return Err(StoreError::Timeout { op: "lock the schema", limit: Duration::from_secs(60) });
        }
        tokio::time::sleep(super::connect::jitter(Duration::from_millis(200))).await;
    }
    let done = match is_current(conn).await {
        Ok(true) => Ok(()),
        Ok(false) => migrate(conn).await,
        Err(e) => Err(e),
    };
    unlock(conn, LOCK).await?;
    done
}

async fn migrate(conn: &mut PgConnection) -> Result<(), StoreError> {
    const OP: &str = "create or update schema rekey";
    pass_point(Side::Before, OP).during(OP)?;
    // CREATE SCHEMA IF NOT EXISTS needs the right to create one even where a DBA has made it.
    let migrator = Migrator {
        migrations: MIGRATOR.migrations.clone(),
        table_name: MIGRATOR.table_name.clone(),
        create_schemas: if is_made(conn).await? {
            Cow::Borrowed(&[])
        } else {
            MIGRATOR.create_schemas.clone()
        },
        ..Migrator::DEFAULT
    };
    // One transaction for all of them: no command meets a ledger of a version in between.
    let mut tx = conn.begin().await.during(OP)?;
    let done = migrator.run(&mut *tx).await;
    match done {
        Ok(()) => tx.commit().await.during(OP)?,
        Err(_) => tx.rollback().await.during(OP)?,
    }
    if let Err(source) = done {
        let triggers = event_triggers(conn).await.unwrap_or_default();
        return Err(StoreError::Migrate { source: Box::new(source), triggers });
    }
    pass_point(Side::After, OP).during(OP)
}

/// Everything that [`ensure`] would run, sqlx's bookkeeping included, so that a later version can tell what is there. Can be
/// run again, and on a schema of an older version: what was applied is left out.
pub fn sql() -> String {
    let mut sql = String::from(
        "CREATE SCHEMA IF NOT EXISTS rekey;\nCREATE TABLE IF NOT EXISTS rekey._sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, \
         installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, \
         execution_time bigint NOT NULL);\n\n",
    );
    for m in MIGRATOR.iter() {
        let checksum: String = m.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
        sql.push_str(&format!(
            "DO $rekey$ BEGIN IF NOT EXISTS (SELECT FROM rekey._sqlx_migrations WHERE version = {}) THEN EXECUTE $migration$\n\
             {}\n$migration$;\nINSERT INTO rekey._sqlx_migrations (version, description, success, checksum, execution_time)\n    \
             VALUES ({}, '{}', true, '\\x{checksum}', 0);\nEND IF; END $rekey$;\n\n",
            m.version,
            m.sql.as_str().trim_end(),
            m.version,
            m.description.replace('\'', "''"),
        ));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::MIGRATIONS;

    #[test]
    fn every_file_is_a_migration() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let files = std::fs::read_dir(folder).expect("a folder").flatten();
        let mut files: Vec<String> = files.filter_map(|file| file.file_name().into_string().ok()).collect();
        files.sort();
        let named = |&(number, name, _): &(i64, &str, &str)| format!("{number:04}_{name}.sql");
        assert_eq!(files, MIGRATIONS.iter().map(named).collect::<Vec<_>>());
    }
}
