//! The client: the default credential chain, and bounds on how long anything may take.
//!
//! One operation, retries included, ends within [`ClientSettings::operation`], which is under the minute that the
//! exit-code table promises for 69.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use tokio::sync::OnceCell;

use super::super::SourceError;
use crate::error::{Error, Exit, Result};

/// How long to wait, and how often to try.
#[derive(Clone, Copy, Debug)]
pub struct ClientSettings {
    /// One try's limit.
    pub attempt: Duration,
    /// The limit of one operation with all its tries.
    pub operation: Duration,
    /// Tries of one operation.
    pub attempts: u32,
}

impl Default for ClientSettings {
    fn default() -> Self {
        ClientSettings { attempt: Duration::from_secs(10), operation: Duration::from_secs(50), attempts: 10 }
    }
}

impl ClientSettings {
    /// Gives up after this long, if that is sooner.
    pub fn within(patience: Duration) -> ClientSettings {
        let limits = ClientSettings::default();
        let operation = limits.operation.min(patience.max(Duration::from_millis(500)));
        ClientSettings { operation, attempt: limits.attempt.min(operation), ..limits }
    }
}

/// A Secrets Manager client.
pub struct SecretsManager {
    pub(super) client: aws_sdk_secretsmanager::Client,
}

impl SecretsManager {
    /// Builds a client from the environment: the default credential chain, AWS_REGION, AWS_ENDPOINT_URL.
    pub async fn from_env(limits: ClientSettings) -> std::result::Result<SecretsManager, SourceError> {
        trust()?;
        let config = aws_config::defaults(BehaviorVersion::v2026_01_12()).load().await;
        if config.region().is_none() {
            return Err(SourceError::Config {
                what: "the AWS region is not set".into(),
                hint: "Set AWS_REGION to the region of the secret".into(),
            });
        }
        Ok(SecretsManager::new(&config, limits))
    }

    /// Builds a client from settings that are already loaded, with limits of their own.
    pub fn new(config: &SdkConfig, limits: ClientSettings) -> SecretsManager {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3).min(limits.attempt))
            .operation_attempt_timeout(limits.attempt)
            .operation_timeout(limits.operation)
            .build();
        let retries = RetryConfig::adaptive()
            .with_max_attempts(limits.attempts)
            .with_initial_backoff(Duration::from_millis(200))
            .with_max_backoff(Duration::from_secs(8));
        let config = aws_sdk_secretsmanager::config::Builder::from(config)
            .timeout_config(timeouts)
            .retry_config(retries)
            .build();
        SecretsManager { client: aws_sdk_secretsmanager::Client::from_conf(config) }
    }
}

/// The SDK panics on a system without root certificates, even for plain HTTP.
fn trust() -> std::result::Result<(), SourceError> {
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        return Err(SourceError::Config {
            what: "this system has no root certificates to verify AWS with".into(),
            hint: "Install ca-certificates, or name a certificate bundle in SSL_CERT_FILE".into(),
        });
    }
    Ok(())
}

/// A client that is built when it is first needed.
#[derive(Default)]
pub struct LazyClient {
    limits: ClientSettings,
    client: OnceCell<SecretsManager>,
}

impl LazyClient {
    /// A client that is already built.
    pub fn ready(client: SecretsManager) -> LazyClient {
        LazyClient { client: OnceCell::new_with(Some(client)), ..LazyClient::default() }
    }

    /// A client that gives up after this long.
    pub fn with_patience(patience: Duration) -> LazyClient {
        LazyClient { limits: ClientSettings::within(patience), ..LazyClient::default() }
    }

    /// The client.
    pub async fn get(&self) -> std::result::Result<&SecretsManager, SourceError> {
        self.client.get_or_try_init(|| SecretsManager::from_env(self.limits)).await
    }
}

/// What makes the SDK write to the log, at TRACE, the answers that hold secrets, and the requests that it signs.
const LOUD: [&str; 2] = ["LOG_SENSITIVE_BODIES", "LOG_SIGNABLE_BODY"];

/// Refuses to start while a variable is set that makes the SDK log secrets.
pub fn refuse_sensitive_logging() -> Result<()> {
    match LOUD.into_iter().find(|name| std::env::var_os(name).is_some()) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            Exit::Usage,
            format!("{name} is set, so the AWS SDK would write secrets to the log"),
        )
        .hint(format!("Unset {name}"))),
    }
}
