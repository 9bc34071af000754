//! The lossless model of a dotenv file: which bytes are whose value, and everything else kept as it is.
//!
//! Pure. Follows python-dotenv, the application's reader: `export`, spaces around `=`, single quotes (with `\'`
//! and `\\`), double quotes (with backslash escapes, over several lines), and for unquoted and empty values a comment
//! only after white space. Line ends are LF, CRLF or CR; a byte-order mark is skipped.

use std::ops::Range;

use thiserror::Error as ThisError;
use zeroize::Zeroizing;

/// Why a variable of a dotenv file has no usable value. Names lines, never values.
#[derive(Debug, PartialEq, Eq, ThisError)]
pub enum LineError {
    /// The application's reader would skip the line.
    #[error("line {line} cannot be read: a quote is not closed, or something follows the closing one")]
    Broken { line: usize },
    /// The value would be expanded from other variables.
    #[error("line {line} takes its value from other variables (${{…}})")]
    Interpolated { line: usize },
    /// The value to write has no form that a dotenv file can hold.
    #[error(
        "a dotenv file cannot hold the value: it has control characters, is not UTF-8, or ends in a backslash and would \
         need quotes"
    )]
    Unwritable,
    /// A quote that is never closed elsewhere in the file would swallow the new value, or be closed by it.
    #[error("the file has a quote that is not closed, which the new value would change the meaning of")]
    Entangled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

struct Assignment {
    line: usize,
    name: Range<usize>,
    /// The value's bytes in the file, quotes included; `None`: the line is broken.
    raw: Option<(Range<usize>, Quote)>,
    /// False for `NAME` without `=`.
    has_equals: bool,
}

/// A dotenv file's bytes and where its assignments are. Wiped when dropped.
pub struct DotenvFile {
    bytes: Zeroizing<Vec<u8>>,
    assignments: Vec<Assignment>,
}

impl DotenvFile {
    /// Never fails: lines that cannot be read are kept, and only asking for their variable is an error.
    pub fn parse(bytes: Zeroizing<Vec<u8>>) -> DotenvFile {
        let assignments = Scanner { bytes: &bytes, at: 0, line: 1 }.run();
        DotenvFile { bytes, assignments }
    }

    /// The file as it now stands.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value of a variable: its last assignment's. `None` where nothing assigns it.
    pub fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, LineError> {
        let Some(found) = self.assignments.iter().rfind(|a| &self.bytes[a.name.clone()] == name.as_bytes())
        else {
            return Ok(None);
        };
        let line = found.line;
        let (range, quote) = found.raw.as_ref().ok_or(LineError::Broken { line })?;
        if !found.has_equals {
            return Ok(None);
        }
        let value = decode(&self.bytes[range.clone()], *quote);
        if value.windows(2).any(|w| w == b"${") {
            return Err(LineError::Interpolated { line });
        }
        Ok(Some(value))
    }

    /// The same file with the variable set in every line that assigns it, or appended where none does; every
    /// other byte is kept. The value stands unquoted unless it must be quoted.
    pub fn with(&self, name: &str, value: &[u8]) -> Result<DotenvFile, LineError> {
        let encoded = encode(value)?;
        // Enough for every case, so that no copy of the keys is left behind by a growing buffer.
        let room = self.bytes.len() + (self.assignments.len() + 1) * (encoded.len() + name.len() + 5);
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        let (mut copied, mut written) = (0, false);
        for found in self.assignments.iter().filter(|a| &self.bytes[a.name.clone()] == name.as_bytes()) {
            let (range, _) = found.raw.as_ref().ok_or(LineError::Broken { line: found.line })?;
            out.extend_from_slice(&self.bytes[copied..range.start]);
            if !found.has_equals {
                out.push(b'=');
            }
            out.extend_from_slice(&encoded);
            // `K='old'#note`, or `K#note`: behind a value without quotes a comment begins after white space only.
            if self.bytes[range.end..].starts_with(b"#") {
                out.push(b' ');
            }
            (copied, written) = (range.end, true);
        }
        out.extend_from_slice(&self.bytes[copied..]);
        if !written {
            let end = self.line_end();
            if !out.is_empty() && !out.ends_with(b"\n") && !out.ends_with(b"\r") {
                out.extend_from_slice(end);
            }
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            out.extend_from_slice(&encoded);
            out.extend_from_slice(end);
        }
        let after = DotenvFile::parse(out);
        if after.agrees(self, name, value) { Ok(after) } else { Err(LineError::Entangled) }
    }

    /// Does this file set `name` to `value`, and every other name as `before` does?
    fn agrees(&self, before: &DotenvFile, name: &str, value: &[u8]) -> bool {
        let same = |a: &Assignment| {
            std::str::from_utf8(&before.bytes[a.name.clone()])
                .is_ok_and(|other| other == name || self.get(other) == before.get(other))
        };
        self.get(name).is_ok_and(|v| v.is_some_and(|v| v.as_slice() == value))
            && before.assignments.iter().all(same)
    }

