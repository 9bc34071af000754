//! Rows by outcome. What a batch adds is committed with the batch, so sums over chunks are exactly what happened.

use std::ops::AddAssign;

use serde::Serialize;

/// Rows by outcome; units are rows, except `bytes` (of new ciphertext).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Moved to the target key by us.
    pub re_encrypted: i64,
    /// Found on the target key, put there by someone else.
    pub already_on_key: i64,
    /// Without a credential.
    #[serde(rename = "null")]
    pub null_rows: i64,
    /// Times the application changed a row between our read and our write; the row was read again.
    pub lost_races: i64,
    /// Neither key opens them; untouched.
    pub quarantined: i64,
    /// Bytes of ciphertext written.
    #[serde(rename = "bytes_written")]
    pub bytes: i64,
}

impl Counters {
    /// Rows looked at and settled.
    pub fn settled(&self) -> i64 {
        self.re_encrypted + self.already_on_key + self.null_rows + self.quarantined
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, o: Self) {
        self.re_encrypted += o.re_encrypted;
        self.already_on_key += o.already_on_key;
        self.null_rows += o.null_rows;
        self.lost_races += o.lost_races;
        self.quarantined += o.quarantined;
        self.bytes += o.bytes;
    }
}
