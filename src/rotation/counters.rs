//! Rows by outcome. What a batch adds is committed with the batch, so sums over chunks are exactly what happened.

use std::ops::AddAssign;

use serde::Serialize;

/// Rows by outcome; units are rows, except `bytes` (of new ciphertext).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Re-encrypted by rekey.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counters() -> impl Strategy<Value = Counters> {
        prop::array::uniform6(0_i64..1 << 50).prop_map(|[a, b, c, d, e, f]| Counters {
            re_encrypted: a,
            already_on_key: b,
            null_rows: c,
            lost_races: d,
            quarantined: e,
            bytes: f,
        })
    }

    #[test]
    fn lost_races_and_bytes_settle_no_row() {
        let mut all = Counters {
            re_encrypted: 1,
            already_on_key: 20,
            null_rows: 300,
            quarantined: 4000,
            ..Counters::default()
        };
        assert_eq!(all.settled(), 4321);
        all.lost_races = 7;
        all.bytes = 7;
        assert_eq!(all.settled(), 4321);
    }

    proptest! {
        /// Chunks may be summed in any order.
        #[test]
        fn sums_are_by_outcome(a in counters(), b in counters(), c in counters()) {
            let sum = |parts: [Counters; 3]| {
                let mut sum = Counters::default();
                parts.into_iter().for_each(|part| sum += part);
                sum
            };
            let total = sum([a, b, c]);
            prop_assert_eq!(total, sum([c, a, b]));
            for of in [
                |x: &Counters| x.re_encrypted,
                |x: &Counters| x.already_on_key,
                |x: &Counters| x.null_rows,
                |x: &Counters| x.lost_races,
                |x: &Counters| x.quarantined,
                |x: &Counters| x.bytes,
                Counters::settled,
            ] {
                prop_assert_eq!(of(&total), of(&a) + of(&b) + of(&c));
            }
        }
    }
}
