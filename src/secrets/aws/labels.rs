//! Staging labels: what they are called, where they are, and moving them.
//!
//! A label is on one version of a secret; a version with no label is deprecated and may vanish, so a pin is also
//! what keeps a key alive. Moving a label reads no secret.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::client::{SecretsManager, arn_region};
use super::{super::SourceError, explain::Call};
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit};

/// Staging labels that the versions of one secret may bear together (*Secrets Manager quotas* in its User Guide).
pub const MAX_LABELS: usize = 20;

const FORMER: &str = "rekey-former-";

/// A secret without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretInfo {
    /// The ARN.
    pub arn: String,
    /// The name.
    pub name: String,
    /// Secrets Manager replaces the value by itself on a schedule.
    pub rotation_enabled: bool,
    /// Seconds since 1970 when it is to be deleted for good.
    pub deletion: Option<i64>,
    /// The region it is replicated from, where it has replicas or is one.
    pub primary_region: Option<String>,
    /// Version ids and their staging labels; versions without labels are not listed.
    pub versions: BTreeMap<String, Vec<String>>,
}

impl SecretInfo {
    /// The version a label is on.
    pub fn holder(&self, label: &str) -> Option<&str> {
        self.versions.iter().find(|(_, labels)| labels.iter().any(|l| l == label)).map(|(id, _)| id.as_str())
    }

    /// The region that it is replicated from, if this is a replica: it takes no value and no label here.
    pub fn replicated_from(&self) -> Option<&str> {
        let own = arn_region(&self.arn)?;
        self.primary_region.as_deref().filter(|primary| *primary != own)
    }

    /// Refuses (7) labels that the secret has no room for: AWS would refuse each try to put them on.
    pub fn refuse_without_room(&self, off: &[String], on: &[String]) -> Result<(), Error> {
        let labels = self.labels_after(off, on);
        if labels <= MAX_LABELS {
            return Ok(());
        }
        Err(Error::new(
            Exit::State,
            format!(
                "secret {} would have {labels} staging labels, but AWS allows {MAX_LABELS} over all its \
                 versions",
                self.name
            ),
        )
        .hint(
            "Run `rekey keys status` to list the retired keys. Destroy one that no database backup needs \
             with `rekey keys destroy --fingerprint F`",
        ))
    }

    /// How many labels there are once these have come off, and then those been put on.
    pub fn labels_after(&self, off: &[String], on: &[String]) -> usize {
        let stay = self.versions.values().flatten().filter(|l| !off.contains(l) && !on.contains(l));
        stay.count() + on.len()
    }
}

/// A rotation in eight characters: the last ones of its UUIDv7, because the first ones are a clock and are the
/// same for every rotation of the same minute.
pub fn id8(rotation: Uuid) -> String {
    let hex = rotation.simple().to_string();
    hex[24..].to_owned()
}

/// The pin on the version that holds the old key.
pub fn old_pin(rotation: Uuid) -> String {
    format!("rekey-old-{}", id8(rotation))
}

/// The pin on the version that holds the new key.
pub fn new_pin(rotation: Uuid) -> String {
    format!("rekey-new-{}", id8(rotation))
}

/// The private label under which promote writes a version before it is made current.
pub fn promote_label(rotation: Uuid) -> String {
    format!("rekey-promote-{}", id8(rotation))
}

/// The private label under which rollback writes a version before it is made current.
pub fn rollback_label(rotation: Uuid) -> String {
    format!("rekey-rollback-{}", id8(rotation))
}

/// What the labels of retired keys begin with.
pub(super) const RETIRED: &str = "rekey-retired-";

/// The label that keeps an old key after `finalize`: backups of the database may need it.
pub fn retired_label(fingerprint: Fingerprint) -> String {
    format!("{RETIRED}{fingerprint}")
}

/// The label that keeps a key which `keys generate --force` or `keys restore` replaced: AWSPREVIOUS keeps the last one only.
pub fn former_label(fingerprint: Fingerprint) -> String {
    format!("{FORMER}{fingerprint}")
}

/// True for the labels that keep an unused key until `keys destroy` removes them.
pub fn keeps_former_key(label: &str) -> bool {
    let fingerprint = label.strip_prefix(RETIRED).or_else(|| label.strip_prefix(FORMER));
    fingerprint.is_some_and(|text| text.parse::<Fingerprint>().is_ok())
}

/// True for labels that say an unfinished rotation needs this version.
pub fn is_pin(label: &str) -> bool {
    label.starts_with("rekey-old-") || label.starts_with("rekey-new-")
}

