//! The one door to the operating system's randomness, and to ids made from it. `clippy.toml` bans every other.
//!
//! Initialization vectors are drawn through it too, by `crypto::IvSource`, which sees to it that none is used twice.

use uuid::Uuid;

/// The operating system gives no randomness.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system's random generator failed ({0})")]
pub struct NoEntropy(getrandom::Error);

/// Fills the buffer, or says that nothing in it may be used.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn fill(buffer: &mut [u8]) -> Result<(), NoEntropy> {
    getrandom::fill(buffer).map_err(NoEntropy)
}

/// A new id, UUIDv7: it sorts by when it was made, by this machine's clock, which decides nothing.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn id() -> Uuid {
    Uuid::now_v7()
}
