//! A head of the audit chain that was noted earlier: does the chain still contain it? Whoever owns the tables can rehash the
//! whole chain, and cannot change what was noted elsewhere.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// `SEQ:HASH`, as the last line of every command names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Place in the chain, from 1.
    pub seq: i64,
    /// 64 hex digits.
    pub hash: String,
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Head, String> {
        let wrong = || {
            "expected SEQ:HASH, as the last line of a command names it: a number and 64 hex digits".to_owned()
        };
        let (seq, hash) = text.trim().split_once(':').ok_or_else(wrong)?;
        let seq = seq.parse().ok().filter(|seq| *seq > 0).ok_or_else(wrong)?;
        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        Ok(Head { seq, hash: hash.to_ascii_lowercase() })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl Serialize for Head {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A noted head, and whether the chain contains it.
#[derive(Clone, Debug, Serialize)]
pub struct Expected {
    /// What was noted.
    pub head: Head,
    /// The chain is intact, and the event of that number has that hash.
    pub contained: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_printed() {
        let text = format!("12:{}", "0f".repeat(32));
        assert_eq!(text.parse::<Head>().unwrap().to_string(), text);
        assert_eq!(text.to_uppercase().parse::<Head>().unwrap().to_string(), text);
        for wrong in ["", "12", "0:00", "-1:00", &text[..60], &format!("{text}0"), "x:y"] {
            assert!(wrong.parse::<Head>().is_err(), "{wrong}");
        }
    }
}
