//! Fail the n-th operation, resume, and nothing is lost: SQLite's method, for n = 1, 2, 3 … until a command finishes
//! without having reached the n-th. The n-th statement, COMMIT, AWS call or file operation fails, before or after it
//! was done: with an error, with every connection cut, or with SIGKILL. Once, and twice in a row.
//!
//! `cargo test --features fault-points --test fault_points` takes a sample; `REKEY_FAULT_STRIDE=1` takes every n.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support_aws/mod.rs"]
mod support_aws;

mod outside;
mod panics;
mod rows;
mod scene;
mod sweep;
mod zombies;
