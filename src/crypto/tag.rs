//! Proof tags: a few bytes that later show a row's plaintext to be what it was under the old key.
//!
//! A tag covers the row's id as well: GCM without associated data would let two rows exchange their
//! ciphertexts unnoticed. Eight bytes suffice: an attacker who could search for one can't see whether a guess is right.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::key::EncryptionKey;
use super::locked::{Locked, with_clean_stack};

/// What sets these keys apart from any other derived from the same key; the rotation's id follows it.
pub const TAG_KEY_INFO: &[u8] = b"rekey proof v1";

/// A proof tag: the first bytes of a MAC, as many as [`Tag::LEN`]. It stands in `rekey.proofs`, and is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag([u8; Tag::LEN]);

impl Tag {
    /// Bytes of a tag. Nothing else knows the width: proofs hold tags end to end.
    pub const LEN: usize = 8;

    /// The tag's bytes.
    pub const fn as_bytes(&self) -> &[u8; Tag::LEN] {
        &self.0
    }

    /// A tag as it was stored.
    pub const fn from_bytes(bytes: [u8; Tag::LEN]) -> Tag {
        Tag(bytes)
    }

    /// Tags end to end, for storage.
    pub fn join(tags: impl IntoIterator<Item = Tag>) -> Vec<u8> {
        tags.into_iter().flat_map(|tag| tag.0).collect()
    }

    /// The tags that stand end to end in `bytes`.
    pub fn split(bytes: &[u8]) -> impl Iterator<Item = Tag> {
        bytes.as_chunks().0.iter().copied().map(Tag)
    }
}

/// The key of one rotation's tags, with HMAC's two key blocks already absorbed.
pub struct TagKey(Locked<Hmac<Sha256>>);

impl TagKey {
    /// HKDF-SHA-256(ikm = the rotation's **new** key, no salt, info = [`TAG_KEY_INFO`] || rotation id).
    ///
    /// The rotation's new key in every direction: a rollback compares with the tags that the run wrote.
    pub fn derive(new_key: &EncryptionKey, rotation: &[u8; 16]) -> Self {
        with_clean_stack(|| TagKey::derive_here(new_key, rotation))
    }

    fn derive_here(new_key: &EncryptionKey, rotation: &[u8; 16]) -> Self {
        let mut okm = Zeroizing::new([0; 32]);
        let (mut prk, hkdf) = Hkdf::<Sha256>::extract(None, new_key.bytes());
        hkdf.expand_multi_info(&[TAG_KEY_INFO, rotation], okm.as_mut_slice())
            .expect("32 bytes are less than HKDF's limit");
        prk.as_mut_slice().zeroize();
        TagKey(Locked::new(Hmac::new_from_slice(okm.as_slice()).expect("HMAC takes keys of any length")))
    }

    /// The first bytes of HMAC-SHA-256(id || plaintext). The id's length is fixed, so nothing is ambiguous.
    pub fn tag(&self, id: &[u8; 16], plaintext: &[u8]) -> Tag {
        let mut mac = Hmac::clone(&self.0);
        mac.update(id);
        mac.update(plaintext);
        let full = mac.finalize().into_bytes();
        let mut tag = [0; Tag::LEN];
        tag.copy_from_slice(&full[..Tag::LEN]);
        Tag(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(key: &[u8; 32], rotation: u8) -> TagKey {
        TagKey::derive(&EncryptionKey::from_bytes(key).unwrap_or_else(|e| panic!("{e}")), &[rotation; 16])
    }

    #[test]
    fn a_tag_is_hmac_under_an_hkdf_key() {
        // Computed with Python's hmac, RFC 5869 by hand:
        //   prk = hmac(b'\0'*32, b'k'*32); okm = hmac(prk, b'rekey proof v1' + b'\7'*16 + b'\1')
        //   hmac(okm, b'\3'*16 + b'plaintext')[:8]
        let tag = tags(&[b'k'; 32], 7).tag(&[3; 16], b"plaintext");
        assert_eq!(tag.as_bytes(), &[60, 236, 129, 115, 224, 174, 220, 39]);
    }

    #[test]
    fn tags_are_stored_end_to_end() {
        let both = [1, 2].map(|byte| Tag::from_bytes([byte; Tag::LEN]));
        assert_eq!(Tag::join(both).len(), 2 * Tag::LEN);
        assert_eq!(Tag::split(&Tag::join(both)).collect::<Vec<_>>(), both);
    }

    #[test]
    fn a_tag_binds_key_rotation_id_and_plaintext() {
        let reference = tags(&[1; 32], 7).tag(&[3; 16], b"plaintext");
        assert_eq!(tags(&[1; 32], 7).tag(&[3; 16], b"plaintext"), reference);
        assert_ne!(tags(&[2; 32], 7).tag(&[3; 16], b"plaintext"), reference);
        assert_ne!(tags(&[1; 32], 8).tag(&[3; 16], b"plaintext"), reference);
        assert_ne!(tags(&[1; 32], 7).tag(&[4; 16], b"plaintext"), reference);
        assert_ne!(tags(&[1; 32], 7).tag(&[3; 16], b"plaintexT"), reference);
    }
}
