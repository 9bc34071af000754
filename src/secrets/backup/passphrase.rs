//! The passphrase of a backup: the same one whatever it was read from, and long enough where a backup is made.

use std::io::{self, Read};

use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use super::super::drop_line_end;
use crate::error::{Error, Exit};

/// What a new passphrase has at least. Guessing is slowed down by hashing 65 MB for each try, and by nothing else.
const MIN_CHARACTERS: usize = 12;

/// More than anyone types; gpg takes 255.
pub const MAX_BYTES: usize = 4096;

/// A passphrase. Has no Debug; wiped when dropped.
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// Whether a short one may be used for a new backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// No.
    Refused,
    /// The operator says so.
    Allowed,
}

/// Why a passphrase is not taken. Names no character of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum PassphraseError {
    /// There is nothing, or a line end alone.
    #[error("the passphrase is empty")]
    Empty,
    /// It could not be typed again, and not every reader passes it on.
    #[error("the passphrase has a newline or another control character")]
    Control,
    /// Fewer than [`MIN_CHARACTERS`].
    #[error("the passphrase has {characters} characters; at least {MIN_CHARACTERS} are required")]
    TooShort {
        /// How many it has.
        characters: usize,
    },
}

impl Passphrase {
    /// To open a backup. One line end is dropped: files, pipes and Kubernetes secrets made with `echo` end with one.
    pub fn to_open(mut raw: Zeroizing<Vec<u8>>) -> Result<Passphrase, PassphraseError> {
        drop_line_end(&mut raw);
        if raw.is_empty() { Err(PassphraseError::Empty) } else { Ok(Passphrase(raw)) }
    }

    /// To make a backup: one that every way of handing it in reads alike.
    pub fn to_make(raw: Zeroizing<Vec<u8>>, short: Short) -> Result<Passphrase, PassphraseError> {
        let passphrase = Passphrase::to_open(raw)?;
        let (control, characters) = match std::str::from_utf8(&passphrase.0) {
            Ok(text) => (text.contains(char::is_control), text.chars().count()),
            Err(_) => (passphrase.0.iter().any(u8::is_ascii_control), passphrase.0.len()),
        };
        if control {
            return Err(PassphraseError::Control);
        }
        if characters < MIN_CHARACTERS && short == Short::Refused {
            return Err(PassphraseError::TooShort { characters });
        }
        Ok(passphrase)
    }

    /// What is to be a passphrase, up to the first line end.
    pub fn read_line(mut from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
        let mut byte = Zeroizing::new([0]);
        while line.len() < MAX_BYTES && line.last() != Some(&b'\n') {
            match from.read(&mut byte[..]) {
                Ok(0) => break,
                Ok(_) => line.push(byte[0]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(line)
    }

    /// The same one as `--passphrase-fd` will read it on the day it is needed.
    pub fn read_again(&self) -> Result<Passphrase, PassphraseError> {
        let line = Passphrase::read_line(self.0.chain(b"\n".as_slice())).unwrap_or_default();
        Passphrase::to_open(line)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<PassphraseError> for Error {
    fn from(e: PassphraseError) -> Error {
        let hint = match e {
            PassphraseError::Empty => {
                "Pass `--passphrase-fd FD`, set REKEY_BACKUP_PASSPHRASE, or run the command on a terminal"
                    .to_owned()
            }
            PassphraseError::Control => "Use a passphrase that fits on one line".to_owned(),
            PassphraseError::TooShort { .. } => {
                "Use a longer one, or pass `--allow-weak-passphrase`: a thief of the backup could guess for \
                 years"
                    .to_owned()
            }
        };
        Error::new(Exit::Usage, e.to_string()).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str, short: Short) -> Result<Vec<u8>, PassphraseError> {
        Passphrase::to_make(Zeroizing::new(text.as_bytes().to_vec()), short).map(|p| p.bytes().to_vec())
    }

    #[test]
    fn one_line_end_is_dropped_and_what_cannot_be_typed_is_refused() {
        for text in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            assert_eq!(made(text, Short::Refused).unwrap(), b"correct horse", "{text:?}");
        }
        assert_eq!(made("bättery stapl", Short::Refused).unwrap(), "bättery stapl".as_bytes());
        for text in ["correct horse\n\n", "correct\thorse", "correct\nhorse", "correct horse\u{85}"] {
            assert_eq!(made(text, Short::Allowed), Err(PassphraseError::Control), "{text:?}");
        }
        assert_eq!(made("elevenchars", Short::Refused), Err(PassphraseError::TooShort { characters: 11 }));
        assert_eq!(made("elevenchars", Short::Allowed).unwrap(), b"elevenchars");
        assert_eq!(made("\n", Short::Allowed), Err(PassphraseError::Empty));
    }

    #[test]
    fn what_opens_a_backup_is_not_judged() {
        let opens = |text: &str| {
            Passphrase::to_open(Zeroizing::new(text.as_bytes().to_vec())).map(|p| p.bytes().to_vec())
        };
        assert_eq!(opens("p\t\n").unwrap(), b"p\t");
        assert_eq!(opens("\r\n"), Err(PassphraseError::Empty));
        let first = |text: &str| Passphrase::read_line(text.as_bytes()).unwrap().to_vec();
        assert_eq!((first("a b\nc"), first("a b")), (b"a b\n".to_vec(), b"a b".to_vec()));
    }
}
