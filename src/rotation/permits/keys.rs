//! What comes next after a key was changed or kept outside of a rotation.

use super::step::{Command, Instruction, Step};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDone {
    /// A key was restored from a backup.
    Restored,
    /// SECRET_KEY was replaced, or the previous one restored.
    SecretKeyChanged,
    /// Keys were written to an encrypted file.
    BackedUp,
}

/// What to do next. The application has its key in memory until it restarts, and sessions in its cache.
pub fn next_for_keys(done: KeyDone) -> Vec<Step> {
    let (restart, purge) = (Step::Do(Instruction::RestartApplication), Step::Type(Command::CachePurge));
    match done {
        KeyDone::Restored => vec![restart, purge, Step::Type(Command::Verify)],
        KeyDone::SecretKeyChanged => vec![purge, restart],
        KeyDone::BackedUp => vec![Step::Do(Instruction::CopyBackup)],
    }
}
