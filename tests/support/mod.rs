//! What the black-box tests stand on: a real PostgreSQL for each test binary, a database for each test, the real
//! `rekey` binary, and a judge with cryptography of its own. Nothing here calls into the `rekey` library.

// Every test binary includes all of this and uses its own part of it.
#![allow(dead_code, unused_imports)]

pub mod binary;
pub mod cluster;
pub mod contract;
#[path = "../../fixtures/credentials.rs"]
pub mod credentials;
pub mod damaged;
pub mod database;
pub mod http;
pub mod judge;
pub mod load;
pub mod pooler;
pub mod programs;
pub mod proxy;
pub mod screen;
pub mod status;

pub use binary::{Outcome, Rekey, Running, rekey, rekey_without_database};
pub use cluster::{Cluster, Stop};
pub use contract::Contract;
pub use credentials::{Cipher, Ids, Random};
pub use database::{Db, Hold};
pub use judge::Judge;
pub use pooler::Pooler;
pub use status::{run_in_small_steps, state, status, total};

use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The key every row is on to begin with. 32 bytes, never published, used nowhere else.
pub const OLD: &str = "xR7_kVp2-QmT9wLzB4nHc8YdJf3sGa6E";
/// The key rows are moved to.
pub const NEW: &str = "N5uWe-1KjZb8oXtC_7rPq4MhSv9yFi2D";
/// A key that belongs to no rotation here.
pub const OTHER: &str = "h3Tq8-LmV2zXc_9bNw5RkYp7JdGf4sQa";

/// Runs a future on the runtime that all tests of a binary share.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let start = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime starts")
    };
    RUNTIME.get_or_init(start).block_on(future)
}

/// Polls until `ready` answers with a value; panics, naming what it waited for, when `limit` is over.
pub fn until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says which tests are left out here, and why. Written, not printed: the test harness would swallow it.
pub fn skipped(what: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// Most waits: long enough for a loaded machine, short enough to notice a hang.
pub const SOON: Duration = Duration::from_secs(60);
