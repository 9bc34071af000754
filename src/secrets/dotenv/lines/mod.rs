//! The lossless model of a dotenv file: which bytes are whose value, and everything else kept as it is.
//!
//! Pure. Follows python-dotenv, the application's reader: `export`, spaces around `=`, single quotes (with `\'`
//! and `\\`), double quotes (with backslash escapes, over several lines), and for unquoted and empty values a comment
//! only after white space. Line ends are LF, CRLF or CR; a byte-order mark is skipped.

mod blank;
mod value;

use std::ops::Range;

use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use self::blank::{blank_at, blank_before};
use self::value::{decode, encode};

/// Why a variable of a dotenv file has no usable value. Names lines, never values.
#[derive(Debug, PartialEq, Eq, ThisError)]
pub enum LineError {
    /// The application's reader would skip the line.
    #[error("line {line} is unreadable: a quote is not closed, or text follows the closing quote")]
    Broken { line: usize },
    /// The value would be expanded from other variables.
    #[error("line {line} takes its value from other variables (${{…}})")]
    Interpolated { line: usize },
    /// The value to write has no form that a dotenv file can hold.
    #[error(
        "a dotenv file can't hold the value: it has control characters, is not UTF-8, or ends in a backslash \
         and would need quotes"
    )]
    Unwritable,
    /// The application's reader would read nothing of the file.
    #[error("the file is not UTF-8 text; it may be UTF-16")]
    NotText,
    /// A quote that is never closed elsewhere in the file would swallow the new value, or be closed by it.
    #[error("the file has an unclosed quote, whose meaning the new value would change")]
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
    /// UTF-8 without a NUL, as the application's reader needs it.
    is_text: bool,
}

impl DotenvFile {
    /// Never fails: lines that cannot be read are kept, and only asking for their variable is an error.
    pub fn parse(bytes: Zeroizing<Vec<u8>>) -> DotenvFile {
        let assignments = Scanner { bytes: &bytes, at: 0, line: 1 }.run();
        // UTF-16 of ASCII is UTF-8, too: every other byte is a NUL.
        let is_text = std::str::from_utf8(&bytes).is_ok() && !bytes.contains(&0);
        DotenvFile { bytes, assignments, is_text }
    }

    /// The file as it now stands.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value of a variable: its last assignment's. `None` where nothing assigns it.
    pub fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, LineError> {
        if !self.is_text {
            return Err(LineError::NotText);
        }
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

    /// Lines that assign a variable another value than these, be it that a later line overrides them.
    pub fn lines_with_others(&self, name: &str, known: &[&[u8]]) -> Vec<usize> {
        let assign = self.assignments.iter().filter(|a| &self.bytes[a.name.clone()] == name.as_bytes());
        let differs = |found: &&Assignment| {
            found.raw.as_ref().is_some_and(|(range, quote)| {
                let value = decode(&self.bytes[range.clone()], *quote);
                !value.is_empty() && !known.contains(&value.as_slice())
            })
        };
        assign.filter(differs).map(|found| found.line).collect()
    }

    /// The same file with the variable set in every line that assigns it, or appended where none does; every
    /// other byte is kept. The value stands unquoted unless it must be quoted.
    pub fn with(&self, name: &str, value: &[u8]) -> Result<DotenvFile, LineError> {
        if !self.is_text {
            return Err(LineError::NotText);
        }
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
        if self.rest().starts_with(b"export") && blank_at(self.bytes, self.at + 6) > 0 {
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
        let ends = |b| matches!(b, b'=' | b'#' | b'\n' | b'\r');
        while self.peek().is_some_and(|b| !ends(b)) && blank_at(self.bytes, self.at) == 0 {
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
        let mut after = end;
        while let length @ 1.. = blank_at(self.bytes, after) {
            after += length;
        }
        matches!(self.bytes.get(after), None | Some(b'\n' | b'\r' | b'#')).then_some(start..end)
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
        let comment = (1..line.len()).find(|&i| line[i] == b'#' && blank_before(line, i) > 0);
        let mut end = comment.unwrap_or(line.len());
        while let length @ 1.. = blank_before(line, end) {
            end -= length;
        }
        self.at += line.len();
        start..start + end
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
        while let length @ 1.. = blank_at(self.bytes, self.at) {
            self.at += length;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
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
            ("\u{a0}K\u{a0}=\u{a0}v\u{a0}\u{2003}# c\n", "v"),
            ("export\u{3000}K='v'\u{85}# c\n", "v"),
            ("K=a\u{a0}b\u{1c}\n", "a\u{a0}b"),
            ("K\u{feff}=no\nK=v", "v"),
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
            ("A=1\n\u{a0}K\u{a0}=\u{a0}old\u{a0}# c\n", "new", "A=1\n\u{a0}K\u{a0}=\u{a0}new\u{a0}# c\n"),
            ("K = '1'\nA='x'\n", "it's a \"b#\\", "K = it's a \"b#\\\nA='x'\n"),
        ] {
            assert_eq!(set(text, value), want, "{text:?}");
        }
        assert_eq!(file("'a\n").with("K", b"it's").err(), Some(LineError::Entangled));
        for value in ["a\nb", "'a\\", "\"a\\", "#a\\", " a\\", "a #b\\"] {
            assert_eq!(file("K=1").with("K", value.as_bytes()).err(), Some(LineError::Unwritable), "{value}");
        }
    }

    #[test]
    fn what_the_application_could_not_read_is_not_read() {
        let utf16: Vec<u8> = "K=v\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [utf16.clone(), [b"\xff\xfe".as_slice(), &utf16].concat(), b"A=\xe9\nK=v\n".to_vec()] {
            let file = DotenvFile::parse(Zeroizing::new(bytes));
            assert_eq!(file.get("K").err(), Some(LineError::NotText));
            assert_eq!(file.with("K", b"new").err(), Some(LineError::NotText));
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