    /// The file's own line end: that of its first line.
    fn line_end(&self) -> &'static [u8] {
        match self.bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            Some(i) if self.bytes[i..].starts_with(b"\r\n") => b"\r\n",
            Some(i) if self.bytes[i] == b'\r' => b"\r",
            _ => b"\n",
        }
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl Scanner<'_> {
    fn run(mut self) -> Vec<Assignment> {
        let mut found = Vec::new();
        if self.bytes.starts_with(b"\xEF\xBB\xBF") {
            self.at = 3;
        }
        while self.at < self.bytes.len() {
            found.extend(self.statement());
            self.skip_line();
        }
        found
    }

    /// One assignment, leaving the position somewhere in its last line.
    fn statement(&mut self) -> Option<Assignment> {
        let line = self.line;
        self.blanks();
        if self.rest().starts_with(b"export") && self.bytes.get(self.at + 6).is_some_and(|b| is_blank(*b)) {
            self.at += 6;
            self.blanks();
        }
        let name = self.name()?;
        let after_name = self.at;
        self.blanks();
        if self.peek() != Some(b'=') {
            let end = matches!(self.peek(), None | Some(b'\n' | b'\r' | b'#'));
            return end.then_some(Assignment {
                line,
                name,
                raw: Some((after_name..after_name, Quote::None)),
                has_equals: false,
            });
        }
        self.at += 1;
        let after_equals = self.at;
        self.blanks();
        let raw = match self.peek() {
            Some(b'#') if self.at > after_equals => Some((after_equals..after_equals, Quote::None)),
            Some(b'\'') => self.quoted(b'\'').map(|r| (r, Quote::Single)),
            Some(b'"') => self.quoted(b'"').map(|r| (r, Quote::Double)),
            _ => Some((self.unquoted(), Quote::None)),
        };
        Some(Assignment { line, name, raw, has_equals: true })
    }

    fn name(&mut self) -> Option<Range<usize>> {
        if self.peek() == Some(b'\'') {
            // It may span lines: a quote that is not closed takes what follows it along.
            let start = self.at + 1;
            let len = self.bytes[start..].iter().position(|b| *b == b'\'').filter(|len| *len > 0)?;
            self.advance(start + len + 1);
            return Some(start..start + len);
        }
        let start = self.at;
        while self.peek().is_some_and(|b| !is_blank(b) && !matches!(b, b'=' | b'#' | b'\n' | b'\r')) {
            self.at += 1;
        }
        (self.at > start).then_some(start..self.at)
    }

    /// The whole quoted text, if it is closed and only a comment follows; stays on the opening line if it is not closed.
    fn quoted(&mut self, quote: u8) -> Option<Range<usize>> {
        let start = self.at;
        let mut i = start + 1;
        while i < self.bytes.len() && self.bytes[i] != quote {
            i += if self.bytes[i] == b'\\' { 2 } else { 1 };
        }
        if i >= self.bytes.len() {
            return None;
        }
        let end = i + 1;
        self.advance(end);
        let after = self.bytes[end..].iter().find(|b| !is_blank(**b)).copied();
        matches!(after, None | Some(b'\n' | b'\r' | b'#')).then_some(start..end)
    }

    /// Goes on to `end`, which may be in another line.
    fn advance(&mut self, end: usize) {
        self.line += self.bytes[self.at..end].iter().filter(|b| **b == b'\n').count();
        self.at = end;
    }

    fn unquoted(&mut self) -> Range<usize> {
        let start = self.at;
        let line = &self.bytes[start..];
        let line = &line[..line.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(line.len())];
        let comment = (1..line.len()).find(|&i| line[i] == b'#' && is_blank(line[i - 1]));
        let value = &line[..comment.unwrap_or(line.len())];
        self.at += line.len();
        start..start + value.iter().rposition(|b| !is_blank(*b)).map_or(0, |last| last + 1)
    }

    fn skip_line(&mut self) {
        while let Some(b) = self.peek() {
            self.at += 1;
            if b == b'\r' && self.peek() == Some(b'\n') {
                self.at += 1;
            }
            if matches!(b, b'\n' | b'\r') {
                self.line += 1;
                return;
            }
        }
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | 0x0b | 0x0c)
}

