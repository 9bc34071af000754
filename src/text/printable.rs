//! Text out of the database or from an operator, made safe for a terminal: control characters and marks that change the
//! direction of text are printed as `\\u001b` and the like, which JSON reads as the characters they were.

use std::borrow::Cow;

/// Whether a character would do something to a terminal other than show itself. Line ends and tabs may.
fn acts(c: char) -> bool {
    let directs =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && !matches!(c, '\n' | '\t')) || directs
}

/// The text with such characters escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if acts(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_instead() {
        assert_eq!(printable("a \u{1b}[2Jb\r\u{9b}c\u{202e}"), "a \\u001b[2Jb\\u000d\\u009bc\\u202e");
        assert!(matches!(printable("Grüße → 23\t%\n"), Cow::Borrowed(_)));
    }
}
