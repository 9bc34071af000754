//! Findings about the sources of the keys. They are made where sources are read, and handed in.

use super::finding::About;

pub(super) const NOT_DURABLE: About = About {
    name: "not-durable",
    may_be_allowed: true,
    meaning: "The new key is stored where it may be lost",
    remedy: "Store it in Secrets Manager, or make an encrypted copy: `rekey keys backup SOURCE --out FILE`",
};

pub(super) const WEAK: About = About {
    name: "weak-key",
    may_be_allowed: true,
    meaning: "A key is published or weak",
    remedy: "Generate a fresh key: `rekey keys generate encryption`",
};

pub(super) const AUTOMATIC_ROTATION: About = About {
    name: "automatic-rotation",
    may_be_allowed: true,
    meaning: "AWS automatic rotation would replace the key without re-encrypting rows",
    remedy: "Cancel the secret's automatic rotation",
};

pub(super) const SHARED: About = About {
    name: "shared-key",
    may_be_allowed: true,
    meaning: "Another database's rotation uses the same secrets",
    remedy: "Run `rekey run` and `rekey verify` for every database that uses the secrets first",
};

pub(super) const REPLICA_SECRET: About = About {
    name: "replica-secret",
    may_be_allowed: false,
    meaning: "The secret is a replica of one in another region, and takes no value and no label here",
    remedy: "Name the secret by its ARN in its primary region",
};

pub(super) const OPEN_FILE: About = About {
    name: "open-file",
    may_be_allowed: true,
    meaning: "Every user of the machine may write the file that the application reads its key from",
    remedy: "Take the right away: `chmod o-w FILE`",
};
