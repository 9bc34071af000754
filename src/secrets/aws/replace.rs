//! Replacing what AWSCURRENT holds, so that no write by anybody else is ever lost.
//!
//! Read current (version V) → change the key inside it → put the result under a private label, with a token
//! derived from (rotation, action, V) → move AWSCURRENT *from V* to it. Getting and then putting onto AWSCURRENT
//! would overwrite whatever was written between the two; this move fails instead, and everything is read and
//! built again. Killed anywhere and repeated, the same token finds the version that was already put. What is binary
//! stays binary.

use std::time::Duration;

use aws_sdk_secretsmanager::primitives::Blob;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    super::{AwsSource, SourceError},
    client::SecretsManager,
    edit::{EditError, edited, extracted, extracted_if_any, set, text},
    explain::Call,
    value::{At, Form, SecretVersion, malformed},
};

/// How often to begin again when the current version changes meanwhile.
const ATTEMPTS: u32 = 8;

/// Which way a key is replaced: part of the request token, so that each way makes versions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The new key becomes current. A current version that already yields it is left alone.
    Promote,
    /// The old key becomes current in a fresh version, even if it looks current: the request of a killed promote may still
    /// arrive, and it fails only if the version that it names is no longer current.
    Rollback,
    /// A key is changed outside any rotation (restore, rotate-secret-key, generate): as `Promote`, and a JSON field
    /// that is not there yet is added.
    Set,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Action::Promote => "promote",
            Action::Rollback => "rollback",
            Action::Set => "set",
        }
    }

    fn extracted(
        self,
        content: Zeroizing<Vec<u8>>,
        field: Option<&str>,
    ) -> Result<Zeroizing<Vec<u8>>, EditError> {
        match self {
            Action::Promote | Action::Rollback => extracted(content, field),
            Action::Set => extracted_if_any(content, field),
        }
    }

    fn edited(
        self,
        content: &[u8],
        field: Option<&str>,
        value: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EditError> {
        match self {
            Action::Promote | Action::Rollback => edited(content, field, value),
            Action::Set => set(content, field, value),
        }
    }
}

/// What the key in the current version is, as the caller's fingerprints say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The key that is to be current.
    Wanted,
    /// The key that is to be replaced.
    Replaceable,
    /// Neither: not ours to overwrite.
    Foreign,
}

/// One replacement of the key in a secret.
pub struct Replacement<'a> {
    /// The secret and the field; its stage is ignored, the target is AWSCURRENT.
    pub target: &'a AwsSource,
    /// The key to make current. Never printed.
    pub value: &'a [u8],
    /// Part of the request token: the rotation's id, or a random one for `Action::Set`.
    pub id: Uuid,
    /// Promote, rollback or set.
    pub action: Action,
    /// The private label, from `promote_label` or `rollback_label`.
    pub label: &'a str,
}

/// The secret once the wanted key is current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The secret's ARN.
    pub arn: String,
    /// The version that is current.
    pub version_id: String,
    /// The version that was current before, where this call moved the label.
    pub moved_from: Option<String>,
}

impl SecretsManager {
    /// Makes the wanted key current, and returns only once a read shows that it is. `guard` is asked between each
    /// reading of V and the move from V: whoever lost the right to replace stops there, and whoever loses it later
    /// finds that V is current no more.
    pub async fn replace<E: From<SourceError>>(
        &self,
        replacement: &Replacement<'_>,
        judge: impl Fn(&[u8]) -> Seen,
        mut guard: impl AsyncFnMut() -> Result<(), E>,
    ) -> Result<Current, E> {
        let target = replacement.target.at_current();
        let secret_id = target.secret_id.as_str();
        let mut moved_from = None;
        // What the last move was to make current, and from which version.
        let mut tried: Option<(String, String)> = None;
        for attempt in 0..ATTEMPTS {
            // Reads may lag a little behind a move, and whoever else moves labels should get done.
            tokio::time::sleep(Duration::from_millis(100 * u64::from(attempt.pow(2)))).await;
            let current = self.get(secret_id, At::Stage("AWSCURRENT")).await?;
            let (action, field) = (replacement.action, target.field.as_deref());
            let key = action
                .extracted(Zeroizing::new(current.content.to_vec()), field)
                .map_err(|e| malformed(&target, &e))?;
            match judge(&key) {
                Seen::Wanted if replacement.is_done(&current) => {
                    let SecretVersion { arn, version_id, .. } = current;
                    // Refused the second time, because the answer to the first was lost.
                    let tried = tried.filter(|(fresh, _)| *fresh == version_id).map(|(_, from)| from);
                    let moved_from = moved_from.or(tried);
                    return Ok(Current { arn, version_id, moved_from });
                }
                Seen::Foreign => return Err(foreign(&target).into()),
                Seen::Wanted | Seen::Replaceable => {}
            }
            guard().await?;
            let content = action
                .edited(&current.content, field, replacement.value)
                .map_err(|e| malformed(&target, &e))?;
            let token = request_token(replacement.id, action, &current.version_id);
            let form = match action {
                // The old key comes back even if the secret was changed to a string since.
                Action::Rollback if text(&content).is_err() => Form::Binary,
                _ => current.form,
            };
            let fresh = self.put(secret_id, (&content, form), &token, replacement.label).await?;
            match self.move_label(secret_id, "AWSCURRENT", Some(&fresh), Some(&current.version_id)).await {
                // Read again even after success: the next turn returns what it then sees.
                Ok(()) => moved_from = Some(current.version_id),
                // V is current no more, or an earlier try of this very move got through.
                Err(SourceError::Refused { .. } | SourceError::Missing { .. }) => {
                    tried = Some((fresh, current.version_id));
                }
                Err(e) => return Err(e.into()),
            }
        }
        Err(SourceError::Contended { resource: target.to_string(), attempts: ATTEMPTS }.into())
    }

