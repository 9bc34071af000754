//! A lease on one of `rekey.chunks`: the right to write its rows, which `rows::write` and the checkpoint ask for.
//!
//! Its fields are private: outside this folder [`super::claim`] is the only way to one.

use std::time::Duration;

use super::chunk::Claimed;
use super::pass::Pass;
use crate::rotation::{Bounds, ChunkKind};
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
    /// Of a chunk that [`super::claim`] has just claimed.
    pub(super) fn of(claimed: Claimed, pass: &Pass, owner: &Owner, ttl: Duration) -> Lease {
        let block = |block: Option<i64>| block.unwrap_or_default() as u32;
        let bounds = match claimed.kind {
            ChunkKind::Keys => Bounds::Keys { lo: claimed.lo, hi: claimed.hi },
            ChunkKind::Blocks => Bounds::Blocks { lo: block(claimed.lo_block), hi: block(claimed.hi_block) },
            ChunkKind::Ids => Bounds::Ids(claimed.ids.unwrap_or_default()),
            ChunkKind::Proof => Bounds::Proof,
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
