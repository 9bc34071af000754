//! Words about one walk over the table: what it covers, how its chunks are addressed, how it ended.

use super::words::words;

words! {
    /// How a pass's chunks are addressed.
    Addressing {
        /// Primary-key ranges: ids follow the heap.
        Keys = "keys",
        /// Block ranges: they do not.
        Blocks = "blocks",
    }
}

words! {
    /// What a pass walks over.
    PassKind {
        /// The whole table.
        Full = "full",
        /// Known stragglers, or none: only the closing proof.
        Sweep = "sweep",
    }
}

words! {
    /// How a pass ended.
    PassOutcome {
        /// Its closing proof found no row on the source key.
        Clean = "clean",
        /// Another pass goes on from it: a sweep, or a second walk over the table.
        Superseded = "superseded",
        /// Writers did not stop: its last closing proof found rows on the source key.
        Unsettled = "unsettled",
        /// The rotation was rolled back, or another one began.
        Cancelled = "cancelled",
    }
}

words! {
    /// Why a row is quarantined.
    QuarantineReason {
        /// No bytes at all.
        Empty = "empty",
        /// Fewer bytes than any envelope has.
        TooShort = "too_short",
        /// Long enough, and no key opens it.
        NeitherKey = "neither_key",
        /// Longer than any credential; it was not read.
        TooLarge = "too_large",
        /// The server cannot read the value.
        Damaged = "damaged",
        /// The server takes no other value for it: a constraint or a trigger rejects the UPDATE.
        Rejected = "rejected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        Addressing::ALL.iter().for_each(|w| assert_eq!(w.as_str().parse(), Ok(*w)));
        PassKind::ALL.iter().for_each(|w| assert_eq!(w.as_str().parse(), Ok(*w)));
        PassOutcome::ALL.iter().for_each(|w| assert_eq!(w.as_str().parse(), Ok(*w)));
        QuarantineReason::ALL.iter().for_each(|w| assert_eq!(w.as_str().parse(), Ok(*w)));
        assert_eq!(format!("[{:<12}]", QuarantineReason::Rejected), "[rejected    ]");
    }
}
