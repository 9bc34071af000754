//! Several databases under one pair of keys: the labels on the secrets tell of the others' rotations. Moving the key that the
//! application reads, before every database is on it, leaves the rows of those that are not unreadable.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Session;
use crate::engine::lifecycle::Target;
use crate::error::{Error, Exit, Result};
use crate::secrets::SourceError;
use crate::secrets::aws::{SecretInfo, other_pin, retired_label};
use crate::store::audit;
use crate::store::ledger::rotation;
use crate::store::preflight::{Allowed, Finding, Kind};

/// Which way the key is about to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// To the new key.
    Promote,
    /// To the new key, by another hand than rekey's. This role may then have no right to look.
    HandOver,
    /// Back to the old one.
    Rollback,
}

impl Move {
    fn command(self) -> &'static str {
        match self {
            Move::Promote | Move::HandOver => "promote",
            Move::Rollback => "rollback",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Move::Promote | Move::HandOver => {
                "Run `rekey run` and `rekey verify` for every other database under this key, then pass `--allow shared-key`"
            }
            Move::Rollback => {
                "Run `rekey rollback` for every other database under this key first, or pass `--allow shared-key` if their rows \
                 are on the old key"
            }
        }
    }
}

/// Refuses (4, `shared-key`) to move the key where another rotation needs one of the secrets, unless that is allowed. Asked
/// again directly before the key is moved, because what comes first takes long; the same event is not written twice in a row.
pub async fn refuse(
    session: &Session,
    conn: &mut PgConnection,
    target: &Target<'_>,
    moving: Move,
    allowed: &Allowed,
) -> Result<()> {
    let Some((secret, label)) = found(session, conn, target, moving).await? else { return Ok(()) };
    let message = format!(
        "Label {label} on secret {secret} shows that another database uses this key. After the change, its \
         rows may be undecryptable"
    );
    let finding = Finding::refuse(Kind::SharedKey, message, moving.remedy());
    if allowed.includes(Kind::SharedKey) {
        let id = target.rotation.id;
        let detail = json!({ "by": moving.command(), "finding": finding.name, "message": finding.message });
        if audit::detail(conn, id, "allow").await?.as_ref() != Some(&detail) {
            audit::append(conn, Some(id), "allow", &session.actor, detail).await?;
        }
        return Ok(());
    }
    Err(Error::new(Exit::Preflight, format!("{}: {}", finding.name, finding.message)).hint(finding.remedy))
}

/// The first secret with a label of another database's rotation, and that label.
async fn found(
    session: &Session,
    conn: &mut PgConnection,
    target: &Target<'_>,
    moving: Move,
) -> Result<Option<(String, String)>> {
    let r = target.rotation;
    let written = target.source.aws().map(|aws| aws.secret_id.as_str());
    let temporary = r.new_arn.as_deref().filter(|_| moving != Move::Rollback);
    // Labels that an end of this database's own left behind, because it was killed, say nothing.
    let mut own: Vec<Uuid> = rotation::over(conn).await?;
    own.push(r.id);
    let retired = rotation::retired_versions(conn, r.old_fingerprint).await?;
    for secret in [written, temporary].into_iter().flatten() {
        let info = match session.sources.aws().await?.describe(secret).await {
            Ok(info) => info,
            Err(SourceError::Missing { .. }) => continue,
            Err(error @ SourceError::Denied { .. }) if moving == Move::HandOver => {
                tracing::warn!(%error, "Couldn't check whether another database uses this key");
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let pin = other_pin(&info, &own).map(str::to_owned);
        let label = pin.or_else(|| finalized_elsewhere(&info, target, moving, &retired));
        if let Some(label) = label {
            return Ok(Some((info.name, label)));
        }
    }
    Ok(None)
}

/// Another database's finalize has retired this rotation's old key: its rows cannot go back any more. What this database's
/// own earlier rotations `retired`, by version, says nothing: the key has come back since.
fn finalized_elsewhere(
    secret: &SecretInfo,
    target: &Target<'_>,
    moving: Move,
    retired: &[String],
) -> Option<String> {
    let label = retired_label(target.rotation.old_fingerprint);
    let elsewhere = secret.holder(&label).is_some_and(|version| !retired.iter().any(|own| own == version));
    (moving == Move::Rollback && elsewhere).then_some(label)
}