fn decode(raw: &[u8], quote: Quote) -> Zeroizing<Vec<u8>> {
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

fn encode(value: &[u8]) -> Result<Zeroizing<Vec<u8>>, LineError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(text: &str) -> DotenvFile {
        DotenvFile::parse(Zeroizing::new(text.as_bytes().to_vec()))
    }

    fn get(text: &str, name: &str) -> Option<String> {
        file(text).get(name).unwrap().map(|v| String::from_utf8(v.to_vec()).unwrap())
    }

    fn set(text: &str, value: &str) -> String {
        String::from_utf8(
            file(text).with("K", value.as_bytes()).unwrap_or_else(|e| panic!("{e}")).bytes().to_vec(),
        )
        .unwrap()
    }

    #[test]
    fn reads_what_python_dotenv_reads() {
        for (text, want) in [
            ("K=v", "v"),
            ("K = v \n", "v"),
            ("export K=v\r\n", "v"),
            ("\texport\tK='v'", "v"),
            ("K=v # comment", "v"),
            ("K=v\x0b\n", "v"),
            ("K='v'#comment", "v"),
            ("K=v#not-a-comment", "v#not-a-comment"),
            ("K=#v", "#v"),
            ("K=   # made by make keys\nA=1", ""),
            ("K=\t#", ""),
            ("K=abc\\\nA='x'", "abc\\"),
            ("K='v # v' # c", "v # v"),
            ("K=\"a\\\"b\\n\\\\\"", "a\"b\n\\"),
            ("K='a\\'b\\\\c\\n'", "a'b\\c\\n"),
            ("PEM=\"-----\nK=no\n-----\"\nK=yes", "yes"),
            ("K=1\nK=2", "2"),
            ("K=1\rK=2\r", "2"),
            ("\u{feff}K=v", "v"),
            ("A='\nK=v", "v"),
            ("'K'=v", "v"),
            ("A='x\nK=no' y\nK=v", "v"),
            ("'A\nK=no'=1\nK=v", "v"),
            ("exports=1\nK=v", "v"),
            ("K=test-key-for-encryption-32-ch!@#\n", "test-key-for-encryption-32-ch!@#"),
        ] {
            assert_eq!(get(text, "K").as_deref(), Some(want), "{text:?}");
        }
        assert_eq!(get("# K=v\nKK=v\nK\n", "K"), None);
        assert_eq!(file("\n\nK=\"v\n").get("K").err(), Some(LineError::Broken { line: 3 }));
        assert_eq!(file("K=a${B}").get("K").err(), Some(LineError::Interpolated { line: 1 }));
    }

    #[test]
    fn writing_changes_the_value_and_nothing_else() {
        for (text, value, want) in [
            ("A=1\r\nexport K = 'old' # note\r\nB=2", "new", "A=1\r\nexport K = new # note\r\nB=2"),
            ("K='old'#note\n", "new", "K=new #note\n"),
            ("K#note\nK=old\n", "new", "K=new #note\nK=new\n"),
            ("K=old", "new", "K=new"),
            ("#\r\n#", "new", "#\r\n#\r\nK=new\r\n"),
            ("K=\nA=1\n", "new", "K=new\nA=1\n"),
            ("K\nA=1\n", "new", "K=new\nA=1\n"),
            ("K=1\nK=2\n", "new", "K=new\nK=new\n"),
            ("", "new", "K=new\n"),
            ("A=1", "new", "A=1\nK=new\n"),
            ("A=1\r\nB=2", "new", "A=1\r\nB=2\r\nK=new\r\n"),
            ("#K=no\n", "a b", "#K=no\nK='a b'\n"),
            ("K=1\n", "it's \\ $x", "K=\"it's \\\\ $x\"\n"),
            ("K=1\n", "ch!@#", "K=ch!@#\n"),
            ("K=   # made by make keys\nA=1\n", "new", "K=new   # made by make keys\nA=1\n"),
            ("K= #\n", "it's", "K=\"it's\" #\n"),
            ("K=1 # c\nA='x'\n", "ab\\", "K=ab\\ # c\nA='x'\n"),
            ("K = '1'\nA='x'\n", "it's a \"b#\\", "K = it's a \"b#\\\nA='x'\n"),
        ] {
            assert_eq!(set(text, value), want, "{text:?}");
        }
        assert_eq!(file("'a\n").with("K", b"it's").err(), Some(LineError::Entangled));
        for value in ["a\nb", "'a\\", "\"a\\", "#a\\", " a\\", "a #b\\"] {
            assert_eq!(file("K=1").with("K", value.as_bytes()).err(), Some(LineError::Unwritable), "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_other_lines_stay(
            text in "([A-C]=[ -~]{0,12}(\n|\r\n))*[A-C]?",
            value in "[ -~é]{1,40}",
        ) {
            prop_assume!(!value.contains("${"));
            let before = file(&text);
            if let Ok(after) = before.with("K", value.as_bytes()) {
                prop_assert_eq!(after.get("K").unwrap().map(|v| v.to_vec()), Some(value.as_bytes().to_vec()));
                for other in ["A", "B", "C"] {
                    prop_assert_eq!(
                        before.get(other).map(|v| v.map(|v| v.to_vec())),
                        after.get(other).map(|v| v.map(|v| v.to_vec()))
                    );
                }
                let again = after.with("K", value.as_bytes()).unwrap_or_else(|_| unreachable!());
                prop_assert_eq!(again.bytes(), after.bytes());
            }
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let file = DotenvFile::parse(Zeroizing::new(bytes));
            let _ = file.get("K");
        }
    }
}
