//! What a preflight is for: some findings matter to one command and not to another.

/// What the answers are for: a standby is fine for reading, and a role that only plans need not be able to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// `plan`, and `run --dry-run`: nothing will be written.
    Reading,
    /// `run`.
    Run,
    /// `rollback`, which must be stopped by as little as possible.
    Rollback,
}
