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
    #[error("the backup could not be encrypted")]
    Encrypt,
    /// The file is something else.
    #[error("this is not an OpenPGP message")]
    NotOpenPgp,
    /// The file is OpenPGP, but not encrypted to a passphrase.
    #[error("this OpenPGP message is not encrypted to a passphrase")]
    NoPassphrase,
    /// The two cannot be told apart for certain.
    #[error("the passphrase is wrong, or the backup is damaged")]
    WrongPassphrase,
    /// Encrypted in the old way, which anybody can change without being noticed.
    #[error("this OpenPGP message has no integrity protection, so nobody knows whether it was changed")]
    NoIntegrity,
    /// A common setting of gpg's, which would need another library.
    #[error("the message is compressed with bzip2, which rekey does not read")]
    Bzip2,
    /// More than any number of keys needs.
    #[error("the message is larger than a backup of keys can be")]
    TooLarge,
    /// A list of keys of ours that cannot be read.
    #[error("the backup's content cannot be read")]
    Content,
}

impl From<BackupError> for Error {
    fn from(e: BackupError) -> Error {
        let (exit, hint) = match e {
            BackupError::Encrypt => (Exit::Internal, "this is unexpected: please report it"),
            BackupError::NotOpenPgp => (
                Exit::Key,
                "name a file made by rekey keys backup, or by gpg --symmetric --cipher-algo AES256",
            ),
            BackupError::NoPassphrase => (
                Exit::Key,
                "decrypt it with gpg, then encrypt it again: gpg --symmetric --cipher-algo AES256",
            ),
            BackupError::WrongPassphrase => {
                (Exit::Key, "try the passphrase of that day, or another copy of the backup")
            }
            BackupError::NoIntegrity => {
                (Exit::Key, "use another copy; gpg --decrypt shows this one at your own risk")
            }
            BackupError::Bzip2 => (
                Exit::Key,
                "make it again without: `gpg --decrypt FILE | gpg --symmetric --cipher-algo AES256 --compress-algo zlib \
                 --output OTHER`",
            ),
            BackupError::TooLarge | BackupError::Content => (Exit::Key, "gpg --decrypt shows what is in it"),
        };
        Error::new(exit, e.to_string()).hint(hint)
    }
}
