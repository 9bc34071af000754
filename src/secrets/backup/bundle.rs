//! What is inside a backup: one key as it is, or a list of keys with their names.
//!
//! One key stands alone, so that `gpg --decrypt` yields exactly what the application reads; more than one, or
//! one that ends with a newline, is a JSON object. A file that was encrypted by hand is one key too.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{super::drop_line_end, BackupError};

const START: &[u8] = b"{\"rekey_backup\":";

/// One key in a list. Wiped when dropped; has no Debug.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Entry {
    /// Where it was read, in canonical form.
    pub source: String,
    /// Its fingerprint.
    pub fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl Entry {
    /// A key with its name.
    pub fn new(source: String, fingerprint: String, value: &[u8]) -> Entry {
        let text = std::str::from_utf8(value).ok().map(str::to_owned);
        let hex = text.is_none().then(|| value.iter().map(|b| format!("{b:02x}")).collect());
        Entry { source, fingerprint, value: text, value_hex: hex }
    }

    /// The key.
    pub fn value(&self) -> Result<Zeroizing<Vec<u8>>, BackupError> {
        match (&self.value, &self.value_hex) {
            (Some(text), None) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
            (None, Some(hex)) if hex.len() % 2 == 0 && hex.is_ascii() => (0..hex.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&hex[i..i + 2], 16))
                .collect::<Result<Vec<u8>, _>>()
                .map(Zeroizing::new)
                .map_err(|_| BackupError::Content),
            _ => Err(BackupError::Content),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct List {
    rekey_backup: u32,
    keys: Vec<Entry>,
}

/// The content of a backup.
pub enum Bundle {
    /// One key, or a file that was encrypted by hand.
    One(Zeroizing<Vec<u8>>),
    /// Keys with their names.
    List(Vec<Entry>),
}

impl Bundle {
    /// The bytes to encrypt.
    pub fn encode(keys: Vec<Entry>) -> Result<Zeroizing<Vec<u8>>, BackupError> {
        if let [only] = keys.as_slice() {
            let value = only.value()?;
            if !value.ends_with(b"\n") && !value.starts_with(START) {
                return Ok(value);
            }
        }
        // Room for everything, escapes included, so that no copy is left behind by a growing buffer.
        let room =
            keys.iter().map(|k| 512 + 6 * (k.source.len() + k.value().map_or(0, |v| 2 * v.len()))).sum();
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        let list = List { rekey_backup: 1, keys };
        serde_json::to_writer(&mut *out, &list).map_err(|_| BackupError::Content)?;
        Ok(out)
    }

    /// What was decrypted. One trailing line end of a single key is dropped.
    pub fn decode(mut content: Zeroizing<Vec<u8>>) -> Result<Bundle, BackupError> {
        if !content.starts_with(START) {
            drop_line_end(&mut content);
            return if content.is_empty() { Err(BackupError::Content) } else { Ok(Bundle::One(content)) };
        }
        let list: List = serde_json::from_slice(&content).map_err(|_| BackupError::Content)?;
        if list.rekey_backup != 1 || list.keys.is_empty() {
            return Err(BackupError::Content);
        }
        Ok(Bundle::List(list.keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(values: &[&[u8]]) -> Bundle {
        let entry = |v: &&[u8]| Entry::new("aws:a#b".into(), "00".into(), v);
        Bundle::decode(Bundle::encode(values.iter().map(entry).collect()).unwrap())
            .unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn one_key_stands_alone_and_many_have_names() {
        for value in
            [b"key".as_slice(), b"\xff\x00", b" \"k ", b"{\"a\":1}", b"{\"rekey_backup\":9}", b"key\n"]
        {
            match round_trip(&[value]) {
                Bundle::One(got) => assert_eq!(got.as_slice(), value),
                Bundle::List(keys) => assert_eq!(keys[0].value().unwrap().as_slice(), value),
            }
            let Bundle::List(keys) = round_trip(&[value, b"other"]) else { panic!("not a list") };
            assert_eq!(keys[0].value().unwrap().as_slice(), value);
            assert_eq!(keys[1].value().unwrap().as_slice(), b"other");
            assert_eq!(keys[1].source, "aws:a#b");
        }
    }

    #[test]
    fn what_is_no_backup_is_refused() {
        for text in ["", "\n", "{\"rekey_backup\":1,", "{\"rekey_backup\":2,\"keys\":[]}"] {
            let content = Zeroizing::new(text.as_bytes().to_vec());
            assert_eq!(Bundle::decode(content).err(), Some(BackupError::Content), "{text}");
        }
    }
}
