//! rekey's own tables: rotations, passes, chunks with their leases, proofs, quarantine, processes.
//!
//! One file per table, with the SQL of that table. `rotation/turn.rs` alone touches several in one transaction: it stops
//! what is under way. `standing.rs` alone reads several at one instant.

pub mod chunk;
pub mod lease;
pub mod pass;
pub mod process;
pub mod proof;
pub mod quarantine;
pub mod rotation;
pub mod standing;

pub use chunk::Checkpoint;
pub use lease::{Lease, Owner};
pub use pass::Pass;
pub use rotation::{NewRotation, Rotation};
