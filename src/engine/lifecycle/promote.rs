//! Makes the new key current where the application reads it. Only from a clean verify.

use serde_json::json;
use sqlx::Connection;

use super::Exclusive;
use super::pins::{pin, pin_at};
use super::target::{Hand, Target, Yields};
use crate::crypto::EncryptionKey;
use crate::engine::verify::CleanVerify;
use crate::error::{Error, Result};
use crate::rotation::{Command, State};
use crate::secrets::aws::{new_pin, old_pin, promote_label, rollback_label};
use crate::secrets::dotenv::Change;
use crate::secrets::{DotenvVariable, SourceError};
use crate::store::Statement;
use crate::store::audit::Actor;
use crate::store::ledger::rotation;

/// What came of it.
pub struct Promotion {
    /// The version that is current now, where there are versions.
    pub version_id: Option<String>,
    /// It was current before.
    pub already: bool,
}

/// Promotes, by one `hand`: whatever rekey does not write itself is recorded as external.
pub async fn promote(
    alone: &mut Exclusive<'_>,
    _clean: &CleanVerify,
    target: &Target<'_>,
    new: &EncryptionKey,
    hand: Hand<'_>,
    actor: &Actor,
) -> Result<Promotion> {
    let r = target.rotation;
    let external = !matches!(hand, Hand::Rekey);
    let before = target.look_for_either().await?;
    if !external && before == Yields::Old {
        is_possible(target, new).await?;
    }
    // From here on the old key must be findable although its name yields the new one.
    let pinned = match pin(target.sources, r).await {
        Ok(()) => pin_at(target).await,
        failed => failed,
    };
    match pinned {
        Ok(()) => {}
        Err(e @ SourceError::Denied { .. }) if external => {
            tracing::warn!(error = %e, "Couldn't add staging labels to the key versions")
        }
        // Promoted before, and the temporary secret was deleted since: the target has the new key.
        Err(e @ SourceError::Missing { .. }) if r.promoting_at.is_some() => {
            tracing::warn!(error = %e, "A key version no longer exists; rekey can't label it")
        }
        Err(e) => return Err(e.into()),
    }
    let mut tx = alone.conn().begin().during("record the promotion").await?;
    rotation::set_target(&mut tx, r.id, &target.source.to_recorded(), external).await?;
    let detail = json!({ "target": target.source.to_recorded(), "external": external });
    rotation::advance(&mut tx, r.id, &[State::Migrated], State::Promoting, actor, detail).await?;
    tx.commit().during("record the promotion").await?;

    let version_id = match hand {
        Hand::Rekey => {
            let states = [State::Promoting, State::Promoted];
            target.make_current(alone, &states, Yields::New, new).await?
        }
        Hand::Owner(_) | Hand::Program(..) if before == Yields::New => None,
        Hand::Owner(patience) => match target.awaits(Yields::New, r.new_fingerprint, patience).await? {
            true => None,
            false => return Err(target.by_hand(r.new_fingerprint, Command::Promote { external: true })),
        },
        Hand::Program(program, kept) => {
            let again = Command::Promote { external: false };
            target.hand_over(program, new, kept, Yields::New, again).await?;
            None
        }
    };

    let mut tx = alone.conn().begin().during("record the promotion").await?;
    let mut detail = json!({ "target": target.source.to_string(), "version_id": version_id });
    rotation::set_promoted_version(&mut tx, r.id, version_id.as_deref()).await?;
    let from = [State::Promoting];
    if !rotation::advance(&mut tx, r.id, &from, State::Promoted, actor, detail.clone()).await?
        && (before == Yields::Old || version_id.is_some() && version_id != r.promoted_version)
    {
        detail["again"] = json!(match before {
            Yields::Old => "Another process had made the old key current again",
            _ => "Another version with the new key had become current",
        });
        rotation::record(&mut tx, r.id, State::Promoted, actor, detail).await?;
    }
    tx.commit().during("record the promotion").await?;
    Ok(Promotion { version_id, already: before == Yields::New })
}

/// Refuses what could not be written there, or not be taken back: once `promoting` is written it is too late for that.
async fn is_possible(target: &Target<'_>, new: &EncryptionKey) -> Result<()> {
    let r = target.rotation;
    if let Some(DotenvVariable { path, var }) = target.source.dotenv() {
        let suffix = target.backup_suffix();
        let change = Change { path, var, value: new.expose(), backup: Some(&suffix), create: false };
        change.is_possible().map_err(or_by_hand)?;
    }
    let Some(aws) = target.source.aws() else { return Ok(()) };
    let client = target.sources.aws().await?;
    client.takes(aws, new.expose()).await?;
    let info = client.describe(&aws.secret_id).await?;
    let mut on: Vec<String> = [old_pin, promote_label, rollback_label].map(|label| label(r.id)).into();
    on.push("AWSPREVIOUS".to_owned());
    on.extend((r.new_arn.as_ref() == Some(&info.arn)).then(|| new_pin(r.id)));
    info.refuse_without_room(&[], &on)
}

/// What rekey cannot write, a person may.
fn or_by_hand(e: SourceError) -> Error {
    let e = Error::from(e);
    let hint = e.hint.unwrap_or_default();
    Error {
        hint: Some(format!("{hint}. Or run `rekey promote --external`, which prints what to change")),
        ..e
    }
}

/// Settles a `promoting` whose verify found rows that are not on the new key, so that `run` may sweep them up: what the place
/// yields by now says where the rotation stands. That `promoting` was written stays on record for `rollback`.
pub async fn reconcile(alone: &mut Exclusive<'_>, target: &Target<'_>, actor: &Actor) -> Result<()> {
    let to = match target.look_for_either().await? {
        Yields::New => State::Promoted,
        _ => State::Migrated,
    };
    let mut tx = alone.conn().begin().during("record the promotion's state").await?;
    let detail = json!({ "target": target.source.to_string(), "because": "rows are not on the new key" });
    rotation::advance(&mut tx, target.rotation.id, &[State::Promoting], to, actor, detail).await?;
    tx.commit().during("record the promotion's state").await?;
    Ok(())
}
