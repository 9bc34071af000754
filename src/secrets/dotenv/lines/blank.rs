//! What python-dotenv takes for white space within a line: what Python's `\\s` matches, line ends apart. That is Unicode's
//! white space and four separators of ASCII; an editor or a web page leaves a no-break space where a space was typed.

/// The length in bytes of the white space that stands at `at`; 0 where there is none.
pub(super) fn blank_at(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..).unwrap_or_default() {
        [b' ' | b'\t' | 0x0b | 0x0c | 0x1c..=0x1f, ..] => 1,
        // U+0085, U+00A0.
        [0xc2, 0x85 | 0xa0, ..] => 2,
        // U+1680; U+2000 to U+200A, U+2028, U+2029, U+202F; U+205F; U+3000.
        [0xe1, 0x9a, 0x80, ..]
        | [0xe2, 0x80, 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf, ..]
        | [0xe2, 0x81, 0x9f, ..]
        | [0xe3, 0x80, 0x80, ..] => 3,
        _ => 0,
    }
}

/// The same of the white space that ends just before `end`.
pub(super) fn blank_before(bytes: &[u8], end: usize) -> usize {
    (1..=3.min(end)).find(|length| blank_at(bytes, end - length) == *length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_what_python_takes_for_it() {
        for c in (0..=0x3100).filter_map(char::from_u32) {
            let text = c.to_string();
            // `str.isspace` of Python 3, by its documentation: bidirectional type WS, B or S, or category Zs.
            let python = c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
            let wanted = if python && !matches!(c, '\r' | '\n') { text.len() } else { 0 };
            assert_eq!(blank_at(text.as_bytes(), 0), wanted, "{c:?}");
            assert_eq!(blank_before(text.as_bytes(), text.len()), wanted, "{c:?}");
        }
    }
}
