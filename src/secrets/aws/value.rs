//! Reading one version of a secret.

use zeroize::Zeroizing;

use super::{
    super::{AwsSource, Fetched, KeyProvider, SourceError},
    client::SecretsManager,
    edit::{EditError, extracted},
    explain::Call,
};

/// One version's content and where it stands. Has no Debug; the content is wiped when dropped.
pub struct SecretVersion {
    /// The secret's ARN.
    pub arn: String,
    /// This version's id.
    pub version_id: String,
    /// The staging labels on it.
    pub stages: Vec<String>,
    /// Seconds since 1970 when the version was made.
    pub created: Option<i64>,
    /// The whole content, JSON or not.
    pub content: Zeroizing<Vec<u8>>,
    /// How that is kept.
    pub form: Form,
}

/// How Secrets Manager keeps a version's content. Its readers look in one place only, so it stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// SecretString: UTF-8.
    Text,
    /// SecretBinary: any bytes.
    Binary,
}

impl SecretsManager {
    /// Reads a version whole; `None` reads AWSCURRENT.
    ///
    /// The stage is always named: it is the documented default, and some emulators get the default wrong.
    pub async fn get(&self, secret_id: &str, at: At<'_>) -> Result<SecretVersion, SourceError> {
        let request = self.of(secret_id).get_secret_value().secret_id(secret_id);
        let request = match at {
            At::Stage(stage) => request.version_stage(stage),
            At::Version(id) => request.version_id(id),
        };
        let call = Call { action: "secretsmanager:GetSecretValue", secret_id };
        let mut answer = call.made(request.send()).await.map_err(|e| call.explain(e))?;
        // Both take the SDK's own buffer over, so that it is wiped.
        let (content, form) = match (answer.secret_string.take(), answer.secret_binary.take()) {
            (Some(text), _) => (Zeroizing::new(text.into_bytes()), Form::Text),
            (None, Some(blob)) => (Zeroizing::new(blob.into_inner()), Form::Binary),
            (None, None) => return Err(incomplete(secret_id)),
        };
        let (Some(arn), Some(version_id)) = (answer.arn, answer.version_id) else {
            return Err(incomplete(secret_id));
        };
        Ok(SecretVersion {
            arn,
            version_id,
            stages: answer.version_stages.unwrap_or_default(),
            created: answer.created_date.map(|d| d.secs()),
            content,
            form,
        })
    }

    /// Reads the version that a source names.
    pub async fn version(&self, source: &AwsSource) -> Result<SecretVersion, SourceError> {
        let id = source.secret_id.as_str();
        let at = source.stage_or_version.as_deref();
        let read = match at {
            Some(version) if source.names_version_id() => self.get(id, At::Version(version)).await,
            Some(stage) => self.get(id, At::Stage(stage)).await,
            None => self.get(id, At::Stage("AWSCURRENT")).await,
        };
        match (read, at) {
            // An id that is no UUID: whoever wrote the version chose 32 to 64 other characters.
            (Err(SourceError::Missing { .. }), Some(id_or_stage))
                if !source.names_version_id() && (32..=64).contains(&id_or_stage.len()) =>
            {
                self.get(id, At::Version(id_or_stage)).await
            }
            (Err(SourceError::Missing { what, hint, .. }), _) => {
                Err(SourceError::Missing { source_name: source.to_string(), what, hint })
            }
            (read, _) => read,
        }
    }
}

/// Which version of a secret.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// The one that holds this staging label.
    Stage(&'a str),
    /// The one of this id.
    Version(&'a str),
}

/// The key that a source names in Secrets Manager.
pub(in super::super) struct SecretValue<'a> {
    pub client: &'a SecretsManager,
    pub source: &'a AwsSource,
}

impl KeyProvider for SecretValue<'_> {
    async fn fetch(&self) -> Result<Fetched, SourceError> {
        let SecretVersion { arn, version_id, content, .. } = self.client.version(self.source).await?;
        let field = self.source.field.as_deref();
        let value = extracted(content, field).map_err(|e| malformed(self.source, &e))?;
        Ok(Fetched { value, arn: Some(arn), version_id: Some(version_id) })
    }
}

/// The content of a secret does not yield the key that a source names.
pub(super) fn malformed(source: &AwsSource, error: &EditError) -> SourceError {
    let whole = AwsSource { field: None, ..source.clone() };
    let hint = match error {
        EditError::FieldNotNamed => format!("Name the key's field: {whole}#encryption_key"),
        EditError::ValueIsObject => format!("Name the key's field: {whole}#encryption_key"),
        EditError::Field(_) => {
            format!("Check the field's name and the secret's content. For a plain secret, write {whole}")
        }
        EditError::NotUtf8 => "Use a key of printable characters (`rekey keys generate`)".to_owned(),
    };
    SourceError::Malformed { source_name: source.to_string(), what: error.to_string(), hint }
}

fn incomplete(secret_id: &str) -> SourceError {
    SourceError::Unavailable {
        action: "secretsmanager:GetSecretValue",
        resource: secret_id.to_owned(),
        detail: "the response is incomplete".into(),
    }
}
