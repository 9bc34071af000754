//! The end of a rotation: the old version is labelled as retired, the temporary secret's deletion is scheduled.

use std::slice;

use serde::Serialize;
use serde_json::json;
use sqlx::Connection;

use super::Exclusive;
use super::pins::{clean_up, end_pending};
use super::target::{Target, Yields};
use super::temporary::{self, Fate};
use crate::crypto::EncryptionKey;
use crate::error::{Error, Exit, Result};
use crate::rotation::{Command, State};
use crate::secrets::aws::{Deletion, old_pin, promote_label, retired_label};
use crate::secrets::{AwsSource, SourceError};
use crate::store::Statement;
use crate::store::audit::{self, Actor};
use crate::store::ledger::rotation;

/// What was done outside.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ending {
    /// The label that keeps the old key for database backups.
    pub retired_label: Option<String>,
    /// The version that bears it.
    pub retired_version: Option<String>,
    /// The copy of a dotenv file that keeps the old key for database backups.
    pub retired_file: Option<String>,
    /// ARN of the temporary secret, if its deletion is scheduled.
    pub deletion_scheduled: Option<String>,
    /// When it will be gone, in seconds since 1970.
    pub deleted_at: Option<i64>,
    /// ARN of the temporary secret, if it was permanently deleted before.
    pub already_gone: Option<String>,
    /// ARN of the temporary secret, if AWS refused to delete it.
    pub not_deleted: Option<String>,
    /// ARN of a secret that the rotation recorded for its new key, and that stays.
    pub left_alone: Option<String>,
    /// Why it stays.
    pub left_alone_because: Option<String>,
}

/// How a rotation is to end.
pub struct End<'a> {
    /// Days in which the temporary secret can still be restored.
    pub recovery_days: u8,
    /// Where the application's own settings say that it reads its key, if that is a secret.
    pub application: Option<&'a AwsSource>,
    /// Who ends it.
    pub actor: &'a Actor,
}

/// Whether the application reads the new key. In `finalizing` there is no way back, so that somebody's get-then-put
/// of the old key is put right here: `false` says that this needs the new key.
pub async fn is_settled(target: &Target<'_>) -> Result<bool> {
    let r = target.rotation;
    match target.look_for_either().await? {
        Yields::New => Ok(true),
        _ if r.state != State::Finalizing => Err(Error::new(
            Exit::State,
            format!("{} does not hold the new key ({})", target.source, r.new_fingerprint),
        )
        .hint("Run `rekey promote`")),
        _ if r.external || !target.is_writable() => Err(target.by_hand(r.new_fingerprint, Command::Finalize)),
        _ => Ok(false),
    }
}

/// Makes the new key current once more, for [`is_settled`].
pub async fn settle(alone: &mut Exclusive<'_>, target: &Target<'_>, new: &EncryptionKey) -> Result<()> {
    target.make_current(alone, &[State::Finalizing], Yields::New, new).await.map(drop)
}

