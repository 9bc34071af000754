//! How a key is named: `env:VAR`, `file:PATH`, `dotenv:PATH#VAR`, `aws:SECRET_ID[#FIELD][@LABEL_OR_VERSION_ID]`,
//! `command:PROGRAM ARG…`.
//!
//! Each kind of place has a file here: how it is written, and what may be done there. The rest of rekey asks the
//! source ([`KeySource::is_writable`], [`KeySource::aws`] and so on) and does not look which kind it is.
//!
//! Parsing is pure and never touches what is named. Anything that might be a key typed in place of its name is
//! refused without being repeated, so [`SourceError`] is the only thing to print; give these texts to clap as
//! plain strings, because clap repeats a value that its parser refuses.

mod aws;
mod command;
mod dotenv;
mod env;
mod file;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Serialize, Serializer};

pub use aws::AwsSource;
pub use command::CommandSource;
pub use dotenv::DotenvVariable;
pub use env::EnvVariable;
pub use file::KeyFile;

use super::error::SourceError;
use crate::crypto::Fingerprint;

/// The kinds of place, each with the word that its text begins with.
macro_rules! kinds {
    ($($(#[$doc:meta])* $scheme:literal => $name:ident($kind:ty);)*) => {
        /// The name of the place where a key is. Safe to print and to store: it holds no key.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum KeySource {
            $($(#[$doc])* $name($kind),)*
        }

        impl KeySource {
            /// Parses the text form without asking whether it looks like a key: what the ledger holds was a source.
            pub fn recorded(text: &str) -> Result<KeySource, SourceError> {
                let (scheme, rest) = text.split_once(':').ok_or(SourceError::NotASource)?;
                match scheme {
                    $($scheme => <$kind as Place>::parse(rest).map(KeySource::$name),)*
                    _ => Err(SourceError::NotASource),
                }
            }

            fn place(&self) -> &dyn Place {
                match self {
                    $(KeySource::$name(place) => place,)*
                }
            }
        }
    };
}

kinds! {
    /// A variable of this process's environment.
    "env" => Env(EnvVariable);
    /// A file that holds the key and nothing else, one trailing line end apart.
    "file" => File(KeyFile);
    /// One variable of a dotenv file.
    "dotenv" => Dotenv(DotenvVariable);
    /// A secret in AWS Secrets Manager.
    "aws" => Aws(AwsSource);
    /// A program that prints the key; run only where this invocation names it.
    "command" => Command(CommandSource);
}

/// What each kind of place says of itself. What most cannot do need not be said.
trait Place: fmt::Display {
    /// Parses what follows the scheme.
    fn parse(rest: &str) -> Result<Self, SourceError>
    where
        Self: Sized;

    /// Refuses a name that is more likely a key.
    fn refuse_key(&self) -> Result<(), SourceError>;

    /// The part of the name that may say which key it is for.
    fn key_name(&self) -> Option<String>;

    /// Whether the `keys` commands can write there.
    fn is_writable(&self) -> bool {
        false
    }

    /// Whether promote and rollback can change what the application reads there.
    fn is_promotable(&self) -> bool {
        false
    }

    /// Whether what it yields is what the application reads, and not a copy or a former version of that.
    fn is_live(&self) -> bool {
        false
    }

    /// Whether what is there stays: an environment, or a file that only one container sees, may be gone tomorrow.
    fn is_durable(&self) -> bool {
        false
    }

    /// Whether it may yield another key while this process runs.
    fn may_change(&self) -> bool {
        true
    }

    /// The file that the key is in.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// The same key in a copy of that file.
    fn in_copy(&self, _copy: &Path) -> Option<KeySource> {
        None
    }

    /// What a person has to do so that it yields the key with this fingerprint.
    fn instruction(&self, fingerprint: Fingerprint) -> String {
        format!("write the key with fingerprint {fingerprint} to {self}")
    }
}

impl KeySource {
    /// Parses the text form as typed. Refuses what looks like a key, and does not repeat it.
    pub fn parse(text: &str) -> Result<KeySource, SourceError> {
        let source = KeySource::recorded(text)?;
        source.place().refuse_key()?;
        Ok(match source {
            KeySource::Command(command) => KeySource::Command(command.into_given()),
            source => source,
        })
    }

    /// What was recorded, or the one of `given` that is the same command: recorded text alone is never run.
    pub fn given_again<'a>(self, given: impl IntoIterator<Item = &'a KeySource>) -> KeySource {
        let KeySource::Command(recorded) = &self else { return self };
        let same =
            |other: &&KeySource| matches!(other, KeySource::Command(other) if other.is_same_text(recorded));
        given.into_iter().find(same).cloned().unwrap_or(self)
    }

    /// One variable of a dotenv file.
    pub fn dotenv_variable(path: &Path, var: &str) -> KeySource {
        KeySource::Dotenv(DotenvVariable { path: path.to_path_buf(), var: var.to_owned() })
    }

    /// The secret, where the key is in Secrets Manager.
    pub fn aws(&self) -> Option<&AwsSource> {
        match self {
            KeySource::Aws(aws) => Some(aws),
            _ => None,
        }
    }

    /// The variable, where the key is in a dotenv file.
    pub fn dotenv(&self) -> Option<&DotenvVariable> {
        match self {
            KeySource::Dotenv(dotenv) => Some(dotenv),
            _ => None,
        }
    }

    /// What the application reads there: of a secret, whatever is current.
    pub fn at_current(&self) -> KeySource {
        self.aws().map_or_else(|| self.clone(), |aws| aws.at_current().into())
    }

    /// The part of the name that may say which key it is for.
    pub fn key_name(&self) -> Option<String> {
        self.place().key_name()
    }

    /// Whether the `keys` commands can write there.
    pub fn is_writable(&self) -> bool {
        self.place().is_writable()
    }

    /// Whether promote and rollback can change what the application reads there.
    pub fn is_promotable(&self) -> bool {
        self.place().is_promotable()
    }

    /// Whether what it yields is what the application reads, and not a former version of that.
    pub fn is_live(&self) -> bool {
        self.place().is_live()
    }

    /// Whether what is there stays: an environment, or a file that only one container sees, may be gone tomorrow.
    pub fn is_durable(&self) -> bool {
        self.place().is_durable()
    }

    /// Whether it may yield another key while this process runs.
    pub fn may_change(&self) -> bool {
        self.place().may_change()
    }

    /// The file that the key is in.
    pub fn file(&self) -> Option<&Path> {
        self.place().file()
    }

    /// The same key in a copy of its file; `None` where it is in no file.
    pub fn in_copy(&self, copy: &Path) -> Option<KeySource> {
        self.place().in_copy(copy)
    }

    /// What a person has to do so that it yields the key with this fingerprint.
    pub fn instruction(&self, fingerprint: Fingerprint) -> String {
        self.place().instruction(fingerprint)
    }
}

impl From<AwsSource> for KeySource {
    fn from(aws: AwsSource) -> Self {
        KeySource::Aws(aws)
    }
}

/// As text.
impl Serialize for KeySource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for KeySource {
    type Err = SourceError;
    fn from_str(s: &str) -> Result<Self, SourceError> {
        KeySource::parse(s)
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place().fmt(f)
    }
}

fn bad_name<T>(scheme: &'static str, expected: &'static str) -> Result<T, SourceError> {
    Err(SourceError::BadName { scheme, expected })
}

#[cfg(test)]
mod tests;
