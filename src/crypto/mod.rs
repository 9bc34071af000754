//! Pure cryptography: keys, fingerprints, the application's envelope, re-encryption of one row, proof tags.
