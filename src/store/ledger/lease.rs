//! Leases on `rekey.chunks`: claiming and carving, the only two ways to the right to write rows.
//!
//! A [`Lease`] cannot be made anywhere else: its fields are private. `rows::write` and the checkpoint ask for one.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::chunk::{self, Carved, Claimed};
use super::pass::{self, Pass};
use crate::rotation::{Addressing, Bounds, ChunkSize, State};
use crate::store::error::{Statement, StoreError};
use crate::store::rows::next_key;
use crate::store::statement::binds;

/// Who works: a process and one of its workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Unique per process.
    pub process: String,
    /// Index within it.
    pub worker: i32,
}

/// The right to write one chunk's rows, until someone takes it over.
#[derive(Clone, Debug)]
pub struct Lease {
    chunk: i64,
    owner: Owner,
    /// The fencing token: raised by every claim, and by every turn of the rotation.
    epoch: i32,
    bounds: Bounds,
    batch_seq: i64,
    pass: Pass,
    ttl: Duration,
    quarantine: bool,
}

impl Lease {
    /// The chunk.
    pub fn chunk(&self) -> i64 {
        self.chunk
    }

    /// Whose it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What it covers.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Batches committed when it was claimed, by anyone.
    pub fn batch_seq(&self) -> i64 {
        self.batch_seq
    }

    /// The pass it belongs to.
    pub fn pass(&self) -> &Pass {
        &self.pass
    }

    /// How long it lives without a sign of its owner.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Some rows of this rotation are quarantined: a batch may have entries to remove.
    pub(super) fn quarantine(&self) -> bool {
        self.quarantine
    }
}

/// Whether nobody holds the chunk `c`: its lease has run out, or ends so much later than it could that the database's clock
/// must have been set back since. No TTL is longer than an hour.
macro_rules! is_free {
    () => {
        "(c.owner IS NULL OR c.lease_until < clock_timestamp() OR c.lease_until > clock_timestamp() \
         + make_interval(secs => 2 * coalesce(c.lease_seconds, 1800)))"
    };
}
pub(super) use is_free;

binds!(Owner { process, worker });
binds!(Lease { chunk, owner.process, owner.worker, epoch });

pub(super) const CARVE: &str = "carve a chunk";

impl Lease {
    fn of(claimed: Claimed, pass: &Pass, owner: &Owner, ttl: Duration) -> Lease {
        let block = |block: Option<i64>| block.unwrap_or_default() as u32;
        let bounds = match claimed.kind.as_str() {
            "keys" => Bounds::Keys { lo: claimed.lo, hi: claimed.hi },
            "blocks" => Bounds::Blocks { lo: block(claimed.lo_block), hi: block(claimed.hi_block) },
            "ids" => Bounds::Ids(claimed.ids.unwrap_or_default()),
            _ => Bounds::Proof,
        };
        Lease {
            chunk: claimed.id,
            owner: owner.clone(),
            epoch: claimed.epoch,
            bounds,
            batch_seq: claimed.batch_seq,
            pass: pass.clone(),
            ttl,
            quarantine: claimed.quarantine,
        }
    }
}

/// Leases a chunk that nobody holds, or whose lease has run out.
pub async fn claim(
    conn: &mut PgConnection,
    pass: &Pass,
    owner: &Owner,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    let states = State::workable(pass.direction);
    let claimed = chunk::claim(conn, owner, ttl.as_secs_f64(), pass, states).await?;
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
    let Some(frontier) = pass::lock_frontier(&mut tx, pass, states).await? else { return Ok(None) };
    let rows = ChunkSize::taper(pass.chunk_rows, pass.estimated_rows - frontier.carved_rows);
    let (carved, last) = match pass.addressing {
        Addressing::Keys => {
            let lo = frontier.frontier_id;
            let hi = next_key(&mut tx, lo, rows).await?;
            (Carved { kind: "keys", lo, hi, lo_block: None, hi_block: None }, hi.is_none())
        }
        Addressing::Blocks => {
            let (lo, end) = (frontier.frontier_block.unwrap_or(0), frontier.end_block.unwrap_or(0));
            let blocks = (rows as f64 / rows_per_page.max(1.0)).ceil().max(1.0) as i64;
            let hi = (lo + blocks).min(end);
            let carved =
                Carved { kind: "blocks", lo: None, hi: None, lo_block: Some(lo), hi_block: Some(hi) };
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
        return Ok(None);
    }
    pass::move_frontier(&mut tx, pass, carved.hi, carved.hi_block, last, rows).await?;
    tx.commit().during(CARVE).await?;
    Ok(claimed.map(|claimed| Lease::of(claimed, pass, owner, ttl)))
}
