//! The client: the default credential chain, and bounds on how long anything may take.
//!
//! One operation, retries included, ends within [`ClientSettings::operation`], which is under the minute that the
//! exit-code table promises for 69.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::interceptors::InterceptorContext;
use aws_sdk_secretsmanager::config::retry::{ClassifyRetry, RetryAction};
use tokio::sync::OnceCell;

use super::super::SourceError;
use super::explain::{chain, is_untrusted};
use super::settings;
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
    client: Client,
    /// Clients of other regions, for secrets that are named by their ARN.
    elsewhere: Mutex<HashMap<String, Client>>,
}

impl SecretsManager {
    /// Builds a client from the environment: the default credential chain, AWS_REGION, AWS_ENDPOINT_URL.
    pub async fn from_env(limits: ClientSettings) -> std::result::Result<SecretsManager, SourceError> {
        settings::check()?;
        let loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
        let config = match settings::bundle()? {
            Some(client) => loader.http_client(client).load().await,
            None => {
                trust()?;
                loader.load().await
            }
        };
        settings::check_loaded(&config).await?;
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
            .retry_classifier(Untrusted)
            .build();
        SecretsManager { client: Client::from_conf(config), elsewhere: Mutex::default() }
    }

    /// The client for a secret: an ARN is asked in its own region, whatever AWS_REGION says.
    pub(super) fn of(&self, secret_id: &str) -> Client {
        let config = self.client.config();
        let Some(region) = arn_region(secret_id) else { return self.client.clone() };
        if config.region().is_some_and(|own| own.as_ref() == region) {
            return self.client.clone();
        }
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let there = || Client::from_conf(config.to_builder().region(Region::new(region.to_owned())).build());
        elsewhere.entry(region.to_owned()).or_insert_with(there).clone()
    }
}

/// The region in the ARN of a secret.
pub(super) fn arn_region(secret_id: &str) -> Option<&str> {
    let mut parts = secret_id.split(':');
    let (arn, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().filter(|region| arn == "arn" && service == "secretsmanager" && !region.is_empty())
}

/// A certificate that is not trusted is not trusted a second later either.
#[derive(Debug)]
struct Untrusted;

impl ClassifyRetry for Untrusted {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(|outcome| outcome.err());
        match error.and_then(|error| error.as_connector_error()) {
            Some(error) if is_untrusted(&chain(error)) => RetryAction::RetryForbidden,
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "certificates that are not trusted"
    }
}

/// The SDK panics on a system without root certificates, even for plain HTTP.
fn trust() -> std::result::Result<(), SourceError> {
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        return Err(SourceError::Config {
            what: "this system has no root certificates to verify AWS with".into(),
            hint: "Install ca-certificates, or name a certificate bundle in AWS_CA_BUNDLE or SSL_CERT_FILE"
                .into(),
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
