//! Properties of the cryptography over generated keys, plaintexts and damage, and of its types.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;
use rekey::crypto::{
    Cipher, EncryptionKey, Iv, IvSource, MIN_LEN, OpenError, Outcome, Rewrapper, Scratch, TagKey, Unreadable,
};
use zeroize::Zeroizing;

/// Does not compile if the type implements the trait: then two impls below could be meant.
macro_rules! implements_none_of {
    ($type:ty: $($bound:path),+) => {
        $(const _: fn() = || {
            struct Implemented;
            trait AmbiguousIf<A> {
                fn implemented() {}
            }
            impl<T: ?Sized> AmbiguousIf<()> for T {}
            impl<T: ?Sized + $bound> AmbiguousIf<Implemented> for T {}
            let _ = <$type as AmbiguousIf<_>>::implemented;
        };)+
    };
}

implements_none_of!(EncryptionKey: std::fmt::Debug, std::fmt::Display, Clone, PartialEq, AsRef<[u8]>);
implements_none_of!(Cipher: std::fmt::Debug, std::fmt::Display, Clone);
implements_none_of!(TagKey: std::fmt::Debug, std::fmt::Display, Clone);
implements_none_of!(Rewrapper: std::fmt::Debug, std::fmt::Display, Clone);
implements_none_of!(Scratch: std::fmt::Debug, std::fmt::Display, Clone);
// Two clones would hand out the same IVs.
implements_none_of!(IvSource: Clone);

const _: fn() = || {
    fn wiped_when_dropped<T: zeroize::ZeroizeOnDrop>() {}
    wiped_when_dropped::<EncryptionKey>();
    fn shared_by_workers<T: Send + Sync>() {}
    shared_by_workers::<Rewrapper>();
};

fn key(bytes: [u8; 32]) -> EncryptionKey {
    EncryptionKey::from_bytes(&bytes).unwrap_or_else(|error| panic!("{error}"))
}

fn seal(by: [u8; 32], iv: &Iv, plaintext: &[u8]) -> Vec<u8> {
    let mut envelope = b"left over".to_vec();
    Cipher::new(&key(by)).seal_into(iv, plaintext, &mut envelope);
    envelope
}

fn open(by: [u8; 32], envelope: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut plaintext = Zeroizing::new(Vec::new());
    Cipher::new(&key(by)).open_into(envelope, &mut plaintext).map(|()| plaintext.to_vec())
}

fn three_keys() -> impl Strategy<Value = [[u8; 32]; 3]> {
    any::<[[u8; 32]; 3]>().prop_filter("different", |[a, b, c]| a != b && b != c && a != c)
}

