//! Other tables with a column of the credential's name: in a tenant's schema, or a history. rekey leaves them as they are.

use sqlx::PgConnection;

use super::finding::{About, Finding, Kind};
use crate::store::TABLE;
use crate::store::error::StoreError;
use crate::store::statement::statements;

pub(super) const OTHERS: About = About {
    name: "other-credentials",
    may_be_allowed: true,
    meaning: "Other tables have a column encrypted_credentials; rekey does not re-encrypt them, so they stay \
        on the old key",
    remedy: "Find out whether the application reads them, and keep the old key as long as it does",
};

/// Named at most.
const SHOWN: usize = 10;

statements! {
    /// Whatever holds rows of its own.
    fn tables() -> All<String> during "look for other credentials":
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_catalog.pg_attribute a \
         JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE a.attname = 'encrypted_credentials' AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm') \
         AND NOT c.relispartition AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'rekey') \
         AND NOT (n.nspname = 'public' AND c.relname = 'provider_connections') ORDER BY 1";
}

/// The finding, for whoever else must know: a finalize retires the key that these rows are on.
pub async fn look(conn: &mut PgConnection) -> Result<Option<Finding>, StoreError> {
    let tables = tables(conn).await?;
    let named = tables.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match tables.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Ok((!tables.is_empty()).then(|| {
        Finding::warn(
            Kind::OtherCredentials,
            format!(
                "{named}{more} also have a column encrypted_credentials. rekey re-encrypts only {TABLE}, so \
                 their rows stay on their key"
            ),
            "Find out whether the application reads them. As long as it does, keep the old key and do not \
             run `rekey keys destroy`",
        )
    }))
}
