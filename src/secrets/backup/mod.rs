//! Backups of keys: OpenPGP messages, encrypted to a passphrase, that gpg reads, and those that gpg writes.
//!
//! AES-256 with integrity protection (SEIPD version 1, which every gpg since 2.0 understands), a passphrase
//! stretched by iterated and salted SHA-256. Where to read keys and where to put them is not decided here.
//! The OpenPGP library keeps short-lived copies of its own that are not wiped; core dumps are off.

mod bundle;
mod openpgp;
mod passphrase;

use thiserror::Error as ThisError;

use crate::error::{Error, Exit};

pub use bundle::{Bundle, Entry};
pub use openpgp::{decrypt, encrypt};
pub use passphrase::{Passphrase, PassphraseError, Short};

/// Why a backup cannot be made or read. Names no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum BackupError {
    /// Making the message failed.
    #[error("couldn't encrypt the backup")]
    Encrypt,
    /// The file is something else.
    #[error("it is not an OpenPGP message")]
    NotOpenPgp,
    /// The file is OpenPGP, but not encrypted to a passphrase.
    #[error("it is not encrypted with a passphrase")]
    NoPassphrase,
    /// The two cannot be told apart for certain.
    #[error("the passphrase is wrong, or the backup is damaged")]
    WrongPassphrase,
    /// Encrypted in the old way, which anybody can change without being noticed.
    #[error("it has no integrity protection, so a change can't be detected")]
    NoIntegrity,
    /// A common setting of gpg's, which would need another library.
    #[error("it is compressed with bzip2, which rekey can't read")]
    Bzip2,
    /// More than any number of keys needs.
    #[error("it is too large for a backup of keys")]
    TooLarge,
    /// A list of keys that rekey wrote and can't parse.
    #[error("its content is unreadable")]
    Content,
}

impl From<BackupError> for Error {
    fn from(e: BackupError) -> Error {
        let (exit, hint) = match e {
            BackupError::Encrypt => (Exit::Internal, "Report this bug"),
            BackupError::NotOpenPgp => (
                Exit::Key,
                "Name a file made by `rekey keys backup` or `gpg --symmetric --cipher-algo AES256`",
            ),
            BackupError::NoPassphrase => (
                Exit::Key,
                "Decrypt it with gpg, then encrypt it again with `gpg --symmetric --cipher-algo AES256`",
            ),
            BackupError::WrongPassphrase => {
                (Exit::Key, "Try another passphrase, or another copy of the backup")
            }
            BackupError::NoIntegrity => {
                (Exit::Key, "Use another copy. `gpg --decrypt` reads this one, at your own risk")
            }
            BackupError::Bzip2 => (
                Exit::Key,
                "Make it again without bzip2: `gpg --decrypt FILE | gpg --symmetric --cipher-algo AES256 \
                 --compress-algo zlib --output OTHER`",
            ),
            BackupError::TooLarge | BackupError::Content => (
                Exit::Key,
                "Run `gpg --decrypt FILE` to see its \
                content",
            ),
        };
        Error::new(exit, e.to_string()).hint(hint)
    }
}
