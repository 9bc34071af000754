//! What each command does. A job takes a [`Session`] and a typed request, and returns a typed outcome.
//!
//! A job never prints, asks a question, or reads arguments or the environment of the process: `cli` hands all of that
//! in, and turns the outcome into text, JSON and an exit code. So every job can be called from a test.

pub mod access;
pub mod audit_trail;
pub mod board;
pub mod cache;
pub mod cache_after;
pub mod control;
pub mod dry_run;
mod environment;
pub mod explain;
pub mod exposure;
pub mod finalize;
pub mod init;
pub mod interrupt;
pub mod key_pair;
pub mod keys;
mod last_copy;
pub mod plan;
pub mod preflight;
pub mod promote;
pub mod quarantine;
pub mod report;
mod resumed;
pub mod rollback;
pub mod run;
mod session;
mod settled;
pub mod shared_key;
pub mod stakes;
pub mod standing;
pub mod status;
pub mod verify;
pub mod work;

pub use environment::Environment;
pub use session::{AppCache, Session, ShowProgress};
pub use settled::{Ended, Goal, Settled, settle};
