//! Rows that the index of their primary key does not lead to, because it is damaged or half built: whatever reads by id
//! misses them, and takes them for deleted.
//!
//! What a caller does about them is not decided here. Every connection that asks keeps the planner from reading the heap
//! instead: by its purpose, or by [`only_by_index`] in a transaction.

use sqlx::PgConnection;
use uuid::Uuid;

use super::error::StoreError;
use super::statement::statements;
use crate::rotation::Tid;

const OP: &str = "look for rows that the index does not lead to";

/// Ids that are looked for together.
const TOGETHER: usize = 3000;

statements! {
    /// The planner finds rows of an id by an index, in this transaction.
    pub fn only_by_index() during OP:
        "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), \
         set_config('enable_tidscan', 'on', true), set_config('enable_nestloop', 'on', true)";

    /// Which of the rows at these places the index does not lead to: in one snapshot they are there, and not found by id.
    pub fn unknown(places: &[Tid]) -> All<Uuid> during OP:
        "SELECT t.id FROM public.provider_connections t WHERE t.ctid = ANY($1) \
         AND NOT EXISTS (SELECT FROM public.provider_connections i WHERE i.id = t.id)";

    fn known(ids: &[Uuid]) -> All<Uuid> during OP:
        "SELECT id FROM public.provider_connections WHERE id = ANY($1)";

    fn primary_key() -> Optional<String> during OP:
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE i.indrelid = 'public.provider_connections'::pg_catalog.regclass AND i.indisprimary";
}

/// The index of the primary key, as SQL names it.
pub async fn name(conn: &mut PgConnection) -> Result<String, StoreError> {
    Ok(primary_key(conn).await?.unwrap_or_else(|| "provider_connections_pkey".into()))
}

/// Refuses to go on where there are such rows.
pub async fn refuse(conn: &mut PgConnection, unknown: &[Uuid]) -> Result<(), StoreError> {
    match unknown {
        [] => Ok(()),
        [id, ..] => {
            let (id, rows) = (*id, unknown.len());
            Err(StoreError::Unindexed { index: name(conn).await?, id, rows })
        }
    }
}

/// Refuses to go on where the index does not lead to one of these rows. For a transaction whose snapshot has all of them.
pub async fn require(conn: &mut PgConnection, ids: &[Uuid]) -> Result<(), StoreError> {
    for ids in ids.chunks(TOGETHER) {
        let found = known(conn, ids).await?;
        refuse(conn, &missing(ids, found)).await?;
    }
    Ok(())
}

/// Those of `asked` that are not among `found`.
pub fn missing(asked: &[Uuid], mut found: Vec<Uuid>) -> Vec<Uuid> {
    found.sort_unstable();
    asked.iter().filter(|id| found.binary_search(id).is_err()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_and_not_found_is_missing() {
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        assert_eq!(missing(&[a, b, c], vec![c, a]), [b]);
        assert!(missing(&[a, a, b], vec![b, a]).is_empty());
        assert_eq!(missing(&[c], vec![]), [c]);
    }
}
