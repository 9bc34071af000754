//! The envelope, and the re-encryption of one row: whatever the bytes, what opens opens to what was sealed, and
//! what does not says why and leaves nothing behind.

use rekey::crypto::{
    Cipher, EncryptionKey, IV_LEN, Iv, MIN_LEN, OpenError, Outcome, Rewrapper, Scratch, TagKey, Unreadable,
};
use zeroize::Zeroizing;

/// `data`: an IV, a byte that says what to damage, a plaintext; and all of it once more as a stored value.
pub fn check(data: &[u8]) {
    let [old, new] = [b'o', b'n'].map(|byte| EncryptionKey::from_bytes(&[byte; 32]).expect("32 bytes"));
    let ciphers = [Cipher::new(&old), Cipher::new(&new)];
    as_stored(data, &ciphers[0]);
    let Some((iv, rest)) = data.split_first_chunk::<IV_LEN>() else { return };
    let Some((&damage, plaintext)) = rest.split_first() else { return };
    sealed_and_damaged(&ciphers, iv, damage, plaintext);
    moved(&old, &new, &ciphers, iv, plaintext);
}

fn open(cipher: &Cipher, envelope: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut plaintext = Zeroizing::new(b"left over".to_vec());
    let opened = cipher.open_into(envelope, &mut plaintext);
    assert!(opened.is_ok() || plaintext.is_empty(), "a failure left bytes behind");
    opened.map(|()| plaintext.to_vec())
}

/// Nobody seals with these keys outside this file, so no input opens.
fn as_stored(bytes: &[u8], cipher: &Cipher) {
    let expected = match bytes.len() {
        0 => OpenError::Empty,
        len if len < MIN_LEN => OpenError::TooShort { len },
        _ => OpenError::NotThisKey,
    };
    assert_eq!(open(cipher, bytes), Err(expected));
}

fn sealed_and_damaged([old, new]: &[Cipher; 2], iv: &Iv, damage: u8, plaintext: &[u8]) {
    let mut envelope = vec![7; usize::from(damage)];
    old.seal_into(iv, plaintext, &mut envelope);
    assert_eq!(envelope.len(), MIN_LEN + plaintext.len());
    assert_eq!(&envelope[..IV_LEN], iv);
    assert_eq!(open(old, &envelope).as_deref(), Ok(plaintext));
    assert_eq!(open(new, &envelope), Err(OpenError::NotThisKey));
    let at = usize::from(damage) % envelope.len();
    envelope[at] ^= 1 << (damage % 8);
    assert_eq!(open(old, &envelope), Err(OpenError::NotThisKey), "byte {at} changed unnoticed");
    as_stored(&envelope[..at], old);
}

/// To the new key and back: the same bytes, the same tag.
fn moved(old: &EncryptionKey, new: &EncryptionKey, ciphers: &[Cipher; 2], iv: &Iv, plaintext: &[u8]) {
    let tags = || TagKey::derive(new, &[7; 16]);
    let forth = Rewrapper::new(old, new, tags(), None).expect("different keys");
    let back = Rewrapper::new(new, old, tags(), None).expect("different keys");
    let (mut scratch, id) = (Scratch::default(), [3; 16]);
    let mut envelope = Vec::new();
    ciphers[0].seal_into(iv, plaintext, &mut envelope);
    let mut seen = Vec::new();
    for (rewrapper, target) in [(&forth, &ciphers[1]), (&back, &ciphers[0])] {
        let outcome = rewrapper.rewrap(&mut scratch, &id, &envelope, iv).expect("sound memory");
        let Outcome::Reencrypted { envelope: moved, tag } = outcome else { panic!("{outcome:?}") };
        assert_eq!(open(target, &moved).as_deref(), Ok(plaintext));
        let again = rewrapper.rewrap(&mut scratch, &id, &moved, iv).expect("sound memory");
        assert_eq!(again, Outcome::OnTarget);
        seen.push(tag);
        envelope = moved;
    }
    assert_eq!(seen[0], seen[1]);
    let outcome = forth.rewrap(&mut scratch, &id, plaintext, iv).expect("sound memory");
    let expected = match plaintext.len() {
        0 => Unreadable::Empty,
        len if len < MIN_LEN => Unreadable::TooShort { len },
        _ => Unreadable::NeitherKey,
    };
    assert_eq!(outcome, Outcome::Unreadable(expected));
}
