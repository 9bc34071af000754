//! One string field of a JSON object, read or changed with every other byte kept.
//!
//! Pure. Parsing into a tree and printing it again would reorder, reformat and round what is not ours to touch
//! (1.0 → 1, `é` ↔ `\u00e9`), and would leave copies of sibling secrets in memory. So: serde_json only
//! checks the text, and a scanner that may then trust it finds the member's bytes.

use std::ops::Range;

use serde::de::IgnoredAny;
use thiserror::Error as ThisError;
use zeroize::Zeroizing;

/// Why a field cannot be read or changed. Names no value.
#[derive(Debug, PartialEq, Eq, ThisError)]
pub enum JsonFieldError {
    /// Not a JSON object.
    #[error("the secret is not a JSON object")]
    NotAnObject,
    /// The object has no such field.
    #[error("the secret has no field with this name")]
    NoSuchField,
    /// The field is a number, an object, …
    #[error("the field is not a string")]
    NotAString,
    /// The new value is not UTF-8.
    #[error("the value is not UTF-8, as a JSON string must be")]
    NotUtf8,
}

/// The field's string value. Where a name is repeated the last one counts, as for the application's parser.
pub fn read_field(json: &[u8], field: &str) -> Result<Zeroizing<Vec<u8>>, JsonFieldError> {
    let span = spans(json, field)?.pop().ok_or(JsonFieldError::NoSuchField)?;
    let raw = &json[span];
    if raw.first() == Some(&b'"') {
        Ok(unescape(&raw[1..raw.len() - 1]))
    } else {
        Err(JsonFieldError::NotAString)
    }
}

/// What a text that is one JSON string says; `None` where it is something else.
pub fn read_string(json: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    serde_json::from_slice::<IgnoredAny>(json).ok().filter(|_| std::str::from_utf8(json).is_ok())?;
    let inner = json.trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(unescape(inner))
}

