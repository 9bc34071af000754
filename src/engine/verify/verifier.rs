//! What one verify works with: its keys, the table as it began, and the batches met so far.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use uuid::Uuid;

use super::met::Met;
use crate::crypto::{Cipher, TagKey};
use crate::error::{Error, Exit};
use crate::store::counting::Began;
use crate::store::{Connector, Xid};

/// What rows are opened with.
pub struct Keys {
    /// The key rows should be on. It alone decides.
    pub expected: Cipher,
    /// The other one, if it could be had: it tells a row on the wrong key from an unreadable one.
    pub other: Option<Cipher>,
    /// The tags' key, derived from the new key.
    pub tags: Option<TagKey>,
}

/// What is verified, and with what.
pub(super) struct Inputs {
    pub connector: Connector,
    pub keys: Arc<Keys>,
    pub rotation: Uuid,
}

/// One attempt at the whole table.
pub(super) struct Verifier {
    pub inputs: Arc<Inputs>,
    /// H of the first pass: untagged rows older than it were there before.
    pub first_horizon: Option<Xid>,
    pub began: Began,
    pub met: Met,
    /// The next unread block, and how many a worker takes.
    pub next: AtomicU32,
    pub part: u32,
}

/// A signal came first.
pub(super) fn given_up() -> Error {
    Error::new(Exit::Signalled, "stopped by a signal before every row was verified")
        .hint("Run `rekey verify` again")
}
