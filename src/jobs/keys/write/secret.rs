//! Writing a key to a secret: created, brought back from its recovery window, changed where it is current, or put
//! under a label beside that.

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Former, Found, Needed, Write, Written};
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::jobs::Session;
use crate::secrets::aws::{
    Action, At, Replacement, SecretInfo, SecretsManager, Seen, former_label, is_object,
};
use crate::secrets::{AwsSource, KeySource, SourceError};

impl Write<'_> {
    pub(super) async fn to_aws(
        &self,
        session: &Session,
        needed: &mut Needed,
        target: &AwsSource,
    ) -> Result<Written> {
        let client = session.sources.aws().await?;
        let stage = match target.stage_or_version.as_deref() {
            _ if target.names_current() => None,
            Some(_) if target.names_version_id() => {
                return Err(not_a_stage(self.target, "a version can't be changed"));
            }
            Some("AWSPREVIOUS") => return Err(not_a_stage(self.target, "only AWS sets AWSPREVIOUS")),
            stage => stage,
        };
        let secret_id = target.secret_id.as_str();
        let id = crate::entropy::id();
        let info = match client.describe(secret_id).await {
            Ok(info) => Some(info),
            Err(SourceError::Missing { .. }) => None,
            Err(e) => return Err(e.into()),
        };
        let nothing = Needed::default();
        let fresh = Found::new(self, &nothing);
        let Some(mut info) = info else {
            if stage.is_some() {
                return Err(not_a_stage(self.target, "the secret doesn't exist yet"));
            }
            let content = first_content(self.target, target, self.value)?;
            return match client.create(secret_id, &content, id, self.creation).await? {
                Some(stored) => Ok(Written { version: Some(stored.version_id), ..fresh.written(true) }),
                None => {
                    Err(Error::new(Exit::Busy, format!("another process has just created {}", self.target))
                        .hint("Run the same command again"))
                }
            };
        };
        if info.deletion.is_some() {
            client.undelete(secret_id).await?;
            tracing::info!("{secret_id} was scheduled for deletion; rekey restored it");
            info = client.describe(secret_id).await?;
        }
        if info.holder("AWSCURRENT").is_none() && stage.is_none() {
            let content = first_content(self.target, target, self.value)?;
            let version = client.first_value(secret_id, content.as_bytes(), id).await?;
            return Ok(Written { version: Some(version), ..fresh.written(true) });
        }
        needed.add_pins(&session.sources, target).await?;
        let judge = Found::new(self, needed);
        if let Some(stage) = stage {
            return self.to_stage(session, &judge, target, stage, id).await;
        }
        if self.former == Former::Labelled {
            let (version, there) = client.current_key_if_any(target).await?;
            self.label_former(client, &judge, &info, (&version, &there)).await?;
        }
        let replacement =
            Replacement { target, value: self.value, id, action: Action::Set, label: self.label };
        let unguarded = async || Ok::<_, SourceError>(());
        let current = client.replace(&replacement, |v| judge.judge(v), unguarded).await;
        let current = current.map_err(|e| judge.explain(e))?;
        let former = info.holder("AWSCURRENT").map(str::to_owned);
        if let Err(e) = client.detach(secret_id, self.label).await {
            tracing::warn!("Couldn't remove staging label {} from {secret_id}: {e}", self.label);
        }
        let changed = current.moved_from.is_some();
        // The last look was at our own key: what was there before is at the version that the label was taken from.
        let mut written = judge.written(changed);
        written.former_fingerprint = None;
        if let Some(from) = current.moved_from.clone().or(former).filter(|_| changed) {
            if let Ok(before) = session.sources.fetch(&target.at(&from).into()).await {
                written.former_fingerprint = Some(Fingerprint::of(&before.value));
            }
            written.former_version = Some(from);
        }
        Ok(Written { version: Some(current.version_id), ..written })
    }

    /// Puts a label on the version whose key is about to be replaced, if it is a key.
    async fn label_former(
        &self,
        client: &SecretsManager,
        judge: &Found<'_>,
        info: &SecretInfo,
        (version, there): (&str, &[u8]),
    ) -> Result<()> {
        if judge.judge(there) != Seen::Replaceable || !judge.is_key.get() {
            return Ok(());
        }
        let label = former_label(Fingerprint::of(there));
        info.refuse_without_room(&[], &[label.clone(), self.label.to_owned(), "AWSPREVIOUS".to_owned()])?;
        client.attach(&info.arn, &label, version).await?;
        Ok(())
    }

    /// A label beside AWSCURRENT: the new key of a JSON secret waits at AWSPENDING.
    async fn to_stage(
        &self,
        session: &Session,
        judge: &Found<'_>,
        target: &AwsSource,
        stage: &str,
        id: Uuid,
    ) -> Result<Written> {
        let client = session.sources.aws().await?;
        let info = client.describe(&target.secret_id).await?;
        // AWS leaves AWSPENDING on the current version after a rotation of its own, and promote leaves it where the
        // key waited that is current now: nothing is pending then.
        let current = session.sources.fetch(&target.at_current().into()).await.ok();
        let holder = info.holder(stage).filter(|v| info.holder("AWSCURRENT") != Some(*v)).map(str::to_owned);
        if let Some(version) = &holder {
            let there = client.key_if_any(&target.at(version)).await?;
            let used = current.is_some_and(|c| c.value == there);
            match judge.judge(&there) {
                // Not while a rotation may still look for it there.
                Seen::Wanted if used && !judge.needed.protects(&there) => {
                    refuse_foreign_pending(client, &info, target, version).await?;
                }
                Seen::Wanted => return Ok(Written { version: holder, ..judge.written(false) }),
                Seen::Foreign => {
                    return Err(judge.explain(SourceError::Malformed {
                        source_name: self.target.to_string(),
                        what: String::new(),
                        hint: String::new(),
                    }));
                }
                Seen::Replaceable => {
                    refuse_foreign_pending(client, &info, target, version).await?;
                    self.label_former(client, judge, &info, (version, &there)).await?;
                }
            }
        }
        let version = client.stage(target, self.value, stage, id).await?;
        Ok(Written { version: Some(version), former_version: holder, ..judge.written(true) })
    }
}

