//! Pure cryptography: keys and their fingerprints, the application's envelope, the re-encryption of one row,
//! and the tag that proves its bytes stayed the same.
//!
//! Nothing here knows where a key or a row comes from, and nothing here waits. The only thing taken from
//! outside is randomness ([`IvSource`]).

mod envelope;
mod iv;
mod key;
pub mod likeness;
mod locked;
mod rewrap;
mod strength;
mod tag;

pub use envelope::{Cipher, IV_LEN, Iv, MIN_LEN, OpenError, TAG_LEN};
pub use iv::{IvError, IvSource};
pub use key::{EncryptionKey, Fingerprint, KEY_LEN, KeyError, ParseFingerprintError};
pub use rewrap::{Outcome, ProofFailure, Rewrapper, Scratch, Unreadable};
pub use strength::{PUBLISHED_ENCRYPTION_KEYS, PUBLISHED_SECRET_KEYS, Weakness, weakness};
pub use tag::{TAG_KEY_INFO, Tag, TagKey};
