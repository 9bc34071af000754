//! The application's ciphertext format: the one place that knows it.
//!
//! ```text
//! encrypted_credentials = IV (12 random bytes) || AES-256-GCM ciphertext (as long as the plaintext) || tag (16)
//! ```
//! No associated data, no key id, no version: that a row opens is the only sign of the key it is under. The
//! plaintext is opaque bytes here.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::key::EncryptionKey;
use super::locked::{Locked, with_clean_stack};

/// Bytes of initialization vector, NIST SP 800-38D §5.2.1.1's recommended 96 bits.
pub const IV_LEN: usize = 12;
/// Bytes of authentication tag.
pub const TAG_LEN: usize = 16;
/// The shortest envelope: an empty plaintext.
pub const MIN_LEN: usize = IV_LEN + TAG_LEN;

/// An initialization vector; never used twice under one key.
pub type Iv = [u8; IV_LEN];

/// A key made ready to open and seal envelopes. Its key schedule lies in locked memory, wiped when dropped.
pub struct Cipher(Locked<Aes256Gcm>);

// The wiping itself is a feature of aes-gcm; this fails to compile if that feature is ever lost.
const _: fn() = || {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<Aes256Gcm>();
};

/// Why an envelope does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No bytes at all.
    #[error("the ciphertext is empty")]
    Empty,
    /// Shorter than an envelope can be.
    #[error("the ciphertext has {len} bytes, fewer than the {MIN_LEN} bytes of an empty plaintext")]
    TooShort { len: usize },
    /// The tag does not match: another key, or changed bytes.
    #[error("this key doesn't decrypt the ciphertext")]
    NotThisKey,
}

impl Cipher {
    /// Expands the key.
    pub fn new(key: &EncryptionKey) -> Self {
        with_clean_stack(|| Cipher(Locked::new(Aes256Gcm::new(key.bytes().into()))))
    }

    /// Opens an envelope into `plaintext`, whose former content is wiped and whose capacity is reused.
    ///
    /// On failure `plaintext` is empty and holds no byte of anything.
    pub fn open_into(&self, envelope: &[u8], plaintext: &mut Zeroizing<Vec<u8>>) -> Result<(), OpenError> {
        with_clean_stack(|| self.open(envelope, plaintext))
    }

    /// The same for callers that clean the stack themselves, once for several steps.
    pub(super) fn open(&self, envelope: &[u8], plaintext: &mut Zeroizing<Vec<u8>>) -> Result<(), OpenError> {
        wipe(plaintext);
        let (iv, ciphertext, tag) = split(envelope)?;
        if plaintext.capacity() < ciphertext.len() {
            // Not a `reserve`: it could copy what it moves, and never wipes what it leaves.
            *plaintext = Zeroizing::new(Vec::with_capacity(ciphertext.len().next_power_of_two()));
        }
        plaintext.resize(ciphertext.len(), 0);
        let buffers =
            InOutBuf::new(ciphertext, plaintext.as_mut_slice()).expect("resized to the same length");
        // The tag is checked before the first byte is decrypted, so a failure leaves the zeros in place.
        let opened = self.0.decrypt_inout_detached(iv.into(), &[], buffers, tag.into());
        if opened.is_err() {
            wipe(plaintext);
        }
        opened.map_err(|_| OpenError::NotThisKey)
    }

    /// Replaces `envelope` by the sealed plaintext. Plaintext is never copied into it, not even for a moment.
    ///
    /// # Panics
    /// Beyond GCM's limit of 64 GiB; a `bytea` ends at 1 GiB.
    pub fn seal_into(&self, iv: &Iv, plaintext: &[u8], envelope: &mut Vec<u8>) {
        with_clean_stack(|| self.seal(iv, plaintext, envelope));
    }

