//! What the catalogue says about the table: estimates to size chunks and forecast by.

use sqlx::PgConnection;
use uuid::Uuid;

use super::error::StoreError;
use super::statement::{row, statements};
use crate::rotation::TableFacts;

struct Catalogue {
    tuples: f64,
    old_pages: f64,
    size: i64,
    heap_bytes: i64,
    index_bytes: i64,
    null_fraction: Option<f64>,
    width: Option<f64>,
    correlation: Option<f64>,
    row_bytes: Option<f64>,
    block: f64,
}

row!(Catalogue {
    tuples,
    old_pages,
    size,
    heap_bytes,
    index_bytes,
    null_fraction,
    width,
    correlation,
    row_bytes,
    block
});

statements! {
    /// Whether the table is there.
    pub fn has_table() -> One<bool> during "look for the table":
        "SELECT to_regclass('public.provider_connections') IS NOT NULL";

    /// Ids that part the table evenly, in order, by the planner's statistics; none where it was never analyzed.
    pub fn parting_ids() -> All<Uuid> during "read the table's statistics":
        "SELECT unnest(histogram_bounds::text::uuid[]) FROM pg_catalog.pg_stats \
         WHERE schemaname = 'public' AND tablename = 'provider_connections' AND attname = 'id'";

    fn catalogue() -> One<Catalogue> during "read the table's statistics":
        "SELECT c.reltuples::float8 AS tuples, c.relpages::float8 AS old_pages, pg_relation_size(c.oid) AS size, \
         pg_table_size(c.oid) AS heap_bytes, pg_indexes_size(c.oid) AS index_bytes, s.null_frac::float8 AS null_fraction, \
         s.avg_width::float8 AS width, k.correlation::float8 AS correlation, \
         (SELECT CASE WHEN count(w.attname) = count(*) THEN sum((1 - w.null_frac) * w.avg_width) END FROM pg_catalog.pg_attribute a \
         LEFT JOIN pg_catalog.pg_stats w ON w.schemaname = 'public' AND w.tablename = 'provider_connections' AND w.attname = a.attname \
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)::float8 AS row_bytes, current_setting('block_size')::float8 AS block \
         FROM pg_catalog.pg_class c \
         LEFT JOIN pg_catalog.pg_stats s ON s.schemaname = 'public' AND s.tablename = 'provider_connections' AND s.attname = 'encrypted_credentials' \
         LEFT JOIN pg_catalog.pg_stats k ON k.schemaname = 'public' AND k.tablename = 'provider_connections' AND k.attname = 'id' \
         WHERE c.oid = 'public.provider_connections'::regclass";
}

/// What a row has on its page beside its columns: line pointer, header with a bitmap of NULLs, padding.
const AROUND: f64 = 4.0 + 24.0 + 12.0;

/// Reads the planner's statistics. Where the table was never analyzed, a page count and defaults stand in.
pub async fn table(conn: &mut PgConnection) -> Result<TableFacts, StoreError> {
    let now = catalogue(conn).await?;
    let pages = (now.size as f64 / now.block).max(0.0);
    let width = now.width.unwrap_or(500.0);
    // reltuples is -1 before the first VACUUM or ANALYZE; its density holds for today's pages.
    let density = if now.tuples > 0.0 && now.old_pages > 0.0 {
        now.tuples / now.old_pages
    } else {
        (now.block - 200.0) / (width.min(2000.0) + 170.0)
    };
    Ok(TableFacts {
        rows: (density * pages).round(),
        null_fraction: now.null_fraction.unwrap_or(0.0),
        credential_bytes: width,
        pages,
        correlation: now.correlation,
        heap_bytes: now.heap_bytes,
        index_bytes: now.index_bytes,
        row_bytes: now.row_bytes.map(|columns| columns + AROUND),
        on_page: Vec::new(),
    })
}
