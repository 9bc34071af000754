//! Whether the secret that held the new key before the promotion may be deleted at the end of a rotation. Pure: the
//! secret's labels decide, not what a table says about it.

use std::fmt;

use uuid::Uuid;

use super::labels::{RETIRED, SecretInfo, is_pin, new_pin, old_pin};

/// Why a secret stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stays {
    /// The application reads its key from it.
    Read,
    /// It keeps the rotation's old key.
    KeepsOldKey,
    /// It keeps an old key that an earlier rotation retired, under this label.
    KeepsRetiredKey(String),
    /// Another rotation needs it, as this label says.
    Needed(String),
    /// It does not bear the label that `run` put on the rotation's new key.
    NotLabelled,
    /// Its current value is not the rotation's new key.
    OtherKey,
    /// Only one field of it is the key.
    Shared,
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stays::Read => f.write_str("the application reads its key from it"),
            Stays::KeepsOldKey => f.write_str("it holds the old key of this rotation"),
            Stays::KeepsRetiredKey(label) => write!(f, "it holds a retired key, labeled {label}"),
            Stays::Needed(label) => write!(f, "its label {label} shows that another rotation needs it"),
            Stays::NotLabelled => f.write_str("it does not have the label of this rotation's new key"),
            Stays::OtherKey => f.write_str("its current value is not the new key of this rotation"),
            Stays::Shared => f.write_str("it has other fields besides the key"),
        }
    }
}

/// Why the labels of a secret keep it from being deleted at the end of `rotation`; `None` where they do not. Labels of
/// rotations that are `over` say nothing. `known` is true where an earlier attempt, which has taken its label off since, found
/// that it may be deleted.
pub fn labels_keep(secret: &SecretInfo, rotation: Uuid, over: &[Uuid], known: bool) -> Option<Stays> {
    let (old, new) = (old_pin(rotation), new_pin(rotation));
    for label in secret.versions.values().flatten() {
        if *label == old {
            return Some(Stays::KeepsOldKey);
        }
        if label.starts_with(RETIRED) {
            return Some(Stays::KeepsRetiredKey(label.clone()));
        }
    }
    let own: Vec<Uuid> = over.iter().copied().chain([rotation]).collect();
    if let Some(label) = other_pin(secret, &own) {
        return Some(Stays::Needed(label.to_owned()));
    }
    (!known && secret.holder(&new).is_none()).then_some(Stays::NotLabelled)
}

/// A label by which a rotation that is none of `own` needs one of the secret's versions, where there is one.
pub fn other_pin<'a>(secret: &'a SecretInfo, own: &[Uuid]) -> Option<&'a str> {
    let is_own = |label: &str| own.iter().any(|&r| label == old_pin(r) || label == new_pin(r));
    secret.versions.values().flatten().map(String::as_str).find(|label| is_pin(label) && !is_own(label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Fingerprint;
    use crate::secrets::aws::retired_label;

    fn secret(labels: &[String]) -> SecretInfo {
        let versions = [("v1".to_owned(), labels.to_vec())];
        SecretInfo {
            arn: "arn".into(),
            name: "s".into(),
            rotation_enabled: false,
            deletion: None,
            primary_region: None,
            versions: versions.into(),
        }
    }

    #[test]
    fn only_what_bears_this_rotations_new_label_alone_is_deleted() {
        let (this, other) = (Uuid::now_v7(), Uuid::now_v7());
        let own = new_pin(this);
        assert_eq!(labels_keep(&secret(std::slice::from_ref(&own)), this, &[], false), None);
        assert_eq!(labels_keep(&secret(&[]), this, &[], false), Some(Stays::NotLabelled));
        assert_eq!(labels_keep(&secret(&[]), this, &[], true), None);
        assert_eq!(
            labels_keep(&secret(&[own.clone(), old_pin(this)]), this, &[], true),
            Some(Stays::KeepsOldKey)
        );
        let retired = retired_label(Fingerprint::of(b"k"));
        assert_eq!(
            labels_keep(&secret(&[own.clone(), retired.clone()]), this, &[], true),
            Some(Stays::KeepsRetiredKey(retired))
        );
        for pin in [old_pin(other), new_pin(other)] {
            let shared = secret(&[own.clone(), pin.clone()]);
            assert_eq!(labels_keep(&shared, this, &[], true), Some(Stays::Needed(pin.clone())));
            assert_eq!(labels_keep(&shared, this, &[other], true), None);
            assert_eq!(other_pin(&shared, &[this]), Some(pin.as_str()));
        }
        assert_eq!(other_pin(&secret(&[own, old_pin(this)]), &[this]), None);
    }
}
