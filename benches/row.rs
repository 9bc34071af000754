//! The pure core of one row, again and again: open, tag, seal, open again, compare. `scripts/instructions` counts what a
//! row costs in instructions; nothing here reads a clock.
//!
//! `row ROWS BYTES`

use rekey::crypto::{Cipher, EncryptionKey, IvSource, Outcome, Rewrapper, Scratch, TagKey};

fn key(byte: u8) -> EncryptionKey {
    EncryptionKey::from_bytes(&[byte; 32]).unwrap_or_else(|e| panic!("{e}"))
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let (rows, bytes) = (arguments.next().unwrap_or(1000), arguments.next().unwrap_or(472));
    let (old, new) = (key(1), key(2));
    let rewrapper =
        Rewrapper::new(&old, &new, TagKey::derive(&new, &[7; 16]), None).unwrap_or_else(|e| panic!("{e}"));
    let mut envelope = Vec::new();
    Cipher::new(&old).seal_into(b"application1", &vec![b'x'; bytes], &mut envelope);
    let (mut scratch, mut ivs) = (Scratch::default(), IvSource::new());
    for row in 0..rows {
        let id = (row as u128).to_be_bytes();
        let iv = ivs.fill().unwrap_or_else(|e| panic!("{e}"));
        let outcome = rewrapper.rewrap(&mut scratch, &id, &envelope, &iv).unwrap_or_else(|e| panic!("{e}"));
        assert!(matches!(outcome, Outcome::Reencrypted { .. }));
    }
}
