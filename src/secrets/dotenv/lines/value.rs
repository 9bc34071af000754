//! A value as it stands in a dotenv file, and as it is: quotes and escapes.

use zeroize::Zeroizing;

use super::{LineError, Quote};

pub(super) fn decode(raw: &[u8], quote: Quote) -> Zeroizing<Vec<u8>> {
    let mut value = Zeroizing::new(Vec::with_capacity(raw.len()));
    let inner = match quote {
        Quote::None => raw,
        _ => &raw[1..raw.len() - 1],
    };
    let mut bytes = inner.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        let escaped = match (quote, b, bytes.peek()) {
            (Quote::Single, b'\\', Some(&c @ (b'\\' | b'\''))) => Some(c),
            (Quote::Double, b'\\', Some(&c)) => match c {
                b'\\' | b'\'' | b'"' => Some(c),
                b'a' => Some(7),
                b'b' => Some(8),
                b'f' => Some(12),
                b'n' => Some(b'\n'),
                b'r' => Some(b'\r'),
                b't' => Some(b'\t'),
                b'v' => Some(11),
                _ => None,
            },
            _ => None,
        };
        value.push(escaped.unwrap_or(b));
        if escaped.is_some() {
            bytes.next();
        }
    }
    value
}

pub(super) fn encode(value: &[u8]) -> Result<Zeroizing<Vec<u8>>, LineError> {
    let text = std::str::from_utf8(value).map_err(|_| LineError::Unwritable)?;
    if text.chars().any(char::is_control) || text.contains("${") {
        return Err(LineError::Unwritable);
    }
    // What sh, Compose and python-dotenv all read as itself; `#` and `~` mean something only in front.
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_.,:/+=@%^#!~".contains(c);
    if !text.is_empty() && text.chars().all(bare) && !text.starts_with(['#', '~']) {
        return Ok(Zeroizing::new(value.to_vec()));
    }
    // Before a closing quote python-dotenv up to 1.2.2 takes an escaped backslash for the escape of that quote, and reads on.
    if text.ends_with('\\') {
        return if is_plain(text) { Ok(Zeroizing::new(value.to_vec())) } else { Err(LineError::Unwritable) };
    }
    let mut out = Zeroizing::new(Vec::with_capacity(2 * value.len() + 2));
    let quote = if text.contains('\'') { b'"' } else { b'\'' };
    out.push(quote);
    for &b in value {
        if b == quote || b == b'\\' {
            out.push(b'\\');
        }
        out.push(b);
    }
    out.push(quote);
    Ok(out)
}

/// Does python-dotenv read it as itself without quotes? It ends in no white space.
fn is_plain(text: &str) -> bool {
    let mut before_comments = text.split('#').rev().skip(1);
    !text.starts_with(['\'', '"', '#'])
        && !text.starts_with(char::is_whitespace)
        && !before_comments.any(|part| part.ends_with(char::is_whitespace))
}
