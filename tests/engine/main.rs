//! The engine from outside: the real binary on a real PostgreSQL, judged with independent cryptography.
//!
//! One file per theme; `cargo test --test engine kill::` runs one of them. All share one cluster and each has a
//! database of its own, except where a server is stopped: those tests start one for themselves. State is waited for
//! by looking at the database, and a fixed time is slept only where time itself is what is tested.

#[path = "../support/mod.rs"]
mod support;

mod beside_triggers;
mod clean_run;
mod commit;
mod counted;
mod damaged;
mod exhausted;
mod exit_codes;
mod hostile;
mod keys;
mod kill;
mod locks;
mod lost_commits;
mod memory;
mod model;
mod no_fault_points;
mod outage;
mod pooled;
mod preflight;
mod processes;
mod quarantine;
mod quiet;
mod replica;
mod restored;
mod rewritten;
mod rollback;
mod settings;
mod signals;
mod states;
mod support_works;
mod surroundings;
mod throttle;
mod transactions;
mod verify;
mod versions;
mod weather;
mod writer;
