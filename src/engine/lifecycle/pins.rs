//! Pins: staging labels that keep a rotation's two key versions findable and undeleted, whatever names yield.

use uuid::Uuid;

use super::target::{Target, Yields};
use crate::error::Result;
use crate::secrets::aws::{new_pin, old_pin};
use crate::secrets::{SourceError, Sources};
use crate::store::ledger::Rotation;

/// Attaches both pins where the keys are in Secrets Manager. Idempotent.
pub async fn pin(sources: &Sources, rotation: &Rotation) -> Result<(), SourceError> {
    if let (Some(arn), Some(version)) = (&rotation.old_arn, &rotation.old_version) {
        sources.aws().await?.attach(arn, &old_pin(rotation.id), version).await?;
    }
    if let (Some(arn), Some(version)) = (&rotation.new_arn, &rotation.new_version) {
        match sources.aws().await?.attach(arn, &new_pin(rotation.id), version).await {
            // Lost and restored into a new secret: the key is found by its fingerprint, and promote writes it
            // where it stays.
            Err(SourceError::Missing { .. }) => {
                tracing::warn!(
                    secret = arn,
                    version,
                    "The new key's first version no longer exists; rekey can't label it"
                );
            }
            done => drop(done?),
        }
    }
    Ok(())
}

/// Pins the old key where the application reads it, if `run` read it elsewhere: AWSPREVIOUS, which promote leaves on it,
/// moves on with the next change. Idempotent.
pub async fn pin_at(target: &Target<'_>) -> Result<(), SourceError> {
    let Some(aws) = target.source.aws() else { return Ok(()) };
    let client = target.sources.aws().await?;
    if target.rotation.old_arn == Some(client.describe(&aws.secret_id).await?.arn) {
        return Ok(());
    }
    let current = target.sources.fetch(&aws.at_current().into()).await?;
    if let (Yields::Old, Some(version)) = (target.judge(&current.value), &current.version_id) {
        client.attach(&aws.secret_id, &old_pin(target.rotation.id), version).await?;
    }
    Ok(())
}

/// Once a rotation is over: removes rekey's pins and private labels, and the dotenv file's backup. Best effort:
/// a label that stays is harmless, but a secret takes only twenty over all its versions. May be repeated.
pub async fn clean_up(target: &Target<'_>) {
    target.drop_backup();
    let (sources, rotation) = (target.sources, target.rotation);
    let written = target.source.aws().filter(|_| rotation.promoting_at.is_some());
    let written = written.map(|aws| aws.secret_id.as_str());
    let mut secrets: Vec<&str> =
        [rotation.old_arn.as_deref(), rotation.new_arn.as_deref(), written].into_iter().flatten().collect();
    secrets.sort_unstable();
    secrets.dedup();
    for secret in secrets {
        if let Err(error) = unpin_one(sources, secret, rotation.id).await {
            tracing::warn!(secret, %error, "Couldn't remove rekey's staging labels");
        }
    }
}

/// Once a rotation is finalized: takes AWSPENDING off the version in which the new key waited, unless that is current. It
/// would block AWS's RotateSecret. Best effort, and may be repeated.
pub async fn end_pending(target: &Target<'_>) {
    let (sources, rotation) = (target.sources, target.rotation);
    let (Some(arn), Some(version)) = (&rotation.new_arn, &rotation.new_version) else { return };
    let ending = async {
        let client = sources.aws().await?;
        let info = client.describe(arn).await?;
        let (pending, current) = (info.holder(PENDING), info.holder("AWSCURRENT"));
        if pending == Some(version.as_str()) && current != pending && info.deletion.is_none() {
            client.detach(arn, PENDING).await?;
        }
        Ok::<_, SourceError>(())
    };
    match ending.await {
        Ok(()) | Err(SourceError::Missing { .. }) => {}
        Err(error) => {
            tracing::warn!(secret = arn, %error, "AWSPENDING stays on a version that is not current")
        }
    }
}

const PENDING: &str = "AWSPENDING";

/// Takes this rotation's labels off one secret.
pub async fn unpin_one(sources: &Sources, secret: &str, rotation: Uuid) -> Result<(), SourceError> {
    match sources.aws().await?.detach_all(secret, rotation).await {
        // What is gone has no labels any more.
        Err(SourceError::Refused { .. } | SourceError::Missing { .. }) | Ok(_) => Ok(()),
        Err(e) => Err(e),
    }
}
