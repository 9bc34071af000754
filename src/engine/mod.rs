//! The executor: workers that lease chunks, read, re-encrypt and write them, and the supervisor over them.
//!
//! ```text
//! supervisor ─┬─ heartbeat   keeps leases alive, reads what the operator wants, measures progress
//!             ├─ throttle    looks at the database, says how fast to go
//!             └─ worker × N  reader (claim, read, re-encrypt ahead) ──segment──► writer (waves of batches)
//!                            closing proof, when every chunk is done
//! ```
//! No xmin outlives a reconnect: whatever a worker has buffered when a connection is lost is discarded.

mod closing;
mod dry_run;
mod fault;
mod gate;
mod heartbeat;
pub mod lifecycle;
mod reader;
mod rehearse;
mod row;
mod stop;
mod supervisor;
mod throttle;
mod verify;
mod worker;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::crypto::Rewrapper;
use crate::rotation::throttle::Limits;
use crate::rotation::{ChunkSize, Direction};
use crate::store::Connector;
use crate::store::audit::Actor;
use crate::store::ledger::pass::Walk;
use crate::telemetry::metrics::Metrics;

pub use dry_run::{DryRun, dry_run};
pub use rehearse::rehearse;
pub use stop::{Stop, StopSource};
pub use supervisor::{End, execute};
pub use verify::{CleanVerify, Keys as VerifyKeys, VerifyReport, verify};

/// Workers, chunk and batch sizes, limits.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Workers in this process.
    pub workers: usize,
    /// How much a worker holds.
    pub chunk: ChunkSize,
    /// Rows of one transaction, at most.
    pub batch_rows: u32,
    /// Lease lifetime.
    pub lease_ttl: Duration,
    /// Time a batch should hold its row locks.
    pub lock_target: Duration,
    /// Sweeps in a row before giving up on writers that would not stop.
    pub max_sweeps: i32,
    /// Measured density of the heap.
    pub rows_per_page: f64,
    /// How a new full pass walks the table.
    pub walk: Walk,
}

/// Everything a process needs to move rows one way.
pub struct Job {
    /// Makes connections.
    pub connector: Connector,
    /// The rotation, recorded and active.
    pub rotation: Uuid,
    /// Which way.
    pub direction: Direction,
    /// Source and target keys.
    pub rewrapper: Rewrapper,
    /// Who.
    pub actor: Actor,
    /// Workers, chunk and batch sizes, limits.
    pub settings: Settings,
    /// What the database may be made to bear.
    pub limits: Limits,
    /// This process's name in the ledger.
    pub process: String,
    /// Metrics of this process.
    pub metrics: Metrics,
}

/// A job shared by the tasks of a process.
pub type SharedJob = Arc<Job>;
