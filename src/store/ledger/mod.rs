//! rekey's own tables: rotations, passes, chunks with their leases, proofs, quarantine, processes.
//!
//! One file per table, with the SQL of that table; proofs have three (`proof.rs`, `tags.rs`, `retention.rs`). Three touch several tables in one
//! transaction: `rotation/turn.rs` stops what is under way, `claim.rs` carves, `chunk.rs` checkpoints. `standing.rs` reads several
//! at one instant.

pub mod chunk;
pub mod claim;
pub mod evidence;
pub mod lease;
pub mod pass;
pub mod process;
pub mod proof;
pub mod quarantine;
pub mod retention;
pub mod rotation;
pub mod sample;
pub mod standing;
pub mod tags;

use super::statement::Declaration;

pub use chunk::Checkpoint;
pub use lease::{Lease, Owner};
pub use pass::Pass;
pub use rotation::{NewRotation, Rotation};

/// Every statement on rekey's own tables.
pub(super) fn statements() -> impl Iterator<Item = &'static Declaration> {
    let files = [
        chunk::STATEMENTS,
        evidence::STATEMENTS,
        pass::STATEMENTS,
        process::STATEMENTS,
        proof::STATEMENTS,
        quarantine::STATEMENTS,
        retention::STATEMENTS,
        rotation::STATEMENTS,
        rotation::deadline::STATEMENTS,
        rotation::lock::STATEMENTS,
        rotation::turn::STATEMENTS,
        sample::STATEMENTS,
        standing::STATEMENTS,
        tags::STATEMENTS,
    ];
    files.into_iter().flatten()
}
