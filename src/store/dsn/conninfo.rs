//! libpq's other form, `host=db user=rekey password='it''s'` (PostgreSQL manual, 34.1.1.1). Splits; gives no meaning.

use super::error::DsnError;

/// The pairs, unquoted, in their order.
pub(super) fn pairs(text: &str) -> Result<Vec<(&str, String)>, DsnError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(DsnError::KeyValue)?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(DsnError::KeyValue);
        }
        let (value, after) = value(after.trim_start())?;
        if value.contains('\0') {
            return Err(DsnError::KeyValue);
        }
        pairs.push((name, value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// The value that text begins with, and what follows it. A backslash takes the next character as it is, in and out of
/// quotes.
fn value(text: &str) -> Result<(String, &str), DsnError> {
    let quoted = text.starts_with('\'');
    // In one buffer that is never moved: it may be a password, which its owner wipes.
    let mut value = String::with_capacity(text.len());
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(DsnError::KeyValue) } else { Ok((value, "")) }
}
