//! Text in columns, broken where the terminal ends.

/// One column for a word, one for the text.
pub fn say(word: &str, text: &str) {
    let width = terminal_width().unwrap_or(usize::MAX).saturating_sub(10).max(40);
    for (i, line) in broken(text, width).iter().enumerate() {
        println!("  {:<8}{line}", if i == 0 { word } else { "" });
    }
}

/// Columns of the terminal on stdout, if there is one.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Lines of at most `width` characters, broken between words.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::broken;

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(broken("one two three", 7), ["one two", "three"]);
        assert_eq!(broken("a-very-long-word b", 7), ["a-very-long-word", "b"]);
        assert_eq!(broken("", 7), [""]);
    }
}
