//! Key sources: naming a key, fetching it, and the primitives that change it where the application reads it.
//!
//! [`KeySource`] is the grammar, and what a place can do (pure). [`Sources`] fetches; its Secrets Manager client is
//! built on first use, so that a command which names no secret never looks for credentials. Whether a fetched value *is* a key, and
//! which one, is decided elsewhere by its fingerprint; nothing here knows the database.

pub mod aws;
pub mod backup;
mod command;
mod defaults;
pub mod dotenv;
mod env;
mod error;
mod file;
mod find;
mod source;

use std::future::Future;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::program;
use crate::rotation::RecordedSource;

pub use aws::refuse_sensitive_logging;
pub use defaults::{AppKey, AppSettings, SecretLayout, application_source, defaults};
pub use error::SourceError;
pub use file::{FileChange, create_private, drop_line_end, rename_backup, set_aside};
pub use find::{Promoted, Search, Trail, is_same_place};
pub use source::{AwsSource, CommandSource, DotenvVariable, EnvVariable, KeyFile, KeySource};

/// What a source yielded. Has no Debug; the value is wiped when dropped.
pub struct Fetched {
    /// The bytes, unchecked: not known to be a key.
    pub value: Zeroizing<Vec<u8>>,
    /// Secrets Manager: the secret's ARN.
    pub arn: Option<String>,
    /// Secrets Manager: the version the value is of.
    pub version_id: Option<String>,
}

impl Fetched {
    fn plain(value: Zeroizing<Vec<u8>>) -> Fetched {
        Fetched { value, arn: None, version_id: None }
    }
}

/// One kind of place that keys are in.
trait KeyProvider {
    /// Fetches the value as it is now.
    fn fetch(&self) -> impl Future<Output = Result<Fetched, SourceError>> + Send;
}

impl KeySource {
    /// The typed form of what a rotation recorded. A variable in it is kept from the programs that are started from now on.
    pub fn of(recorded: &RecordedSource) -> Result<KeySource, SourceError> {
        let source = KeySource::recorded(recorded.as_str())?;
        if let KeySource::Env(variable) = &source {
            program::withhold(&variable.name);
        }
        Ok(source)
    }

    /// How it is recorded.
    pub fn to_recorded(&self) -> RecordedSource {
        self.to_string().into()
    }
}

/// Everything needed to fetch from any source.
pub struct Sources {
    aws: aws::LazyClient,
}

impl Sources {
    /// Settings come from the environment, but only once a source needs them.
    pub fn from_env() -> Sources {
        Sources { aws: aws::LazyClient::default() }
    }

    /// The same, waiting for a backend that is away for no longer than this, and never for more than a minute.
    pub fn with_patience(patience: Duration) -> Sources {
        Sources { aws: aws::LazyClient::with_patience(patience) }
    }

    /// With a client that is already built.
    pub fn with_client(client: aws::SecretsManager) -> Sources {
        Sources { aws: aws::LazyClient::ready(client) }
    }

    /// The Secrets Manager client; the first call builds it.
    pub async fn aws(&self) -> Result<&aws::SecretsManager, SourceError> {
        self.aws.get().await
    }

    /// Fetches the value a source names, as it is now.
    pub async fn fetch(&self, source: &KeySource) -> Result<Fetched, SourceError> {
        match source {
            KeySource::Env(variable) => variable.fetch().await,
            KeySource::File(file) => file.fetch().await,
            KeySource::Dotenv(variable) => variable.fetch().await,
            KeySource::Aws(source) => aws::SecretValue { client: self.aws().await?, source }.fetch().await,
            KeySource::Command(command) => command.fetch().await,
        }
    }
}
