//! The outside half of a rollback: the old key is made current again, then the rotation is over.

use serde_json::json;
use sqlx::Connection;

use super::Exclusive;
use super::pins::clean_up;
use super::target::{Hand, Target, Yields};
use crate::crypto::EncryptionKey;
use crate::error::{Exit, Result};
use crate::rotation::{Command, State};
use crate::secrets::KeySource;
use crate::store::Statement;
use crate::store::audit::Actor;
use crate::store::ledger::rotation;

/// Ends a rollback whose rows are all on the old key. Where `promoting` was ever written, the old key is made
/// current in a fresh version even where it looks current: the move of a killed promote may land later, and fails
/// only because the version it names is current no more. `new_found_at` is where the new key was read: rows that are
/// saved until the application is restarted need it. `hand` is who changes what rekey did not promote itself.
pub async fn unpromote(
    alone: &mut Exclusive<'_>,
    target: &Target<'_>,
    old: &EncryptionKey,
    new_found_at: &KeySource,
    hand: Hand<'_>,
    actor: &Actor,
) -> Result<Option<String>> {
    let r = target.rotation;
    let again = Command::Rollback { deadline: false, compromised: r.compromised };
    let mut version_id = None;
    if r.promoting_at.is_some() {
        let mut tx = alone.conn().begin().during("record the rollback").await?;
        let detail = json!({ "target": target.source.to_string() });
        rotation::advance(&mut tx, r.id, &[State::RollingBack], State::Unpromoting, actor, detail).await?;
        tx.commit().during("record the rollback").await?;
        if r.external || !target.is_writable() {
            let by_hand = || target.by_hand(r.old_fingerprint, again);
            match (target.look().await, hand) {
                (Ok(Yields::Old), _) => {}
                (Ok(_), Hand::Program(program, kept)) => {
                    target.hand_over(program, old, kept, Yields::Old, again).await?;
                }
                // A place that yields nothing has to be put right by the same hand.
                (Ok(_), _) => return Err(by_hand()),
                (Err(e), Hand::Owner(_) | Hand::Rekey) if e.exit == Exit::Key => return Err(by_hand()),
                (Err(e), _) => return Err(e),
            }
        } else {
            version_id = target.make_current(alone, &[State::Unpromoting], Yields::Old, old).await?;
        }
    } else if target.is_live() && matches!(target.look().await, Ok(Yields::New)) {
        // Promoted by hand: whoever did that takes it back. Ended now, the application would be left on a key that no
        // row is on.
        return Err(target.by_hand(r.old_fingerprint, again));
    }
    let mut tx = alone.conn().begin().during("end the rollback").await?;
    let from = [State::RollingBack, State::Unpromoting];
    rotation::advance(&mut tx, r.id, &from, State::RolledBack, actor, json!({ "version_id": version_id }))
        .await?;
    tx.commit().during("end the rollback").await?;
    clean_up(target).await;
    target.drop_new_key_copy(new_found_at);
    Ok(version_id)
}
