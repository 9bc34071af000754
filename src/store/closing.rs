//! The closing proof's statement: every row that something else wrote since the pass began, over one snapshot.
//!
//! What is done about such rows is decided in `engine::closing`.

use futures::TryStreamExt;
use sqlx::{Connection, PgConnection};

use super::error::{During, Statement, StoreError, pass_point};
use super::ledger::Pass;
use super::rows::{self, Read, read_columns};
use crate::fault_point::Side;

// What a row must be to be looked at. The fence (OFFSET 0) keeps `age()` above the join: it is not parallel-safe, and
// below it would keep the scan on one core.
macro_rules! proof {
    ($but:literal) => {
        concat!(
            "SELECT * FROM (SELECT ",
            read_columns!("$2"),
            " FROM public.provider_connections t WHERE t.encrypted_credentials IS NOT NULL",
            $but,
            " OFFSET 0) s WHERE age(s.xmin) <= age($1)"
        )
    };
}

/// A proof row vouches only for what the very transaction that wrote it wrote: in a ledger that was restored from a dump
/// its recorded id is another database's, and may be an application's here.
const PROOF: &str = proof!(
    " AND NOT EXISTS (SELECT FROM rekey.proofs p WHERE p.rotation = $3 AND p.direction = $4 AND p.xid::xid = t.xmin \
     AND p.xmin = t.xmin)"
);

/// Where a trigger of somebody's has a say, our transactions may have written other rows than ours, and other bytes:
/// every row they touched is opened as well.
const PROOF_BESIDE_TRIGGERS: &str = proof!("");
const HAS_TRIGGERS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = \
     'public.provider_connections'::regclass AND NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 16 <> 0 \
     AND (cardinality(tgattr::int2[]) = 0 OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = tgrelid \
     AND a.attname = 'encrypted_credentials' AND a.attnum = ANY (tgattr::int2[]))))";

/// The proof may be long, and should not be: next to nothing comes back, so sharing the scan costs nothing.
const SETTINGS: &str =
    "SET LOCAL statement_timeout = 0; SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0";

/// Hands on each row that something else wrote since the pass's horizon; values longer than `max` bytes are left out.
/// Returns the file that the heap is in.
pub async fn read_foreign<E: From<StoreError>>(
    conn: &mut PgConnection,
    pass: &Pass,
    max: i32,
    mut each: impl FnMut(Read<'_>) -> Result<(), E>,
) -> Result<i64, E> {
    const OP: &str = "prove that none is left";
    let mut tx = conn.begin().during("begin the closing proof").await?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).during("begin the closing proof").await?;
    let triggers: bool =
        sqlx::query_scalar(HAS_TRIGGERS).fetch_one(&mut *tx).during("look for triggers").await?;
    {
        let proof = sqlx::query(if triggers { PROOF_BESIDE_TRIGGERS } else { PROOF });
        let proof = proof.bind(pass.horizon_xid()).bind(max);
        let proof = if triggers { proof } else { proof.bind(pass.rotation).bind(pass.direction.as_str()) };
        let mut found = proof.fetch(&mut *tx);
        pass_point(Side::Before, OP).during(OP)?;
        while let Some(row) = found.try_next().await.during(OP)? {
            each(rows::decode(&row).during(OP)?)?;
        }
        pass_point(Side::After, OP).during(OP)?;
    }
    // The statement's lock on the table is still held: the heap has not been rewritten since.
    let filenode: i64 =
        sqlx::query_scalar("SELECT pg_relation_filenode('public.provider_connections')::bigint")
            .fetch_one(&mut *tx)
            .during("look at the heap")
            .await?;
    tx.commit().during("end the closing proof").await?;
    Ok(filenode)
}