/// Finalizes. The caller has verified, unless the state is `finalizing` already, and has seen that the target
/// [`is_settled`].
pub async fn finalize(alone: &mut Exclusive<'_>, target: &Target<'_>, end: End<'_>) -> Result<Ending> {
    let (r, actor) = (target.rotation, end.actor);
    // Where the old key is: in the secret that `run` read it from, or where promote pinned it.
    let mut old = r.old_arn.clone().zip(r.old_version.clone());
    if let Some(aws) = target.source.aws() {
        let info = target.sources.aws().await?.describe(&aws.secret_id).await?;
        if let Some(version) = info.holder(&old_pin(r.id)) {
            old = Some((info.arn.clone(), version.to_owned()));
        }
    }
    let (spare, retired) = (promote_label(r.id), retired_label(r.old_fingerprint));
    if let Some((arn, _)) = &old {
        match target.sources.aws().await?.describe(arn).await {
            Ok(info) => info.refuse_without_room(slice::from_ref(&spare), slice::from_ref(&retired))?,
            Err(SourceError::Missing { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    // An earlier attempt may have taken the label off that lets the secret go.
    let found = audit::detail(alone.conn(), r.id, State::Finalizing.as_str()).await?;
    let found = found.as_ref().and_then(|detail| detail["temporary_secret"].as_str());
    let over = rotation::over(alone.conn()).await?;
    let fate = temporary::judge(target, end.application, &over, found).await?;
    let mut tx = alone.conn().begin().during("record the end").await?;
    let detail = match &fate {
        Some(Fate::Delete(arn)) => json!({ "temporary_secret": arn }),
        _ => json!({}),
    };
    let begun =
        rotation::advance(&mut tx, r.id, &[State::Promoted], State::Finalizing, actor, detail).await?;
    if !begun {
        // An earlier attempt may have begun it; nothing outside is touched for a rotation that stands anywhere else.
        let now = rotation::by_id(&mut tx, r.id).await?.state;
        if now != State::Finalizing {
            return Err(elsewhere(now));
        }
    }
    tx.commit().during("record the end").await?;

    let mut ending = Ending::default();
    if let Some((arn, version)) = &old {
        let client = target.sources.aws().await?;
        // What promote put under its label is current, or the new key was put there again since: the label makes room.
        let kept = match client.detach(arn, &spare).await {
            Ok(_) => client.attach(arn, &retired, version).await,
            failed => failed,
        };
        match kept {
            Ok(_) => {
                ending.retired_label = Some(retired);
                ending.retired_version = Some(version.clone());
            }
            // There is no way back from here: an end that waits for a secret that is gone would never come.
            Err(error @ SourceError::Missing { .. }) => {
                tracing::warn!(secret = arn, %error, "Old key version not found, so it isn't retained. Older \
                    database backups need your own copy");
            }
            Err(e) => return Err(e.into()),
        }
    }
    match target.retire_backup().await? {
        Some(kept) => ending.retired_file = Some(kept.display().to_string()),
        None if ending.retired_label.is_none() => {
            tracing::warn!(
                fingerprint = %r.old_fingerprint,
                "rekey keeps no copy of the old key: database backups from before the rotation need yours"
            );
        }
        None => {}
    }
    let gone = match fate {
        Some(Fate::Delete(arn)) => match temporary::delete(target, &arn, end.recovery_days).await? {
            Some(deletion) => Some((arn, deletion)),
            None => {
                ending.not_deleted = Some(arn);
                None
            }
        },
        Some(Fate::Deleted(arn, deletion)) => Some((arn, deletion)),
        Some(Fate::Stays(arn, why)) => {
            (ending.left_alone, ending.left_alone_because) = (Some(arn), Some(why.to_string()));
            None
        }
        None => None,
    };
    match gone {
        Some((arn, Deletion::Scheduled(at))) => {
            (ending.deletion_scheduled, ending.deleted_at) = (Some(arn), at);
        }
        Some((arn, Deletion::AlreadyScheduled(at))) => {
            (ending.deletion_scheduled, ending.deleted_at) = (Some(arn), Some(at));
        }
        Some((arn, Deletion::Gone)) => ending.already_gone = Some(arn),
        None => {}
    }
    let mut tx = alone.conn().begin().during("record the end").await?;
    let detail = serde_json::to_value(&ending).unwrap_or_default();
    if !rotation::advance(&mut tx, r.id, &[State::Finalizing], State::Finalized, actor, detail).await? {
        return Err(elsewhere(rotation::by_id(&mut tx, r.id).await?.state));
    }
    tx.commit().during("record the end").await?;
    end_pending(target).await;
    clean_up(target).await;
    Ok(ending)
}

/// The ledger is not where it was left: a failover lost a commit, or somebody wrote to it.
fn elsewhere(now: State) -> Error {
    Error::new(Exit::Busy, format!("the rotation was changed meanwhile: it is in state {now}"))
        .hint("Run `rekey status`, then `rekey finalize --yes` again where it is permitted")
}
