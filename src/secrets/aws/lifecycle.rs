//! The beginning and the end of a secret: create or restore it, and schedule its deletion.
//!
//! Deletion is never forced: it always has a recovery window.

use aws_sdk_secretsmanager::operation::create_secret::CreateSecretError;
use aws_sdk_secretsmanager::types::Tag;
use uuid::Uuid;

use super::{super::SourceError, client::SecretsManager, explain::Call};

/// What a secret is made with, beside its value.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// The KMS key that encrypts it; none is AWS's own.
    pub kms_key_id: Option<String>,
    /// Its tags, by name.
    pub tags: Vec<(String, String)>,
}

/// With AWS's own KMS key, and no tag.
pub static AS_USUAL: Creation = Creation { kms_key_id: None, tags: Vec::new() };

/// Where a value went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The secret's ARN.
    pub arn: String,
    /// The version that holds the value.
    pub version_id: String,
    /// True where the secret did not exist before.
    pub created: bool,
}

/// What became of a secret that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Scheduled now; gone for good at this second since 1970, where AWS said so.
    Scheduled(Option<i64>),
    /// It was scheduled before.
    AlreadyScheduled(i64),
    /// There is no such secret.
    Gone,
}

impl SecretsManager {
    /// Creates a secret with this value as its current version; `None` where one of that name exists.
    ///
    /// `id` makes a repeated call find the version it made before.
    pub async fn create(
        &self,
        name: &str,
        value: &str,
        id: Uuid,
        with: &Creation,
    ) -> Result<Option<Stored>, SourceError> {
        let call = Call { action: "secretsmanager:CreateSecret", secret_id: name };
        let tags: Vec<Tag> =
            with.tags.iter().map(|(name, value)| Tag::builder().key(name).value(value).build()).collect();
        let request = self
            .of(name)
            .create_secret()
            .name(name)
            .secret_string(value)
            .client_request_token(id.to_string())
            .set_kms_key_id(with.kms_key_id.clone())
            .set_tags((!tags.is_empty()).then_some(tags));
        match call.made(request.send()).await {
            Ok(answer) => Ok(Some(Stored {
                arn: answer.arn.unwrap_or_default(),
                version_id: answer.version_id.unwrap_or_else(|| id.to_string()),
                created: true,
            })),
            Err(e) if e.as_service_error().is_some_and(CreateSecretError::is_resource_exists_exception) => {
                Ok(None)
            }
            // A name in its recovery window counts as taken, but AWS says so with another code.
            Err(e) if e.as_service_error().is_some_and(CreateSecretError::is_invalid_request_exception) => {
                match self.describe(name).await {
                    Ok(info) if info.deletion.is_some() => Ok(None),
                    _ => Err(call.explain(e)),
                }
            }
            Err(e) => Err(call.explain(e)),
        }
    }

    /// Takes a secret out of its recovery window; does nothing where it is in none.
    pub async fn undelete(&self, secret_id: &str) -> Result<bool, SourceError> {
        if self.describe(secret_id).await?.deletion.is_none() {
            return Ok(false);
        }
        let call = Call { action: "secretsmanager:RestoreSecret", secret_id };
        let request = self.of(secret_id).restore_secret().secret_id(secret_id);
        call.made(request.send()).await.map_err(|e| call.explain(e))?;
        Ok(true)
    }

    /// Schedules deletion with a recovery window of 7 to 30 days.
    pub async fn schedule_deletion(&self, secret_id: &str, days: u8) -> Result<Deletion, SourceError> {
        match self.describe(secret_id).await {
            Ok(info) => {
                if let Some(at) = info.deletion {
                    return Ok(Deletion::AlreadyScheduled(at));
                }
            }
            Err(SourceError::Missing { .. }) => return Ok(Deletion::Gone),
            Err(e) => return Err(e),
        }
        let call = Call { action: "secretsmanager:DeleteSecret", secret_id };
        let request = self
            .of(secret_id)
            .delete_secret()
            .secret_id(secret_id)
            .recovery_window_in_days(i64::from(days.clamp(7, 30)));
        match call.made(request.send()).await.map_err(|e| call.explain(e)) {
            Ok(answer) => Ok(Deletion::Scheduled(answer.deletion_date.map(|d| d.secs()))),
            // Another rekey process was first.
            Err(SourceError::Missing { .. }) => Ok(match self.describe(secret_id).await {
                Ok(info) => info.deletion.map_or(Deletion::Gone, Deletion::AlreadyScheduled),
                Err(_) => Deletion::Gone,
            }),
            Err(e) => Err(e),
        }
    }
}