    /// Refuses a key that [`SecretsManager::replace`] could not put there: asked before anything is said to have begun.
    pub async fn takes(&self, target: &AwsSource, value: &[u8]) -> Result<(), SourceError> {
        let current = self.get(&target.secret_id, At::Stage("AWSCURRENT")).await?;
        let taken = edited(&current.content, target.field.as_deref(), value)
            .and_then(|content| if current.form == Form::Text { text(&content).map(drop) } else { Ok(()) });
        taken.map_err(|e| malformed(target, &e))
    }

    /// Puts a version with another key in it at a staging label of its own (AWSPENDING, say), built from what is
    /// current: the current version stays as it is. Returns the version's id.
    pub async fn stage(
        &self,
        target: &AwsSource,
        value: &[u8],
        label: &str,
        id: Uuid,
    ) -> Result<String, SourceError> {
        let current = self.get(&target.secret_id, At::Stage("AWSCURRENT")).await?;
        let content =
            set(&current.content, target.field.as_deref(), value).map_err(|e| malformed(target, &e))?;
        let token = request_token(id, Action::Set, &current.version_id);
        self.put(&target.secret_id, (&content, current.form), &token, label).await
    }

    /// The key that a source names; nothing where the object has no such field.
    pub async fn key_if_any(&self, source: &AwsSource) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let SecretVersion { content, .. } = self.version(source).await?;
        extracted_if_any(content, source.field.as_deref()).map_err(|e| malformed(source, &e))
    }

    /// The same of what is current, with its version's id.
    pub async fn current_key_if_any(
        &self,
        source: &AwsSource,
    ) -> Result<(String, Zeroizing<Vec<u8>>), SourceError> {
        let SecretVersion { version_id, content, .. } = self.version(&source.at_current()).await?;
        let key = extracted_if_any(content, source.field.as_deref()).map_err(|e| malformed(source, &e))?;
        Ok((version_id, key))
    }

    /// The same of any version, with the second since 1970 when that was made.
    pub async fn key_with_date(
        &self,
        source: &AwsSource,
    ) -> Result<(Option<i64>, Zeroizing<Vec<u8>>), SourceError> {
        let SecretVersion { created, content, .. } = self.version(source).await?;
        let key = extracted_if_any(content, source.field.as_deref()).map_err(|e| malformed(source, &e))?;
        Ok((created, key))
    }

    /// Gives a secret that was created without a value its first one. Returns the version's id.
    pub async fn first_value(
        &self,
        secret_id: &str,
        content: &[u8],
        id: Uuid,
    ) -> Result<String, SourceError> {
        self.put(secret_id, (content, Form::Text), &id.to_string(), "AWSCURRENT").await
    }

    /// Puts a version under one label and nothing else; the same token again finds the same version.
    pub(super) async fn put(
        &self,
        secret_id: &str,
        (content, form): (&[u8], Form),
        token: &str,
        label: &str,
    ) -> Result<String, SourceError> {
        let call = Call { action: "secretsmanager:PutSecretValue", secret_id };
        let request = self
            .of(secret_id)
            .put_secret_value()
            .secret_id(secret_id)
            .client_request_token(token)
            .version_stages(label);
        let whole = || AwsSource { secret_id: secret_id.to_owned(), field: None, stage_or_version: None };
        let request = match form {
            Form::Text => request.secret_string(text(content).map_err(|e| malformed(&whole(), &e))?),
            Form::Binary => request.secret_binary(Blob::new(content)),
        };
        let answer = call.made(request.send()).await.map_err(|e| call.explain(e))?;
        Ok(answer.version_id.unwrap_or_else(|| token.to_owned()))
    }
}

impl Replacement<'_> {
    /// Whether a current version that yields the wanted key ends the work.
    fn is_done(&self, current: &SecretVersion) -> bool {
        match self.action {
            Action::Promote | Action::Set => true,
            Action::Rollback => current.stages.iter().any(|s| s == self.label),
        }
    }
}

/// The ClientRequestToken, and with it the version id, of what an action makes out of version V: a UUIDv8.
pub fn request_token(id: Uuid, action: Action, from_version: &str) -> String {
    let mut hash = Sha256::new();
    for part in [
        b"rekey request token v1".as_slice(),
        id.as_bytes(),
        action.name().as_bytes(),
        from_version.as_bytes(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

fn foreign(target: &AwsSource) -> SourceError {
    SourceError::Malformed {
        source_name: target.to_string(),
        what: "the current value is neither of this rotation's keys and was not changed".into(),
        hint: "Find out what changed the secret (CloudTrail: PutSecretValue, UpdateSecretVersionStage), and \
             restore the right version"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_uuid_that_depends_on_every_part() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let tokens = [
            request_token(a, Action::Promote, "v1"),
            request_token(b, Action::Promote, "v1"),
            request_token(a, Action::Rollback, "v1"),
            request_token(a, Action::Promote, "v2"),
        ];
        for (i, token) in tokens.iter().enumerate() {
            assert_eq!(Uuid::try_parse(token).unwrap().get_version_num(), 8);
            assert!(!tokens[..i].contains(token));
        }
        assert_eq!(tokens[0], request_token(a, Action::Promote, "v1"));
    }
}