    /// The same for callers that clean the stack themselves, once for several steps.
    pub(super) fn seal(&self, iv: &Iv, plaintext: &[u8], envelope: &mut Vec<u8>) {
        envelope.clear();
        envelope.reserve_exact(MIN_LEN + plaintext.len());
        envelope.extend_from_slice(iv);
        envelope.resize(IV_LEN + plaintext.len(), 0);
        let buffers = InOutBuf::new(plaintext, &mut envelope[IV_LEN..]).expect("resized to the same length");
        let tag = self
            .0
            .encrypt_inout_detached(iv.into(), &[], buffers)
            .expect("a plaintext is shorter than the 64 GiB that GCM can encrypt");
        envelope.extend_from_slice(&tag);
    }
}

/// Wipes and empties the part in use; the rest of the capacity was wiped when it went out of use.
pub(super) fn wipe(buffer: &mut Zeroizing<Vec<u8>>) {
    buffer.as_mut_slice().zeroize();
    buffer.clear();
}

fn split(envelope: &[u8]) -> Result<(&Iv, &[u8], &[u8; TAG_LEN]), OpenError> {
    let too_short = match envelope.len() {
        0 => OpenError::Empty,
        len => OpenError::TooShort { len },
    };
    let (iv, rest) = envelope.split_first_chunk().ok_or(too_short)?;
    let (ciphertext, tag) = rest.split_last_chunk().ok_or(too_short)?;
    Ok((iv, ciphertext, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IV: Iv = *b"twelve bytes";

    fn cipher(byte: u8) -> Cipher {
        Cipher::new(&EncryptionKey::from_bytes(&[byte; 32]).unwrap_or_else(|e| panic!("{e}")))
    }

    fn sealed(plaintext: &[u8]) -> Vec<u8> {
        let mut envelope = Vec::new();
        cipher(1).seal_into(&IV, plaintext, &mut envelope);
        envelope
    }

    #[test]
    fn what_was_sealed_opens() {
        for plaintext in [&b""[..], b"x", &[7; 500], &[9; 100_000]] {
            let envelope = sealed(plaintext);
            assert_eq!(envelope.len(), MIN_LEN + plaintext.len());
            assert_eq!(envelope[..IV_LEN], IV);
            let mut opened = Zeroizing::new(b"left over".to_vec());
            assert_eq!(cipher(1).open_into(&envelope, &mut opened), Ok(()));
            assert_eq!(opened.as_slice(), plaintext);
        }
    }

    #[test]
    fn an_envelope_is_allocated_exactly_once() {
        let envelope = sealed(&[7; 500]);
        assert_eq!(envelope.capacity(), envelope.len());
    }

    #[test]
    fn a_buffer_is_reused_also_for_shorter_plaintexts() {
        let mut opened = Zeroizing::new(Vec::new());
        cipher(1).open_into(&sealed(&[7; 500]), &mut opened).unwrap();
        assert!(opened.capacity() >= 512, "with room for one that is a little longer");
        let before = (opened.as_ptr(), opened.capacity());
        cipher(1).open_into(&sealed(b"short"), &mut opened).unwrap();
        assert_eq!((opened.as_ptr(), opened.capacity()), before);
        assert_eq!(opened.as_slice(), b"short");
    }

    #[test]
    fn failures_are_named_and_leave_nothing_behind() {
        let envelope = sealed(b"secret");
        for (bytes, expected) in [
            (&b""[..], OpenError::Empty),
            (&envelope[..1], OpenError::TooShort { len: 1 }),
            (&envelope[..MIN_LEN - 1], OpenError::TooShort { len: 27 }),
            (&envelope[..MIN_LEN], OpenError::NotThisKey),
        ] {
            let mut opened = Zeroizing::new(b"left over".to_vec());
            assert_eq!(cipher(1).open_into(bytes, &mut opened), Err(expected));
            assert!(opened.is_empty());
        }
        let mut opened = Zeroizing::new(b"left over".to_vec());
        assert_eq!(cipher(2).open_into(&envelope, &mut opened), Err(OpenError::NotThisKey));
        assert!(opened.is_empty());
    }
}
