//! The copy of a key that stays when a program, or whoever owns the place, puts the other key there: such a place keeps no
//! former value, and rollback, database backups and rows that are still to be saved need it. Looked for before anything
//! is run, and once more afterwards.

use super::target::Target;
use crate::crypto::{EncryptionKey, Fingerprint};
use crate::error::{Error, Exit, Result};
use crate::rotation::KeyRole;
use crate::secrets::dotenv::{Change, backup_path, new_key_suffix};
use crate::secrets::{DotenvVariable, KeySource, Search, SourceError, is_same_place};

/// A key that is about to leave the target, and where else it is.
pub struct Kept {
    /// The place.
    pub place: KeySource,
    pub(super) key: EncryptionKey,
}

impl Target<'_> {
    /// Finds the key that is about to leave this place in one of the other `places`, or keeps a copy beside a dotenv
    /// file. `None`: it is nowhere else.
    pub async fn keep(&self, places: &[KeySource], leaving: KeyRole) -> Result<Option<Kept>> {
        let mut places: Vec<_> =
            places.iter().filter(|place| !is_same_place(place, &self.source)).cloned().collect();
        // What is current in a secret stays there as a version.
        if let Some(aws) = self.source.aws()
            && let Some(version) = self.sources.fetch(&self.source.at_current()).await?.version_id
        {
            places.push(aws.at(version).into());
        }
        if let Some(kept) = self.look_in(&places, leaving).await? {
            if !kept.place.may_change() {
                tracing::warn!(
                    "The only other copy of the {} key that rekey knows of is {}, which ends with this process. Keep a copy that stays",
                    leaving.as_str(),
                    kept.place
                );
            }
            return Ok(Some(kept));
        }
        match self.copy_beside(leaving) {
            Ok(Some(copy)) => self.look_in(&[copy], leaving).await,
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "Couldn't keep a copy of {}", self.source);
                Ok(None)
            }
        }
    }

    async fn look_in(&self, places: &[KeySource], leaving: KeyRole) -> Result<Option<Kept>> {
        let wanted = self.fingerprint(leaving);
        let is_it = |value: &[u8]| EncryptionKey::from_bytes(value).is_ok_and(|k| k.fingerprint() == wanted);
        Ok(match self.sources.find(places, is_it).await? {
            Search::Found { source, fetched } => {
                Some(Kept { place: source, key: EncryptionKey::from_bytes(&fetched.value)? })
            }
            Search::Nowhere { .. } => None,
        })
    }

    fn fingerprint(&self, role: KeyRole) -> Fingerprint {
        match role {
            KeyRole::Old => self.rotation.old_fingerprint,
            KeyRole::New => self.rotation.new_fingerprint,
        }
    }

    /// As promote and rollback keep it where rekey writes the file itself.
    fn copy_beside(&self, leaving: KeyRole) -> Result<Option<KeySource>, SourceError> {
        let Some(DotenvVariable { path, var }) = self.source.dotenv() else { return Ok(None) };
        let suffix = match leaving {
            KeyRole::Old => self.backup_suffix(),
            KeyRole::New => new_key_suffix(self.rotation.id),
        };
        let change = Change { path, var, value: &[], backup: Some(&suffix), create: false };
        change.keep_as_it_is()?;
        Ok(self.source.in_copy(&backup_path(path, &suffix)))
    }

    /// Refuses (7) to have the last copy of a key overwritten.
    pub fn last_copy(&self, leaving: KeyRole) -> Error {
        let (place, role) = (&self.source, leaving.as_str());
        let message = format!(
            "{place} is the only place where rekey finds the {role} key ({}), and the program would overwrite it",
            self.fingerprint(leaving)
        );
        Error::new(Exit::State, message).hint(format!(
            "Copy the {role} key to a place that the program leaves alone, name that place with `--{role}-key SOURCE`, and run \
             the same command again"
        ))
    }

    /// Whether the copy is still there, now that a program has changed the target.
    pub(super) async fn still_keeps(&self, kept: &Kept) -> bool {
        match self.sources.fetch(&kept.place).await {
            Ok(there) => Fingerprint::of(&there.value) == kept.key.fingerprint(),
            // It did not say otherwise.
            Err(SourceError::Unavailable { .. }) => true,
            Err(_) => false,
        }
    }
}
