//! What must not be overwritten, `--force` or not: the keys of a rotation that is not over.
//!
//! The database knows them, where it can be asked; in Secrets Manager rekey's pins say the same without it.

use uuid::Uuid;

use super::subject::kind_of;
use crate::crypto::{Fingerprint, Weakness, weakness};
use crate::error::{Error, Exit, Result};
use crate::jobs::audit_trail::AuditTrail;
use crate::secrets::aws::{is_pin, new_pin, old_pin};
use crate::secrets::{AppKey, AwsSource, KeySource, Sources};

/// Keys that an unfinished rotation needs.
#[derive(Default)]
pub(super) struct Needed {
    keys: Vec<(Fingerprint, String)>,
    /// Pins of these rotations were left by an end that was killed, or are on a secret that was to be deleted.
    over: Vec<Uuid>,
    /// A database is named and could not be asked: any key may be needed then.
    unknown: Option<Error>,
}

impl Needed {
    /// As the database knows.
    pub async fn by_database(trail: &mut AuditTrail) -> Needed {
        let (keys, unknown) = match trail.unfinished().await {
            Ok(Some((rotation, keys))) => {
                (keys.map(|key| (key, format!("rotation {rotation}"))).to_vec(), None)
            }
            Ok(None) => (Vec::new(), None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Needed { keys, over: trail.over().await, unknown }
    }

    /// Adds what the pins on a secret's versions say.
    pub async fn add_pins(&mut self, sources: &Sources, target: &AwsSource) -> Result<()> {
        // Pins are for encryption keys; a JSON secret's other field is on the pinned version, too.
        if kind_of(&target.clone().into()) == Some(AppKey::Secret) {
            return Ok(());
        }
        let client = sources.aws().await?;
        let info = client.describe(&target.secret_id).await?;
        for (version, labels) in &info.versions {
            if let Some(pin) = labels.iter().find(|l| is_pin(l) && !self.is_over(l)) {
                let pinned = client.key_if_any(&target.at(version)).await?;
                self.keys.push((Fingerprint::of(&pinned), format!("the rotation that labeled it ({pin})")));
            }
        }
        Ok(())
    }

    /// Whether a pin is of a rotation that is over.
    pub fn is_over(&self, pin: &str) -> bool {
        self.over.iter().any(|&r| pin == old_pin(r) || pin == new_pin(r))
    }

    /// Who is known to need this key.
    fn by(&self, key: Fingerprint) -> Option<&str> {
        self.keys.iter().find(|(needed, _)| *needed == key).map(|(_, by)| by.as_str())
    }

    /// Whether this value must stay, because a rotation needs it or may need it. A placeholder is not lost: anyone can
    /// write it again.
    pub fn protects(&self, value: &[u8]) -> bool {
        let may_be = self.unknown.is_some() && weakness(value) != Some(Weakness::Placeholder);
        may_be || self.by(Fingerprint::of(value)).is_some()
    }

    /// Refuses to overwrite a key that is needed, or may be.
    pub fn refuse(&self, place: &KeySource, key: Fingerprint) -> Result<()> {
        if let Some(by) = self.by(key) {
            return Err(Error::new(
                Exit::State,
                format!(
                    "{place} holds key {key}, which an unfinished rotation needs: {by}; nothing was \
                    overwritten"
                ),
            )
            .hint(
                "End that rotation first with `rekey finalize` or `rekey rollback`. Run `rekey status` to \
                see its state",
            ));
        }
        let Some(error) = &self.unknown else { return Ok(()) };
        let message = format!(
            "{place} holds key {key}, and rekey can't check in the database whether an unfinished rotation \
             needs it; nothing was overwritten: {}",
            error.message
        );
        Err(Error { message, ..error.clone() })
    }
}
