//! Claiming a chunk, and carving one off the frontier: the only two ways to the right to write rows.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::chunk::{self, Carved};
use super::lease::{CARVE, Lease, Owner};
use super::pass::{self, Pass};
use crate::rotation::{Addressing, ChunkKind, ChunkSize, State};
use crate::store::error::{Statement, StoreError};
use crate::store::rows::next_key;

/// Leases a chunk that is free or whose lease has expired.
pub async fn claim(
    conn: &mut PgConnection,
    pass: &Pass,
    owner: &Owner,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    claim_above(conn, pass, owner, ttl, 0).await
}

/// The same of the chunks behind one.
pub async fn claim_above(
    conn: &mut PgConnection,
    pass: &Pass,
    owner: &Owner,
    ttl: Duration,
    above: i64,
) -> Result<Option<Lease>, StoreError> {
    let states = State::workable(pass.direction);
    let claimed = chunk::claim(conn, owner, ttl.as_secs_f64(), pass, states, above).await?;
    Ok(claimed.map(|claimed| Lease::of(claimed, pass, owner, ttl)))
}

/// Carves the next chunk off the frontier and leases it; `None` when the whole table is carved.
pub async fn carve(
    conn: &mut PgConnection,
    pass: &Pass,
    owner: &Owner,
    ttl: Duration,
    rows_per_page: f64,
) -> Result<Option<Lease>, StoreError> {
    let mut tx = conn.begin().during(CARVE).await?;
    let states = State::workable(pass.direction);
    let Some(frontier) = pass::lock_frontier(&mut tx, pass, states).await? else {
        // At once: whoever has nothing to carve may wait for long, and the server ends a transaction that is idle.
        tx.rollback().during(CARVE).await?;
        return Ok(None);
    };
    let rows = ChunkSize::taper(pass.chunk_rows, pass.estimated_rows - frontier.carved_rows);
    // The chunk up to the end may have fewer.
    let expected = (pass.estimated_rows - frontier.carved_rows).clamp(0, rows);
    let (carved, last) = match pass.addressing {
        Addressing::Keys => {
            let lo = frontier.frontier_id;
            let hi = next_key(&mut tx, lo, rows).await?;
            (Carved { kind: ChunkKind::Keys, lo, hi, lo_block: None, hi_block: None }, hi.is_none())
        }
        Addressing::Blocks => {
            let (lo, end) = (frontier.frontier_block.unwrap_or(0), frontier.end_block.unwrap_or(0));
            let blocks = (rows as f64 / rows_per_page.max(1.0)).ceil().max(1.0) as i64;
            let hi = (lo + blocks).min(end);
            let carved = Carved {
                kind: ChunkKind::Blocks,
                lo: None,
                hi: None,
                lo_block: Some(lo),
                hi_block: Some(hi),
            };
            (carved, hi >= end)
        }
    };
    // The table has no blocks at all: there is no chunk to be had.
    let empty = carved.lo_block.is_some() && carved.lo_block >= carved.hi_block;
    let claimed = match empty {
        true => None,
        false => chunk::insert_carved(&mut tx, pass, &carved, owner, ttl.as_secs_f64()).await?,
    };
    if claimed.is_none() && !empty {
        tx.rollback().during(CARVE).await?;
        return Ok(None);
    }
    let rows = if last { expected } else { rows };
    pass::move_frontier(&mut tx, pass, carved.hi, carved.hi_block, last, rows).await?;
    tx.commit().during(CARVE).await?;
    Ok(claimed.map(|claimed| Lease::of(claimed, pass, owner, ttl)))
}
