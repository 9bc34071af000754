//! rekey moves every credential in `provider_connections` from an old AES-256-GCM key to a new one.
//!
//! ```text
//!            cli            arguments, one file per command, what is printed
//!             │
//!          engine           workers, supervisor, throttle, shutdown
//!        ┌────┼──────────┐
//!     store secrets telemetry    PostgreSQL · key sources · logs, progress, metrics
//!        └────┼──────────┘       (beside them `cache`: the application's stale entries in Redis)
//!     rotation  crypto      pure: states, chunks, waves, counters · keys, envelope, rewrap, tag
//! ```
//! Imports point downwards only; adapters do not import each other, and the pure modules know neither sqlx,
//! tokio, aws, clap nor indicatif. [`error`] is the exit-code table, [`fault_point`] is for tests.

pub mod cache;
pub mod cli;
pub mod crypto;
pub mod engine;
pub mod error;
pub mod fault_point;
pub mod rotation;
pub mod secrets;
pub mod store;
pub mod telemetry;
