//! One row in, one outcome out: the decision at the heart of the migration.
//!
//! ```text
//! opens with source ──► tag, seal for target, open again, compare ──► Reencrypted
//! opens with target ────────────────────────────────────────────────► OnTarget
//! opens with also   ──► as with source                           ──► Reencrypted
//! opens with none   ────────────────────────────────────────────────► Unreadable
//! ```
//! Knows no database: which rows come here, and whether an outcome is ever written, is decided elsewhere.

use zeroize::Zeroizing;

use super::envelope::{Cipher, Iv, OpenError, wipe};
use super::key::{EncryptionKey, KeyError};
use super::locked::with_clean_stack;
use super::tag::{Tag, TagKey};
use crate::error::{Error, Exit};

/// Moves envelopes from the source key to the target key. Shared by all workers; scratch space is not.
pub struct Rewrapper {
    source: Cipher,
    target: Cipher,
    tags: TagKey,
    also: Option<Cipher>,
}

/// What became of one row.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new envelope, proven to open with the target key to the same bytes; `tag` is of those bytes.
    Reencrypted { envelope: Vec<u8>, tag: Tag },
    /// Nothing to do. Its tag, where one is wanted, is [`Rewrapper::tag_of_target`].
    OnTarget,
    /// Left as it is, for the quarantine.
    Unreadable(Unreadable),
}

/// Why no key opens a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreadable {
    /// No bytes at all.
    Empty,
    /// `len` bytes are fewer than any envelope has.
    TooShort { len: usize },
    /// Long enough, and no key opens it.
    NeitherKey,
}

/// A new ciphertext did not open again to the bytes that went in. Never a row's fault: the process must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a new ciphertext didn't decrypt to its plaintext and was discarded")]
pub struct ProofFailure;

impl From<ProofFailure> for Error {
    fn from(error: ProofFailure) -> Self {
        Error::new(Exit::Internal, error.to_string()).hint(
            "The row is unchanged. Suspect this machine's memory or processor, and resume on another \
                machine",
        )
    }
}

/// Buffers for plaintext, one per worker: reused from row to row, wiped after each.
#[derive(Default)]
pub struct Scratch {
    plaintext: Zeroizing<Vec<u8>>,
    reopened: Zeroizing<Vec<u8>>,
}

impl Scratch {
    fn wipe(&mut self) {
        wipe(&mut self.plaintext);
        wipe(&mut self.reopened);
    }
}

impl Rewrapper {
    /// Refuses a source equal to its target. Rows that only `also` opens move to the target as well.
    pub fn new(
        source: &EncryptionKey,
        target: &EncryptionKey,
        tags: TagKey,
        also: Option<&EncryptionKey>,
    ) -> Result<Self, KeyError> {
        if source.same_as(target) {
            return Err(KeyError::Equal);
        }
        Ok(Rewrapper {
            source: Cipher::new(source),
            target: Cipher::new(target),
            tags,
            also: also.map(Cipher::new),
        })
    }

    /// Decides one row. `iv` must never have been used before; it is used only for [`Outcome::Reencrypted`].
    pub fn rewrap(
        &self,
        scratch: &mut Scratch,
        id: &[u8; 16],
        envelope: &[u8],
        iv: &Iv,
    ) -> Result<Outcome, ProofFailure> {
        with_clean_stack(|| self.decide(scratch, id, envelope, iv))
    }

    fn decide(
        &self,
        scratch: &mut Scratch,
        id: &[u8; 16],
        envelope: &[u8],
        iv: &Iv,
    ) -> Result<Outcome, ProofFailure> {
        let outcome = match self.open(scratch, envelope) {
            Ok(Opened::WithTarget) => Ok(Outcome::OnTarget),
            Ok(Opened::ToMove) => self.seal_and_prove(scratch, id, iv),
            Err(OpenError::Empty) => Ok(Outcome::Unreadable(Unreadable::Empty)),
            Err(OpenError::TooShort { len }) => Ok(Outcome::Unreadable(Unreadable::TooShort { len })),
            Err(OpenError::NotThisKey) => Ok(Outcome::Unreadable(Unreadable::NeitherKey)),
        };
        scratch.wipe();
        outcome
    }

    /// The tag of a row that is on the target key; an error where it is not.
    pub fn tag_of_target(
        &self,
        scratch: &mut Scratch,
        id: &[u8; 16],
        envelope: &[u8],
    ) -> Result<Tag, OpenError> {
        with_clean_stack(|| {
            let opened = self.target.open(envelope, &mut scratch.plaintext);
            let tag = opened.map(|()| self.tags.tag(id, &scratch.plaintext));
            scratch.wipe();
            tag
        })
    }

    fn open(&self, scratch: &mut Scratch, envelope: &[u8]) -> Result<Opened, OpenError> {
        let plaintext = &mut scratch.plaintext;
        let with_source = self.source.open(envelope, plaintext);
        if with_source != Err(OpenError::NotThisKey) {
            return with_source.map(|()| Opened::ToMove);
        }
        if self.target.open(envelope, plaintext).is_ok() {
            return Ok(Opened::WithTarget);
        }
        let also = self.also.as_ref().ok_or(OpenError::NotThisKey)?;
        also.open(envelope, plaintext).map(|()| Opened::ToMove)
    }

