//! rekey's own tables: rotations, passes, chunks with their leases, proofs, quarantine, processes.
//!
//! One file per table, with the SQL of that table. `rotation/turn.rs` alone touches several in one transaction: it stops
//! what is under way.

pub mod chunk;
pub mod pass;
pub mod process;
pub mod proof;
pub mod quarantine;
pub mod rotation;

pub use chunk::{Checkpoint, Lease};
pub use pass::{Addressing, Pass, PassKind};
pub use rotation::{NewRotation, Rotation};