/// The same object with that field's string changed (each of them, where the name is repeated).
pub fn replace_field(json: &[u8], field: &str, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, JsonFieldError> {
    let spans = spans(json, field)?;
    if spans.is_empty() {
        return Err(JsonFieldError::NoSuchField);
    }
    let value = escape(value)?;
    let mut out = Zeroizing::new(Vec::with_capacity(json.len() + spans.len() * value.len()));
    let mut copied = 0;
    for span in spans {
        if json[span.start] != b'"' {
            return Err(JsonFieldError::NotAString);
        }
        out.extend_from_slice(&json[copied..span.start]);
        out.extend_from_slice(&value);
        copied = span.end;
    }
    out.extend_from_slice(&json[copied..]);
    Ok(out)
}

/// The same, with the field added behind the others where the object has none of this name.
pub fn set_field(json: &[u8], field: &str, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, JsonFieldError> {
    match replace_field(json, field, value) {
        Err(JsonFieldError::NoSuchField) => {}
        done => return done,
    }
    let (name, value) = (escape(field.as_bytes())?, escape(value)?);
    // Behind the closing brace of a whole object there is white space only, and `{` before it means an empty one.
    let end = json.iter().rposition(|b| *b == b'}').ok_or(JsonFieldError::NotAnObject)?;
    let comma: &[u8] = if json[..end].trim_ascii_end().ends_with(b"{") { b"" } else { b"," };
    let mut out = Zeroizing::new(Vec::with_capacity(json.len() + name.len() + value.len() + 2));
    for part in [&json[..end], comma, name.as_slice(), b":", value.as_slice(), &json[end..]] {
        out.extend_from_slice(part);
    }
    Ok(out)
}

/// Where the values of the members of this name are.
fn spans(json: &[u8], field: &str) -> Result<Vec<Range<usize>>, JsonFieldError> {
    serde_json::from_slice::<IgnoredAny>(json).map_err(|_| JsonFieldError::NotAnObject)?;
    std::str::from_utf8(json).map_err(|_| JsonFieldError::NotAnObject)?;
    let mut at = skip_space(json, 0);
    if json.get(at) != Some(&b'{') {
        return Err(JsonFieldError::NotAnObject);
    }
    let mut found = Vec::new();
    at = skip_space(json, at + 1);
    while json[at] == b'"' {
        let name_end = string_end(json, at);
        let name = unescape(&json[at + 1..name_end - 1]);
        at = skip_space(json, skip_space(json, name_end) + 1);
        let end = value_end(json, at);
        if name.as_slice() == field.as_bytes() {
            found.push(at..end);
        }
        at = skip_space(json, end);
        if json[at] == b',' {
            at = skip_space(json, at + 1);
        }
    }
    Ok(found)
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// One past the closing quote of the string that opens at `at`.
fn string_end(json: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while json[i] != b'"' {
        i += if json[i] == b'\\' { 2 } else { 1 };
    }
    i + 1
}

fn value_end(json: &[u8], at: usize) -> usize {
    let (mut i, mut depth) = (at, 0usize);
    loop {
        match json[i] {
            b'"' => i = string_end(json, i) - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        i += 1;
        let scalar_goes_on = |b: &u8| !matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        let opened = matches!(json[at], b'"' | b'{' | b'[');
        if depth == 0 && (opened || !json.get(i).is_some_and(scalar_goes_on)) {
            return i;
        }
    }
}

/// The bytes of a valid JSON string's inside. A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.
fn unescape(raw: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(raw.len()));
    let mut i = 0;
    while i < raw.len() {
        if raw[i] != b'\\' {
            out.push(raw[i]);
            i += 1;
            continue;
        }
        let c = raw[i + 1];
        i += 2;
        match c {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (c, used) = unicode(&raw[i..]);
                i += used;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => out.push(other),
        }
    }
    out
}

/// What stands after `\u`, and how many bytes of it belong to the character.
fn unicode(raw: &[u8]) -> (char, usize) {
    let unit = |b: Option<&[u8]>| {
        b.and_then(|b| std::str::from_utf8(b).ok()).and_then(|s| u32::from_str_radix(s, 16).ok())
    };
    let first = unit(raw.get(..4)).unwrap_or(0xFFFD);
    if (0xD800..0xDC00).contains(&first)
        && raw.get(4..6) == Some(b"\\u")
        && let Some(second @ 0xDC00..0xE000) = unit(raw.get(6..10))
    {
        let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

fn escape(value: &[u8]) -> Result<Zeroizing<Vec<u8>>, JsonFieldError> {
    let text = std::str::from_utf8(value).map_err(|_| JsonFieldError::NotUtf8)?;
    let mut out = Zeroizing::new(Vec::with_capacity(6 * value.len() + 2));
    out.push(b'"');
    for b in text.bytes() {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            0..0x20 => {
                let hex = b"0123456789abcdef";
                let (high, low) = (hex[usize::from(b >> 4)], hex[usize::from(b & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
            _ => out.push(b),
        }
    }
    out.push(b'"');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(json: &str, field: &str) -> Result<String, JsonFieldError> {
        read_field(json.as_bytes(), field).map(|v| String::from_utf8(v.to_vec()).unwrap())
    }

    fn replace(json: &str, field: &str, value: &str) -> Result<String, JsonFieldError> {
        replace_field(json.as_bytes(), field, value.as_bytes())
            .map(|v| String::from_utf8(v.to_vec()).unwrap())
    }

    fn set(json: &str, field: &str, value: &str) -> Result<String, JsonFieldError> {
        set_field(json.as_bytes(), field, value.as_bytes()).map(|v| String::from_utf8(v.to_vec()).unwrap())
    }

    #[test]
    fn reads_strings_only() {
        let json = " { \"a\" : \"x\\u00e9\\n\\\"\\ud83d\\ude00\" , \"n\":1.0, \"o\":{\"a\":[\"}\"]},\"\\u0061b\":\"y\"}\n";
        assert_eq!(read(json, "a").unwrap(), "xé\n\"😀");
        assert_eq!(read(json, "ab").unwrap(), "y");
        assert_eq!(read(json, "n"), Err(JsonFieldError::NotAString));
        assert_eq!(read(json, "o"), Err(JsonFieldError::NotAString));
        assert_eq!(read(json, "z"), Err(JsonFieldError::NoSuchField));
        assert_eq!(read("{}", "z"), Err(JsonFieldError::NoSuchField));
        assert_eq!(read("{\"a\":\"1\",\"a\":\"2\"}", "a").unwrap(), "2");
        for bad in ["", "[]", "\"a\"", "{", "{\"a\":\"x\"", "{\"a\":\"x\"} {}", "abc"] {
            assert_eq!(read(bad, "a"), Err(JsonFieldError::NotAnObject), "{bad}");
        }
    }

    #[test]
    fn changes_one_field_and_no_other_byte() {
        let json = "{\n  \"n\": 1.0,\r\n\t\"encryption_key\" :  \"old\", \"é\":\"\\u00e9\",\"big\":12345678901234567890123 }";
        let want = json.replace("\"old\"", "\"n\\\"\\\\w\"");
        assert_eq!(replace(json, "encryption_key", "n\"\\w").unwrap(), want);
        assert_eq!(replace("{\"a\":1}", "a", "x"), Err(JsonFieldError::NotAString));
        assert_eq!(replace("{\"b\":\"\"}", "a", "x"), Err(JsonFieldError::NoSuchField));
        assert_eq!(replace_field(b"{\"a\":\"\"}", "a", b"\xff").err(), Some(JsonFieldError::NotUtf8));
    }

    #[test]
    fn adds_one_field_and_keeps_every_byte() {
        for (before, after) in [
            ("{}", "{\"k\":\"v\"}"),
            (" {\r\n\t} \n", " {\r\n\t\"k\":\"v\"} \n"),
            ("{\"a\":\"}{\"}", "{\"a\":\"}{\",\"k\":\"v\"}"),
            ("{ \"o\" : {\"k\":\"x\"} }\n", "{ \"o\" : {\"k\":\"x\"} ,\"k\":\"v\"}\n"),
            ("{\"l\":[{}]}", "{\"l\":[{}],\"k\":\"v\"}"),
            ("{\"n\":1.0}\r\n", "{\"n\":1.0,\"k\":\"v\"}\r\n"),
            ("{\"k\":\"1\", \"k\":\"2\"}", "{\"k\":\"v\", \"k\":\"v\"}"),
        ] {
            assert_eq!(set(before, "k", "v").unwrap(), after);
        }
        let odd = "a\"b\\\n";
        let json = set("{}", odd, "v").unwrap();
        assert_eq!((json.as_str(), read(&json, odd).unwrap().as_str()), (r#"{"a\"b\\\u000a":"v"}"#, "v"));
        assert_eq!(set("{\"k\":1}", "k", "v"), Err(JsonFieldError::NotAString));
        assert_eq!(set_field(b"{}", "k", b"\xff").err(), Some(JsonFieldError::NotUtf8));
        for bad in ["", "[]", "[{}]", "{", "{} {}", "\"}\""] {
            assert_eq!(set(bad, "k", "v"), Err(JsonFieldError::NotAnObject), "{bad}");
        }
    }

    fn tree() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::vec((".{0,4}", inner), 0..4)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(
            members in proptest::collection::vec(("[a-c\\PC]{1,2}", tree()), 0..6),
            old in ".*", new in ".*", pretty in any::<bool>(),
        ) {
            let mut object: serde_json::Map<_, _> = members.into_iter().collect();
            object.insert("key".into(), old.clone().into());
            let print = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let json = print(&object).unwrap();
            prop_assert_eq!(read(&json, "key").unwrap(), old);
            let changed = replace(&json, "key", &new).unwrap();
            object.insert("key".into(), new.into());
            let parsed: serde_json::Value = serde_json::from_str(&changed).unwrap();
            prop_assert_eq!(parsed, serde_json::Value::Object(object));
        }

        #[test]
        fn an_added_field_agrees_with_serde_json(
            members in proptest::collection::vec(("[a-c\\PC]{1,2}", tree()), 0..6),
            name in ".*", value in ".*", pretty in any::<bool>(),
        ) {
            let mut object: serde_json::Map<_, _> = members.into_iter().collect();
            object.remove(&name);
            let print = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let added = set(&print(&object).unwrap(), &name, &value).unwrap();
            object.insert(name, value.into());
            let parsed: serde_json::Value = serde_json::from_str(&added).unwrap();
            prop_assert_eq!(parsed, serde_json::Value::Object(object));
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read_field(&bytes, "a");
        }

        #[test]
        fn no_text_panics(text in "[\\{\\}\\[\\]\",:\\\\a0 u]{0,24}") {
            let _ = read(&text, "a");
        }
    }
}