    fn seal_and_prove(&self, scratch: &mut Scratch, id: &[u8; 16], iv: &Iv) -> Result<Outcome, ProofFailure> {
        // The tag is made from the decrypted bytes, before any other code touches them.
        let tag = self.tags.tag(id, &scratch.plaintext);
        let mut envelope = Vec::new();
        self.target.seal(iv, &scratch.plaintext, &mut envelope);
        self.prove(scratch, &envelope)?;
        Ok(Outcome::Reencrypted { envelope, tag })
    }

    fn prove(&self, scratch: &mut Scratch, envelope: &[u8]) -> Result<(), ProofFailure> {
        self.target.open(envelope, &mut scratch.reopened).map_err(|_| ProofFailure)?;
        let proven = scratch.reopened.as_slice() == scratch.plaintext.as_slice();
        proven.then_some(()).ok_or(ProofFailure)
    }
}

/// `scratch.plaintext` is filled; by which key decides what follows.
enum Opened {
    ToMove,
    WithTarget,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [9; 16];
    const IV: Iv = *b"a fresh iv 1";

    fn key(byte: u8) -> EncryptionKey {
        EncryptionKey::from_bytes(&[byte; 32]).unwrap_or_else(|e| panic!("{e}"))
    }

    fn tags() -> TagKey {
        TagKey::derive(&key(2), &[5; 16])
    }

    fn rewrapper(also: Option<u8>) -> Rewrapper {
        let also = also.map(key);
        Rewrapper::new(&key(1), &key(2), tags(), also.as_ref()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn sealed(by: u8, plaintext: &[u8]) -> Vec<u8> {
        let mut envelope = Vec::new();
        Cipher::new(&key(by)).seal_into(b"application1", plaintext, &mut envelope);
        envelope
    }

    fn outcome(also: Option<u8>, envelope: &[u8]) -> Outcome {
        let mut scratch = Scratch::default();
        let outcome = rewrapper(also).rewrap(&mut scratch, &ID, envelope, &IV).unwrap();
        assert!(scratch.plaintext.is_empty() && scratch.reopened.is_empty());
        outcome
    }

    #[test]
    fn a_row_on_the_source_key_moves_with_its_tag() {
        for plaintext in [&b""[..], b"{\"api_key\":\"k\"}", &[3; 5000]] {
            let Outcome::Reencrypted { envelope, tag } = outcome(None, &sealed(1, plaintext)) else {
                panic!("not re-encrypted")
            };
            let mut opened = Zeroizing::new(Vec::new());
            Cipher::new(&key(2)).open_into(&envelope, &mut opened).unwrap();
            assert_eq!(opened.as_slice(), plaintext);
            assert_eq!(envelope[..12], IV);
            assert_eq!(tag, tags().tag(&ID, plaintext));
        }
    }

    #[test]
    fn a_row_on_the_target_key_stays_and_can_be_tagged() {
        let envelope = sealed(2, b"plaintext");
        assert_eq!(outcome(None, &envelope), Outcome::OnTarget);
        let tag = rewrapper(None).tag_of_target(&mut Scratch::default(), &ID, &envelope);
        assert_eq!(tag, Ok(tags().tag(&ID, b"plaintext")));
        let tag = rewrapper(None).tag_of_target(&mut Scratch::default(), &ID, &sealed(1, b"plaintext"));
        assert_eq!(tag, Err(OpenError::NotThisKey));
    }

    #[test]
    fn a_row_on_a_still_older_key_moves_only_when_that_key_is_given() {
        let envelope = sealed(3, b"plaintext");
        assert_eq!(outcome(None, &envelope), Outcome::Unreadable(Unreadable::NeitherKey));
        assert!(matches!(outcome(Some(3), &envelope), Outcome::Reencrypted { .. }));
        assert_eq!(outcome(Some(4), &envelope), Outcome::Unreadable(Unreadable::NeitherKey));
    }

    #[test]
    fn unreadable_rows_say_why() {
        for (envelope, expected) in [
            (&b""[..], Unreadable::Empty),
            (&[0; 27], Unreadable::TooShort { len: 27 }),
            (&[0; 28], Unreadable::NeitherKey),
        ] {
            assert_eq!(outcome(Some(3), envelope), Outcome::Unreadable(expected));
        }
    }

    #[test]
    fn equal_keys_are_refused() {
        let refused = Rewrapper::new(&key(1), &key(1), tags(), None);
        assert_eq!(refused.err(), Some(KeyError::Equal));
    }

    #[test]
    fn only_an_envelope_that_opens_to_the_same_bytes_is_proven() {
        let mut scratch = Scratch::default();
        scratch.plaintext.extend_from_slice(b"plaintext");
        let mut prove = |envelope: &[u8]| rewrapper(None).prove(&mut scratch, envelope);
        let good = sealed(2, b"plaintext");
        assert_eq!(prove(&good), Ok(()));
        let mut flipped = good.clone();
        flipped[20] ^= 1;
        assert_eq!(prove(&flipped), Err(ProofFailure));
        assert_eq!(prove(&sealed(2, b"plaintexT")), Err(ProofFailure));
        assert_eq!(prove(&sealed(2, b"plaintext and more")), Err(ProofFailure));
        assert_eq!(prove(&sealed(1, b"plaintext")), Err(ProofFailure));
    }
}
