//! A 256-bit AES key and the fingerprint by which the outside may name it.
//!
//! The key's bytes leave this module only towards its siblings. It derives nothing, so it cannot be printed,
//! cloned or compared by accident; its one copy lies in locked memory and is wiped when dropped.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Serialize, Serializer};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::locked::{Locked, with_clean_stack};
use super::strength::{Weakness, weakness};
use crate::error::{Error, Exit};

/// Bytes in an AES-256 key.
pub const KEY_LEN: usize = 32;

const FINGERPRINT_LABEL: &[u8] = b"rekey fingerprint v1";

/// An ENCRYPTION_KEY: the UTF-8 bytes of its 32 characters, used as they are.
///
/// Moving it moves a pointer and leaves no copy of the key on the stack.
#[derive(ZeroizeOnDrop)]
pub struct EncryptionKey(Locked<[u8; KEY_LEN]>);

impl EncryptionKey {
    /// Takes a copy of exactly [`KEY_LEN`] bytes; the caller wipes its own.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != KEY_LEN {
            let chars = std::str::from_utf8(bytes).ok().map(|text| text.chars().count());
            return Err(KeyError::WrongLength { bytes: bytes.len(), chars });
        }
        let mut key = EncryptionKey(Locked::new([0; KEY_LEN]));
        key.0.copy_from_slice(bytes);
        Ok(key)
    }

    /// Refuses a key that anyone could know or guess: what a *new* production key must not be.
    pub fn require_strong(&self) -> Result<(), KeyError> {
        weakness(self.bytes()).map_or(Ok(()), |found| Err(KeyError::WeakKey(found)))
    }

    /// The name by which a rotation remembers this key.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.bytes())
    }

    /// Whether both are the same key, in constant time: compares two full MACs, not the keys.
    pub fn same_as(&self, other: &EncryptionKey) -> bool {
        with_clean_stack(|| {
            let mut theirs = other.label_mac().finalize().into_bytes();
            let same = self.label_mac().verify_slice(&theirs).is_ok();
            theirs.as_mut_slice().zeroize();
            same
        })
    }

    /// The bytes, for the one place outside `crypto` that needs them: writing the key where the application reads it.
    pub(crate) fn expose(&self) -> &[u8] {
        self.bytes()
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    fn label_mac(&self) -> Hmac<Sha256> {
        label_mac(self.bytes())
    }
}

fn label_mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key)
        .expect("HMAC takes keys of any length")
        .chain_update(FINGERPRINT_LABEL)
}

/// First 8 bytes of HMAC-SHA-256(key, "rekey fingerprint v1"): says which key. It tells nothing about a random one. Against a
/// key that a person chose, guesses can be tried offline, by whoever reads a log or a table (`SECURITY.md`, *Fingerprints*).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// The fingerprint of a key of any length: a SECRET_KEY, or what stands where a key should be.
    pub fn of(key: &[u8]) -> Self {
        with_clean_stack(|| {
            let mac = label_mac(key).finalize().into_bytes();
            let mut short = [0; 8];
            short.copy_from_slice(&mac[..8]);
            Fingerprint(short)
        })
    }

    /// The 8 bytes, as the ledger stores them.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// The fingerprint that the ledger stored.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Fingerprint(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// As text: 16 hexadecimal digits.
impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not a fingerprint. The error does not repeat it, because it may be a pasted key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key fingerprint is 16 hexadecimal digits")]
pub struct ParseFingerprintError;

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // from_str_radix alone would accept a leading '+'.
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseFingerprintError);
        }
        let value = u64::from_str_radix(text, 16).map_err(|_| ParseFingerprintError)?;
        Ok(Fingerprint(value.to_be_bytes()))
    }
}

/// Why bytes, or a pair of keys, cannot be used. Lengths are in bytes: characters are what misleads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not exactly [`KEY_LEN`] bytes. `chars` is given where the bytes are UTF-8 text.
    #[error("an encryption key has exactly {KEY_LEN} bytes; this one has {}", counted(*bytes, *chars))]
    WrongLength { bytes: usize, chars: Option<usize> },
    /// Source and target are the same key.
    #[error("the old and the new key are the same key")]
    Equal,
    /// Published, a placeholder, or guessable.
    #[error("this key is not secret: {0}")]
    WeakKey(Weakness),
}

