//! Bytes to an OpenPGP message and back.

use std::io::{Cursor, Read};

use pgp::{
    composed::{DecryptionOptions, Edata, Message, MessageBuilder, TheRing},
    crypto::{hash::HashAlgorithm, sym::SymmetricKeyAlgorithm},
    types::{Password, StringToKey},
};
#[expect(
    clippy::disallowed_types,
    reason = "pgp draws session key and salt from the generator it is given"
)]
use rand_core::OsRng;
use zeroize::Zeroizing;

use super::BackupError;

/// The largest count that the format has: 65,011,712 bytes are hashed for one passphrase, as by gpg.
const S2K_COUNT: u8 = 255;

/// Many times what a hundred keys need.
const MAX_BYTES: usize = 16 << 20;

/// Encrypts to a passphrase.
pub fn encrypt(content: &[u8], passphrase: &[u8]) -> Result<Vec<u8>, BackupError> {
    let failed = |_| BackupError::Encrypt;
    let mut message =
        MessageBuilder::from_reader("", Cursor::new(content)).seipd_v1(OsRng, SymmetricKeyAlgorithm::AES256);
    let stretch = StringToKey::new_iterated(OsRng, HashAlgorithm::Sha256, S2K_COUNT);
    message.encrypt_with_password(stretch, &Password::from(passphrase)).map_err(failed)?;
    message.to_vec(OsRng).map_err(failed)
}

/// Decrypts, binary or armored, what [`encrypt`] or gpg made; integrity is checked before a byte is returned.
pub fn decrypt(message: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    if message.is_empty() {
        return Err(BackupError::NotOpenPgp);
    }
    let (message, _) =
        Message::from_reader(Cursor::new(message.to_vec())).map_err(|_| BackupError::NotOpenPgp)?;
    let Message::Encrypted { esk, edata, .. } = &message else { return Err(BackupError::NoPassphrase) };
    if matches!(edata, Edata::SymEncryptedData { .. }) {
        return Err(BackupError::NoIntegrity);
    }
    if !esk.is_empty() && !esk.iter().any(|e| matches!(e, pgp::composed::Esk::SymKeyEncryptedSessionKey(_))) {
        return Err(BackupError::NoPassphrase);
    }
    let password = Password::from(passphrase);
    let ring = TheRing {
        message_password: vec![&password],
        decrypt_options: DecryptionOptions::new().enable_gnupg_aead(),
        ..TheRing::default()
    };
    let wrong = |_| BackupError::WrongPassphrase;
    // The library says by text alone which method it does not have.
    let compressed = |e: pgp::errors::Error| match format!("{e:?}").contains("BZip2") {
        true => BackupError::Bzip2,
        false => BackupError::WrongPassphrase,
    };
    let (mut inner, _) = message.decrypt_the_ring(ring, true).map_err(wrong)?;
    // gpg compresses on its own; rekey never nests messages.
    for _ in 0..4 {
        inner = if inner.is_compressed() { inner.decompress().map_err(compressed)? } else { break };
    }
    let mut content = Zeroizing::new(vec![0; 64 << 10]);
    let mut filled = 0;
    loop {
        if filled == content.len() {
            if filled >= MAX_BYTES {
                return Err(BackupError::TooLarge);
            }
            let mut larger = Zeroizing::new(vec![0; filled * 4]);
            larger[..filled].copy_from_slice(&content);
            content = larger;
        }
        match inner.read(&mut content[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err(BackupError::WrongPassphrase),
        }
    }
    content.truncate(filled);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_opens_with_its_passphrase_only() {
        let message = encrypt(b"a key", b"passphrase").unwrap();
        assert_eq!(decrypt(&message, b"passphrase").unwrap().as_slice(), b"a key");
        assert_eq!(decrypt(&message, b"another").err(), Some(BackupError::WrongPassphrase));
        assert_eq!(decrypt(b"a key\n", b"passphrase").err(), Some(BackupError::NotOpenPgp));
        assert_eq!(decrypt(b"", b"passphrase").err(), Some(BackupError::NotOpenPgp));
    }

    #[test]
    fn no_change_goes_unnoticed() {
        let message = encrypt(b"a key that is long enough to be changed", b"p").unwrap();
        // Every byte would take a minute of stretching passphrases: the last ones are content and its seal.
        for i in (message.len() - 60..message.len()).step_by(7).chain([message.len() - 1]) {
            let mut changed = message.clone();
            changed[i] ^= 1;
            assert!(decrypt(&changed, b"p").is_err(), "byte {i}");
        }
        for length in [message.len() - 1, message.len() - 30] {
            assert!(decrypt(&message[..length], b"p").is_err(), "cut to {length}");
        }
    }
}
