//! rekey moves every credential in `provider_connections` from an old AES-256-GCM key to a new one.
//!
//! ```text
//!            cli            arguments and questions, one file per command; text, JSON, exit codes
//!             │
//!           jobs            what a command does: a session and a request in, an outcome out; prints nothing
//!             │
//!          engine           workers, supervisor, throttle, verify; lifecycle: promote, rollback, finalize outside
//!        ┌────┼──────────┐
//!     store secrets telemetry    PostgreSQL · key sources · logs, progress, metrics
//!        └────┼──────────┘       (beside them `cache`: the application's stale entries in Redis)
//!     rotation  crypto      pure: states, permits, chunks, waves, counters · keys, envelope, rewrap, tag
//! ```
//! Beside `cli`: `manual` (help, man pages), `pages` (the report, the page to watch), `text`; [`program`] runs what an operator
//! names.
//!
//! *The guide* in comments is the application's key management guide: `docs/key-management.md` answers it section by
//! section. `CONTRIBUTING.md` says which files to open for which change.
//!
//! The main loop: a process is [`engine::execute`] in `engine/supervisor.rs`, one worker's loop stands in
//! `engine/worker.rs`. What may happen in which state, and what comes next, is [`rotation::permits`].
//!
//! Imports point downwards only; adapters do not import each other, and the pure modules know neither sqlx,
//! tokio, aws nor clap. [`error`] is the exit-code table, [`entropy`] the one door to randomness,
//! [`program`] the one to programs that an operator names, [`fault_point`] is for tests.

// Tests make ids and wait as they like; the program has places for that (clippy.toml).
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod cache;
pub mod cli;
pub mod crypto;
pub mod engine;
pub mod entropy;
pub mod error;
pub mod fault_point;
pub mod jobs;
pub mod manual;
pub mod pages;
pub mod program;
pub mod rotation;
pub mod secrets;
pub mod store;
pub mod telemetry;
pub mod text;