fn counted(bytes: usize, chars: Option<usize>) -> String {
    match chars {
        Some(chars) if chars != bytes => {
            format!("{bytes} bytes (its {chars} characters are not all ASCII, and bytes count)")
        }
        _ => format!("{bytes} bytes"),
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        let hint = match error {
            KeyError::WrongLength { .. } => {
                "Generate one with `rekey keys generate encryption`. A truncated or padded key decrypts nothing"
            }
            KeyError::Equal => "Name two different keys with `--old-key` and `--new-key`",
            KeyError::WeakKey(_) => "Generate one with `rekey keys generate encryption`",
        };
        Error::new(Exit::Key, error.to_string()).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> EncryptionKey {
        EncryptionKey::from_bytes(text.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn lengths_are_counted_in_bytes() {
        // The guide calls the first "exactly 32 characters" and the second "42 characters".
        for (text, bytes, chars) in
            [("AES-256-key-for-provider-cred!", 30, 30), ("", 0, 0), ("é".repeat(32).as_str(), 64, 32)]
        {
            let error = EncryptionKey::from_bytes(text.as_bytes()).err();
            assert_eq!(error, Some(KeyError::WrongLength { bytes, chars: Some(chars) }), "{text}");
        }
        let whole = key("this-is-way-too-long-for-aes-256");
        assert_eq!(whole.expose(), b"this-is-way-too-long-for-aes-256");
        assert!(EncryptionKey::from_bytes("é".repeat(16).as_bytes()).is_ok());
        let error = EncryptionKey::from_bytes(&[0xff; 31]).err();
        assert_eq!(error, Some(KeyError::WrongLength { bytes: 31, chars: None }));
    }

    #[test]
    fn the_message_says_what_misled() {
        let error = EncryptionKey::from_bytes("é".repeat(32).as_bytes()).err().unwrap().to_string();
        assert!(error.contains("64 bytes") && error.contains("32 characters"), "{error}");
        let error = EncryptionKey::from_bytes(b"short").err().unwrap().to_string();
        assert!(error.ends_with("5 bytes") && !error.contains("short"), "{error}");
    }

    #[test]
    fn a_fingerprint_is_a_truncated_hmac() {
        // python3 -c "import hmac; print(hmac.new(b'0123456789abcdef0123456789abcdef',
        //             b'rekey fingerprint v1', 'sha256').hexdigest()[:16])"
        let fingerprint = key("0123456789abcdef0123456789abcdef").fingerprint();
        assert_eq!(fingerprint.to_string(), "4df875cf543ca3cf");
        assert_eq!(fingerprint, Fingerprint::of(b"0123456789abcdef0123456789abcdef"));
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert_eq!(Fingerprint::from_bytes(fingerprint.to_bytes()), fingerprint);
        assert_eq!(format!("{fingerprint:?}"), "Fingerprint(4df875cf543ca3cf)");
    }

    #[test]
    fn a_fingerprint_keeps_its_leading_zeros_and_refuses_other_text() {
        let zeros = Fingerprint::from_bytes([0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(zeros.to_string(), "0000000000000001");
        for text in ["", "1", "+000000000000001", "000000000000000g", "00000000000000001", "0x00000000000001"]
        {
            assert_eq!(text.parse::<Fingerprint>(), Err(ParseFingerprintError), "{text}");
        }
    }

    #[test]
    fn same_as_compares_the_bytes() {
        let a = key("0123456789abcdef0123456789abcdef");
        assert!(a.same_as(&key("0123456789abcdef0123456789abcdef")));
        assert!(!a.same_as(&key("0123456789abcdef0123456789abcdeg")));
    }

    #[test]
    fn a_published_key_is_not_strong() {
        let error = key("test-key-for-encryption-32-ch!@#").require_strong();
        assert_eq!(error, Err(KeyError::WeakKey(Weakness::Published)));
        assert_eq!(key("0123456789abcdef0123456789abcdef").require_strong(), Ok(()));
    }
}
