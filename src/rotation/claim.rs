//! What the ledger claims of a rotation, and the audit trail has to confirm. A claim that the trail contradicts decides nothing.

use super::state::State;
use super::words::words;

words! {
    /// A claim of the ledger.
    Claim {
        /// The state it is in.
        State = "state",
        /// The two keys: fingerprints, sources, versions.
        Keys = "keys",
        /// Whether it was promoted, and where.
        Promotion = "promotion",
        /// What the last verify found.
        Verify = "verify",
        /// Whether the old key is compromised.
        Compromised = "compromised",
        /// The ARNs and versions of its secrets.
        Secrets = "secrets",
    }
}

impl Claim {
    /// Whether keys and rows are moved by it. The others only describe: a verify is made again, and a secret is asked itself.
    pub const fn is_acted_upon(self) -> bool {
        matches!(self, Claim::State | Claim::Keys | Claim::Promotion)
    }

    /// What stands behind "disagree on".
    pub const fn describe(self) -> &'static str {
        match self {
            Claim::State => "the state",
            Claim::Keys => "the keys",
            Claim::Promotion => "whether, and where, it was promoted",
            Claim::Verify => "what the last verify found",
            Claim::Compromised => "whether the old key is compromised",
            Claim::Secrets => "the secrets' ARNs or versions",
        }
    }
}

/// A claim that keys and rows are moved by, and that the trail contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradicted {
    /// The claim.
    pub claim: Claim,
    /// The state by the trail; none where it has no event of the rotation.
    pub trail: Option<State>,
}
