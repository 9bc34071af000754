//! The end of a rotation: the old version is labelled as retired, the temporary secret's deletion is scheduled.

use serde::Serialize;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::Exclusive;
use super::pins::clean_up;
use super::target::{Target, Yields};
use crate::error::{Error, Exit, Result};
use crate::rotation::State;
use crate::secrets::aws::{Deletion, may_delete, retired_label};
use crate::secrets::{KeySource, SourceError};
use crate::store::Statement;
use crate::store::audit::Actor;
use crate::store::ledger::rotation;

/// What was done outside.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ending {
    /// The label that keeps the old key for database backups.
    pub retired_label: Option<String>,
    /// The temporary secret, if its deletion is scheduled.
    pub deletion_scheduled: Option<String>,
    /// When it will be gone, in seconds since 1970.
    pub deleted_at: Option<i64>,
}

/// Finalizes. The caller has verified, unless the state is `finalizing` already.
pub async fn finalize(
    conn: &mut PgConnection,
    _alone: &Exclusive,
    target: &Target<'_>,
    recovery_days: u8,
    actor: &Actor,
) -> Result<Ending> {
    let r = target.rotation;
    if target.look().await? != Yields::New {
        return Err(Error::new(
            Exit::State,
            format!("{} does not yield the new key ({})", target.source, r.new_fingerprint),
        )
        .hint("rekey promote"));
    }
    let mut tx = conn.begin().during("record the end").await?;
    rotation::advance(&mut tx, r.id, &[State::Promoted], State::Finalizing, actor, json!({})).await?;
    tx.commit().during("record the end").await?;

    let mut ending = Ending::default();
    let mut target_arn = None;
    if let KeySource::Aws(aws) = &target.source {
        target_arn = Some(target.sources.aws().await?.describe(&aws.secret_id).await?.arn);
    }
    if let (Some(arn), Some(version)) = (&r.old_arn, &r.old_version) {
        let label = retired_label(&r.old_fingerprint);
        target.sources.aws().await?.attach(arn, &label, version).await?;
        ending.retired_label = Some(label);
    }
    if let (KeySource::Aws(temporary), Some(arn), Some(target_arn)) =
        (KeySource::parse(&r.new_source)?, &r.new_arn, &target_arn)
        && may_delete(&temporary, arn, target_arn)
    {
        let deletion = match target.sources.aws().await?.schedule_deletion(arn, recovery_days).await {
            Err(SourceError::Missing { .. }) => Deletion::Gone,
            other => other?,
        };
        ending.deletion_scheduled = Some(temporary.secret_id.clone());
        ending.deleted_at = match deletion {
            Deletion::Scheduled(at) => at,
            Deletion::AlreadyScheduled(at) => Some(at),
            Deletion::Gone => None,
        };
    }
    let mut tx = conn.begin().during("record the end").await?;
    let detail = serde_json::to_value(&ending).unwrap_or_default();
    rotation::advance(&mut tx, r.id, &[State::Finalizing], State::Finalized, actor, detail).await?;
    tx.commit().during("record the end").await?;
    clean_up(target).await;
    Ok(ending)
}
