//! What must not be overwritten, `--force` or not: the keys of a rotation that is not over.
//!
//! The database knows them, where it can be asked; in Secrets Manager our pins say the same without it.

use super::subject::kind_of;
use super::trail::Trail;
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::secrets::aws::is_pin;
use crate::secrets::{AppKey, AwsSource, KeySource, Sources};

/// Keys that an unfinished rotation needs.
#[derive(Default)]
pub struct Needed(Vec<(Fingerprint, String)>);

impl Needed {
    /// As the database knows.
    pub async fn by_database(trail: &mut Trail) -> Needed {
        let Some((rotation, keys)) = trail.unfinished().await else { return Needed::default() };
        Needed(keys.into_iter().map(|key| (key, format!("rotation {rotation}"))).collect())
    }

    /// Adds what our pins on a secret's versions say.
    pub async fn add_pins(&mut self, sources: &Sources, target: &AwsSource) -> Result<()> {
        // Pins are for encryption keys; a JSON secret's other field is on the pinned version, too.
        if kind_of(&KeySource::Aws(target.clone())) == Some(AppKey::Secret) {
            return Ok(());
        }
        let info = sources.aws().await?.describe(&target.secret_id).await?;
        for (version, labels) in &info.versions {
            if let Some(pin) = labels.iter().find(|l| is_pin(l)) {
                let pinned = sources.fetch(&KeySource::Aws(target.at(version))).await?;
                self.0.push((Fingerprint::of(&pinned.value), format!("the rotation that pinned it ({pin})")));
            }
        }
        Ok(())
    }

    /// Who needs this key.
    pub fn by(&self, key: Fingerprint) -> Option<&str> {
        self.0.iter().find(|(needed, _)| *needed == key).map(|(_, by)| by.as_str())
    }

    /// Refuses if the key is needed.
    pub fn refuse(&self, place: &KeySource, key: Fingerprint) -> Result<()> {
        match self.by(key) {
            None => Ok(()),
            Some(by) => Err(Error::new(
                Exit::State,
                format!("{place} holds a key ({key}) that an unfinished rotation needs: {by}; nothing was overwritten"),
            )
            .hint("end that rotation first: rekey status says how; rekey finalize, or rekey rollback")),
        }
    }
}