impl SecretsManager {
    /// Which versions and labels there are, and whether the secret rotates or is deleted. Reads no value.
    pub async fn describe(&self, secret_id: &str) -> Result<SecretInfo, SourceError> {
        let call = Call { action: "secretsmanager:DescribeSecret", secret_id };
        let request = self.of(secret_id).describe_secret().secret_id(secret_id);
        let answer = call.made(request.send()).await.map_err(|e| call.explain(e))?;
        Ok(SecretInfo {
            arn: answer.arn.unwrap_or_default(),
            name: answer.name.unwrap_or_default(),
            rotation_enabled: answer.rotation_enabled.unwrap_or(false),
            deletion: answer.deleted_date.map(|d| d.secs()),
            primary_region: answer.primary_region,
            versions: answer.version_ids_to_stages.unwrap_or_default().into_iter().collect(),
        })
    }

    /// Puts a label on a version, taking it off any other; says whether it had to be moved.
    pub async fn attach(&self, secret_id: &str, label: &str, version_id: &str) -> Result<bool, SourceError> {
        let info = self.describe(secret_id).await?;
        let holder = info.holder(label);
        if holder == Some(version_id) {
            return Ok(false);
        }
        match self.move_label(secret_id, label, Some(version_id), holder).await {
            Ok(()) => Ok(true),
            // Another rekey process has just added the same label: that is the goal.
            Err(e) => match self.describe(secret_id).await?.holder(label) {
                Some(now) if now == version_id => Ok(false),
                _ => Err(e),
            },
        }
    }

    /// Takes a label off whichever version it is on; says whether it was on one.
    pub async fn detach(&self, secret_id: &str, label: &str) -> Result<bool, SourceError> {
        let info = self.describe(secret_id).await?;
        let Some(holder) = info.holder(label) else { return Ok(false) };
        match self.move_label(secret_id, label, None, Some(holder)).await {
            Ok(()) => Ok(true),
            Err(e) if self.describe(secret_id).await?.holder(label).is_some() => Err(e),
            Err(_) => Ok(false),
        }
    }

    /// Takes every label off that a rotation put on: its pins and its private labels. AWSCURRENT and retired
    /// labels stay. Returns the labels taken off.
    pub async fn detach_all(&self, secret_id: &str, rotation: Uuid) -> Result<Vec<String>, SourceError> {
        let ours = [old_pin(rotation), new_pin(rotation), promote_label(rotation), rollback_label(rotation)];
        let info = self.describe(secret_id).await?;
        let mut taken = Vec::new();
        for label in ours.into_iter().filter(|l| info.holder(l).is_some()) {
            if self.detach(secret_id, &label).await? {
                taken.push(label);
            }
        }
        Ok(taken)
    }

    /// One UpdateSecretVersionStage. Fails if `from` no longer holds the label.
    pub(super) async fn move_label(
        &self,
        secret_id: &str,
        label: &str,
        to: Option<&str>,
        from: Option<&str>,
    ) -> Result<(), SourceError> {
        let call = Call { action: "secretsmanager:UpdateSecretVersionStage", secret_id };
        let request = self
            .of(secret_id)
            .update_secret_version_stage()
            .secret_id(secret_id)
            .version_stage(label)
            .set_move_to_version_id(to.map(str::to_owned))
            .set_remove_from_version_id(from.map(str::to_owned));
        call.made(request.send()).await.map(drop).map_err(|e| call.explain(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted_as_they_will_be() {
        let labels = |list: &[&str]| list.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let versions = [("v1", labels(&["AWSPREVIOUS", "pin"])), ("v2", labels(&["AWSCURRENT"]))];
        let info = SecretInfo {
            arn: "arn".into(),
            name: "s".into(),
            rotation_enabled: false,
            deletion: None,
            primary_region: None,
            versions: versions.map(|(id, labels)| (id.to_owned(), labels)).into(),
        };
        assert_eq!(info.labels_after(&[], &[]), 3);
        assert_eq!(info.labels_after(&labels(&["absent"]), &labels(&["AWSPREVIOUS", "retired"])), 4);
        assert_eq!(info.labels_after(&labels(&["pin"]), &labels(&["retired"])), 3);
    }

    #[test]
    fn what_keeps_a_former_key_names_it() {
        let key = Fingerprint::of(b"k");
        assert!(keeps_former_key(&retired_label(key)) && keeps_former_key(&former_label(key)));
        for other in ["rekey-former-secret-key", "rekey-retired-", "rekey-old-00ff00ff", "AWSPREVIOUS"] {
            assert!(!keeps_former_key(other), "{other}");
        }
    }

    #[test]
    fn rotations_of_one_minute_have_different_names() {
        let [a, b] = ["0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c", "0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5d"]
            .map(|s| Uuid::try_parse(s).unwrap());
        assert_eq!(old_pin(a), "rekey-old-2f3a4b5c");
        assert_ne!(new_pin(a), new_pin(b));
        assert!(is_pin(&old_pin(a)) && is_pin(&new_pin(a)) && !is_pin(&promote_label(a)));
        assert!(!is_pin(&retired_label(Fingerprint::of(b"k"))) && !is_pin("AWSCURRENT"));
    }
}