proptest! {
    #[test]
    fn opening_undoes_sealing(by: [u8; 32], iv: Iv, plaintext in vec(any::<u8>(), 0..3000)) {
        let envelope = seal(by, &iv, &plaintext);
        prop_assert_eq!(envelope.len(), MIN_LEN + plaintext.len());
        prop_assert_eq!(open(by, &envelope), Ok(plaintext));
    }

    #[test]
    fn any_flipped_bit_is_noticed(by: [u8; 32], iv: Iv, plaintext in vec(any::<u8>(), 0..200), at: prop::sample::Index) {
        let mut envelope = seal(by, &iv, &plaintext);
        let bit = at.index(envelope.len() * 8);
        envelope[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(open(by, &envelope), Err(OpenError::NotThisKey));
    }

    #[test]
    fn a_cut_or_lengthened_envelope_is_noticed(by: [u8; 32], iv: Iv, plaintext in vec(any::<u8>(), 0..200), at: prop::sample::Index) {
        let mut envelope = seal(by, &iv, &plaintext);
        let len = at.index(envelope.len());
        let expected = match len {
            0 => OpenError::Empty,
            _ if len < MIN_LEN => OpenError::TooShort { len },
            _ => OpenError::NotThisKey,
        };
        prop_assert_eq!(open(by, &envelope[..len]), Err(expected));
        envelope.push(0);
        prop_assert_eq!(open(by, &envelope), Err(OpenError::NotThisKey));
    }

    #[test]
    fn a_row_is_moved_kept_or_reported([source, target, older] in three_keys(), rotation: [u8; 16],
        rows in vec((0..5_u8, any::<[u8; 16]>(), any::<Iv>(), vec(any::<u8>(), 0..1500)), 1..8))
    {
        let tags = || TagKey::derive(&key(target), &rotation);
        let without = Rewrapper::new(&key(source), &key(target), tags(), None).unwrap_or_else(|e| panic!("{e}"));
        let with = Rewrapper::new(&key(source), &key(target), tags(), Some(&key(older))).unwrap_or_else(|e| panic!("{e}"));
        // One scratch for all rows: what one leaves must not reach the next.
        let (mut scratch, mut ivs) = (Scratch::default(), IvSource::new());
        for (kind, id, old_iv, plaintext) in rows {
            let envelope = match kind {
                0 => seal(source, &old_iv, &plaintext),
                1 => seal(target, &old_iv, &plaintext),
                2 => seal(older, &old_iv, &plaintext),
                3 => plaintext.clone(),
                _ => Vec::new(),
            };
            let iv = ivs.fill().unwrap();
            let unreadable = match envelope.len() {
                0 => Unreadable::Empty,
                len if len < MIN_LEN => Unreadable::TooShort { len },
                _ => Unreadable::NeitherKey,
            };
            for (rewrapper, moves) in [(&without, kind == 0), (&with, kind == 0 || kind == 2)] {
                match rewrapper.rewrap(&mut scratch, &id, &envelope, &iv).unwrap() {
                    Outcome::Reencrypted { envelope: new, tag } => {
                        prop_assert!(moves);
                        prop_assert_eq!(&new[..iv.len()], &iv);
                        prop_assert_eq!(open(target, &new), Ok(plaintext.clone()));
                        prop_assert_eq!(open(source, &new), Err(OpenError::NotThisKey));
                        prop_assert_eq!(tag, tags().tag(&id, &plaintext));
                        prop_assert_eq!(rewrapper.tag_of_target(&mut scratch, &id, &new), Ok(tag));
                        let again = rewrapper.rewrap(&mut scratch, &id, &new, &iv).unwrap();
                        prop_assert_eq!(again, Outcome::OnTarget);
                    }
                    Outcome::OnTarget => prop_assert_eq!(kind, 1),
                    Outcome::Unreadable(why) => {
                        prop_assert!(!moves && kind != 1);
                        prop_assert_eq!(why, unreadable);
                    }
                }
            }
        }
    }

    #[test]
    fn a_rollback_restores_the_bytes_and_their_tag([old, new, _] in three_keys(), rotation: [u8; 16],
        id: [u8; 16], old_iv: Iv, iv: Iv, back_iv: Iv, plaintext in vec(any::<u8>(), 0..800))
    {
        let tags = || TagKey::derive(&key(new), &rotation);
        let forth = Rewrapper::new(&key(old), &key(new), tags(), None).unwrap_or_else(|e| panic!("{e}"));
        let back = Rewrapper::new(&key(new), &key(old), tags(), None).unwrap_or_else(|e| panic!("{e}"));
        let mut scratch = Scratch::default();
        let moved = forth.rewrap(&mut scratch, &id, &seal(old, &old_iv, &plaintext), &iv).unwrap();
        let Outcome::Reencrypted { envelope, tag } = moved else { panic!("{moved:?}") };
        let moved = back.rewrap(&mut scratch, &id, &envelope, &back_iv).unwrap();
        let Outcome::Reencrypted { envelope, tag: tag_back } = moved else { panic!("{moved:?}") };
        prop_assert_eq!(tag_back, tag);
        prop_assert_eq!(open(old, &envelope), Ok(plaintext));
    }

    #[test]
    fn a_tag_binds_the_row(of: [u8; 32], rotation: [u8; 16], [a, b]: [[u8; 16]; 2], plaintext in vec(any::<u8>(), 0..800)) {
        prop_assume!(a != b);
        let tags = TagKey::derive(&key(of), &rotation);
        prop_assert_ne!(tags.tag(&a, &plaintext), tags.tag(&b, &plaintext));
    }
}

#[test]
fn ivs_are_unique_over_a_hundred_thousand() {
    let mut source = IvSource::new();
    let ivs: HashSet<Iv> = (0..100_000).map(|_| source.fill().unwrap()).collect();
    assert_eq!(ivs.len(), 100_000);
    // Every byte takes every value: a short read that left zeros would show here.
    for at in 0..12 {
        assert_eq!(ivs.iter().map(|iv| iv[at]).collect::<HashSet<u8>>().len(), 256, "byte {at}");
    }
}
