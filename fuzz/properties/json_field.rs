//! One field of a JSON object: read as a full parser reads it, changed with every other byte kept.

use rekey::secrets::aws::{read_field, replace_field};
use serde_json::{Map, Value};

/// `data`: a byte, a value of that length, and a JSON text. The field is `key`.
pub fn check(data: &[u8]) {
    let Some((&length, rest)) = data.split_first() else { return };
    let Some((value, json)) = rest.split_at_checked(usize::from(length)) else { return };
    let read = read_field(json, "key");
    let parsed = serde_json::from_slice::<Map<String, Value>>(json);
    if let Ok(parsed) = &parsed {
        match (parsed.get("key"), &read) {
            (Some(Value::String(expected)), Ok(found)) => assert_eq!(expected.as_bytes(), found.as_slice()),
            (Some(Value::String(_)), Err(error)) => panic!("not found: {error}"),
            (_, found) => assert!(found.is_err(), "found where there is none"),
        }
    }
    let Ok(after) = replace_field(json, "key", value) else { return };
    assert_eq!(read_field(&after, "key").as_ref().map(|v| v.as_slice()), Ok(value));
    if let Ok(mut expected) = parsed {
        let value = std::str::from_utf8(value).expect("what is no UTF-8 is not written");
        expected.insert("key".to_owned(), value.into());
        let after: Map<String, Value> = serde_json::from_slice(&after).expect("JSON stays JSON");
        assert_eq!(after, expected);
    }
    let restored = read.ok().and_then(|old| replace_field(&after, "key", &old).ok());
    if let Some(restored) = restored {
        assert_eq!(kept(&restored), kept(json), "something beside the value changed");
    }
}

/// The text without what stands in quotes: values may be written with other escapes than they were.
fn kept(json: &[u8]) -> Vec<u8> {
    let (mut out, mut quoted, mut escaped) = (Vec::new(), false, false);
    for &byte in json {
        match (quoted, escaped, byte) {
            (false, _, b'"') => quoted = true,
            (false, _, other) => out.push(other),
            (true, true, _) => escaped = false,
            (true, false, b'\\') => escaped = true,
            (true, false, b'"') => quoted = false,
            (true, false, _) => {}
        }
    }
    out
}
