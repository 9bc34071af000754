//! Findings about the sources of the keys. They are made where sources are read, and handed in.

use super::finding::About;

pub(super) const NOT_DURABLE: About = About {
    name: "not-durable",
    may_be_allowed: true,
    meaning: "the new key is kept where it may be lost",
    remedy: "Keep it in Secrets Manager, or make an encrypted copy: `rekey keys backup SOURCE --out FILE`",
};

pub(super) const WEAK: About = About {
    name: "weak-key",
    may_be_allowed: true,
    meaning: "a key is published or weak",
    remedy: "Make a fresh key: `rekey keys generate encryption`",
};

pub(super) const AUTOMATIC_ROTATION: About = About {
    name: "automatic-rotation",
    may_be_allowed: true,
    meaning: "the secret is rotated automatically, without re-encryption",
    remedy: "Cancel the secret's automatic rotation",
};

pub(super) const SHARED: About = About {
    name: "shared-key",
    may_be_allowed: true,
    meaning: "another database's rotation needs the same secrets",
    remedy: "Let every database that uses the secrets be migrated and verified first",
};
