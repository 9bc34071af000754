//! What the catalogue says about the table: estimates to size chunks and forecast by.

use sqlx::{PgConnection, Row};

use super::error::{Statement, StoreError};
use crate::rotation::TableFacts;

/// Reads the planner's statistics. Where the table was never analyzed, a page count and defaults stand in.
pub async fn table(conn: &mut PgConnection) -> Result<TableFacts, StoreError> {
    let row = sqlx::query(
        "SELECT c.reltuples::float8, c.relpages::float8, pg_relation_size(c.oid), pg_table_size(c.oid), pg_indexes_size(c.oid), \
         s.null_frac::float8, s.avg_width::float8, k.correlation::float8, current_setting('block_size')::float8 \
         FROM pg_catalog.pg_class c \
         LEFT JOIN pg_catalog.pg_stats s ON s.schemaname = 'public' AND s.tablename = 'provider_connections' AND s.attname = 'encrypted_credentials' \
         LEFT JOIN pg_catalog.pg_stats k ON k.schemaname = 'public' AND k.tablename = 'provider_connections' AND k.attname = 'id' \
         WHERE c.oid = 'public.provider_connections'::regclass",
    )
    .fetch_one(conn)
    .during("read the table's statistics")
    .await?;
    let (tuples, old_pages): (f64, f64) = (row.get(0), row.get(1));
    let size: i64 = row.get(2);
    let block: f64 = row.get(8);
    let pages = (size as f64 / block).max(0.0);
    let width = row.get::<Option<f64>, _>(6).unwrap_or(500.0);
    // reltuples is -1 before the first VACUUM or ANALYZE; its density holds for today's pages.
    let density = if tuples > 0.0 && old_pages > 0.0 {
        tuples / old_pages
    } else {
        (block - 200.0) / (width.min(2000.0) + 170.0)
    };
    Ok(TableFacts {
        rows: (density * pages).round(),
        null_fraction: row.get::<Option<f64>, _>(5).unwrap_or(0.0),
        credential_bytes: width,
        pages,
        correlation: row.get(7),
        heap_bytes: row.get(3),
        index_bytes: row.get(4),
    })
}
