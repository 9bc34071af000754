//! The secret that held the new key before the promotion, at the end of a rotation: judged before the end is recorded, and
//! scheduled for deletion after it.
//!
//! What a table says only tells where to look. Whether the secret may go is asked of the secret itself: its labels, its
//! current value, and whether the application reads it.

use uuid::Uuid;

use super::pins::unpin_one;
use super::target::{Target, Yields};
use crate::error::Result;
use crate::secrets::aws::{Deletion, Stays, labels_keep};
use crate::secrets::{AwsSource, KeySource, SourceError};

/// What becomes of it. Secrets are named by their ARN.
pub enum Fate {
    /// It may be deleted.
    Delete(String),
    /// It is deleted already, or scheduled for deletion.
    Deleted(String, Deletion),
    /// It stays.
    Stays(String, Stays),
}

/// What becomes of the secret that the rotation recorded for its new key; `None` where there is none, or where it is the
/// secret that the application reads. `over` are the rotations of this database that are over. `found` is the ARN that an earlier attempt of this end found to be deletable.
pub async fn judge(
    target: &Target<'_>,
    application: Option<&AwsSource>,
    over: &[Uuid],
    found: Option<&str>,
) -> Result<Option<Fate>> {
    let r = target.rotation;
    let recorded = KeySource::of(&r.new_source)?;
    let (Some(temporary), Some(arn)) = (recorded.aws(), &r.new_arn) else { return Ok(None) };
    let client = target.sources.aws().await?;
    let secret = match client.describe(arn).await {
        Ok(secret) => secret,
        Err(SourceError::Missing { .. }) => return Ok(Some(Fate::Deleted(arn.clone(), Deletion::Gone))),
        Err(e) => return Err(e.into()),
    };
    let is_this = async |other: &AwsSource| match client.describe(&other.secret_id).await {
        Ok(other) => Ok(other.arn == secret.arn),
        Err(SourceError::Missing { .. }) => Ok(false),
        Err(e) => Err(e),
    };
    if let Some(read) = target.source.aws()
        && is_this(read).await?
    {
        return Ok(None);
    }
    // Outside Secrets Manager the application may well be given its key out of this very secret.
    let read = target.source.aws().is_none()
        || match application {
            Some(application) => is_this(application).await?,
            None => false,
        };
    let known = found == Some(secret.arn.as_str());
    let stays = if read {
        Some(Stays::Read)
    } else if temporary.field.is_some() {
        Some(Stays::Shared)
    } else {
        labels_keep(&secret, r.id, over, known)
    };
    if let Some(why) = stays {
        return Ok(Some(Fate::Stays(secret.arn, why)));
    }
    if let Some(at) = secret.deletion {
        return Ok(Some(Fate::Deleted(secret.arn, Deletion::AlreadyScheduled(at))));
    }
    let current = AwsSource { secret_id: secret.arn.clone(), field: None, stage_or_version: None };
    let holds = match client.key_if_any(&current).await {
        Ok(value) => target.judge(&value),
        Err(SourceError::Missing { .. } | SourceError::Malformed { .. }) => Yields::Neither,
        Err(e) => return Err(e.into()),
    };
    Ok(Some(match holds {
        Yields::New => Fate::Delete(secret.arn),
        _ => Fate::Stays(secret.arn, Stays::OtherKey),
    }))
}

/// Schedules its deletion; `None` where AWS refuses that, because it has replicas, say: no reason to keep the rotation from
/// its end.
pub async fn delete(target: &Target<'_>, arn: &str, recovery_days: u8) -> Result<Option<Deletion>> {
    // Labels cannot be moved once it is scheduled for deletion, and it may be restored for the next key.
    if let Err(error) = unpin_one(target.sources, arn, target.rotation.id).await {
        tracing::warn!(secret = arn, %error, "Couldn't remove rekey's staging labels");
    }
    match target.sources.aws().await?.schedule_deletion(arn, recovery_days).await {
        Err(SourceError::Missing { .. }) => Ok(Some(Deletion::Gone)),
        Err(error @ SourceError::Refused { .. }) => {
            tracing::warn!(secret = arn, %error, "The temporary secret was not deleted");
            Ok(None)
        }
        other => Ok(Some(other?)),
    }
}
