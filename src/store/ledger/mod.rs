//! rekey's own tables: rotations, passes, chunks with their leases, proofs, quarantine, processes.
//!
//! One file per table; the SQL of a table stands only there.

pub mod chunk;
pub mod pass;
pub mod process;
pub mod proof;
pub mod quarantine;
pub mod rotation;

pub use chunk::{Checkpoint, Lease};
pub use pass::{Addressing, Pass, PassKind};
pub use rotation::{NewRotation, Rotation};