/// Refuses (7) to take a label off a version that was not put there for this key: one of AWS's own rotation, or one in which
/// other fields differ from what is current.
async fn refuse_foreign_pending(
    client: &SecretsManager,
    info: &SecretInfo,
    target: &AwsSource,
    version: &str,
) -> Result<()> {
    let others = async |at| match (&target.field, client.get(&target.secret_id, at).await) {
        (Some(field), Ok(found)) => {
            let fields: Option<serde_json::Map<String, serde_json::Value>> =
                serde_json::from_slice(&found.content).ok();
            Ok(fields.map(|mut fields| {
                fields.remove(field);
                fields
            }))
        }
        (_, Err(SourceError::Missing { .. })) | (None, Ok(_)) => Ok(None),
        (_, Err(e)) => Err(Error::from(e)),
    };
    let pending = others(At::Version(version)).await?;
    let current = others(At::Stage("AWSCURRENT")).await?;
    if !info.rotation_enabled && (pending.is_none() || current.is_none() || pending == current) {
        return Ok(());
    }
    let message = format!(
        "version {version} of {} waits to become current and is not this key's: taking its label off would lose that change",
        info.name
    );
    Err(Error::new(Exit::State, message).hint(
        "Let that rotation end first (`aws secretsmanager describe-secret` shows it), or cancel it: `aws secretsmanager cancel-rotate-secret`",
    ))
}

/// What a secret that does not exist yet is created with.
fn first_content(place: &KeySource, target: &AwsSource, value: &[u8]) -> Result<Zeroizing<String>> {
    let text = std::str::from_utf8(value)
        .map_err(|_| Error::new(Exit::Key, format!("{place}: a secret's string must be UTF-8")))?;
    Ok(Zeroizing::new(match &target.field {
        None if is_object(value) => {
            return Err(Error::new(
                Exit::Key,
                format!("{place}: the value is a JSON object, not a plain key"),
            )
            .hint("Name the key's field: aws:SECRET_ID#encryption_key"));
        }
        None => text.to_owned(),
        Some(field) => serde_json::json!({ field: text }).to_string(),
    }))
}

fn not_a_stage(place: &KeySource, why: &str) -> Error {
    Error::new(Exit::Usage, format!("rekey can't write {place}: {why}"))
        .hint("Name the secret alone, or add @AWSPENDING for a key that must not become current yet")
}
