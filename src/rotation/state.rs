//! The states of a rotation (`docs/lifecycle.md`), and which key rows should be on in each. Which command may move a
//! rotation on is in `permits.rs`.

use super::words::words;

words! {
    /// Where a rotation stands.
    State {
        /// Rows move from the old key to the new one.
        Migrating = "migrating",
        /// A closing proof found no row left on the old key.
        Migrated = "migrated",
        /// The new key is being made current outside; written before the outside is touched.
        Promoting = "promoting",
        /// The application reads the new key.
        Promoted = "promoted",
        /// The end is being written outside.
        Finalizing = "finalizing",
        /// Over, on the new key.
        Finalized = "finalized",
        /// Rows move from the new key back to the old one.
        RollingBack = "rolling_back",
        /// The old key is being made current outside again.
        Unpromoting = "unpromoting",
        /// Over, on the old key.
        RolledBack = "rolled_back",
    }
}

words! {
    /// What the operator wants the workers to do.
    Desired {
        /// Work.
        Running = "running",
        /// Finish the batch, give leases back, wait.
        Paused = "paused",
        /// Finish the batch and end; only `resume` or `rollback` lead out.
        Aborted = "aborted",
    }
}

words! {
    /// Which way rows move.
    Direction {
        /// Old key → new key.
        Forward = "forward",
        /// New key → old key.
        Backward = "backward",
    }
}

words! {
    /// One of a rotation's two keys. They never swap.
    KeyRole {
        /// Rows came from it.
        Old = "old",
        /// Rows go to it.
        New = "new",
    }
}

impl State {
    /// True until the rotation is over; one active rotation per table.
    pub const fn is_active(self) -> bool {
        !matches!(self, State::Finalized | State::RolledBack)
    }

    /// The way rows should be moving, or have moved, in this state. It names the key rows should be on.
    pub const fn direction(self) -> Direction {
        match self {
            State::RollingBack | State::Unpromoting | State::RolledBack => Direction::Backward,
            _ => Direction::Forward,
        }
    }

    /// States in which workers of this direction may claim chunks: the main pass, and sweeps for late writers.
    pub const fn workable(direction: Direction) -> &'static [State] {
        match direction {
            Direction::Forward => &[State::Migrating, State::Migrated, State::Promoted],
            Direction::Backward => &[State::RollingBack, State::RolledBack],
        }
    }

    /// The key that the application is given, where that is settled; `promoting` says whether a promotion ever began.
    pub const fn application_reads(self, promoting: bool) -> Option<KeyRole> {
        match self {
            State::Migrating | State::Migrated | State::RolledBack => Some(KeyRole::Old),
            State::Promoted | State::Finalizing | State::Finalized => Some(KeyRole::New),
            State::RollingBack if !promoting => Some(KeyRole::Old),
            State::RollingBack | State::Promoting | State::Unpromoting => None,
        }
    }

    /// A rollback turns the rotation round here. Elsewhere there is nothing to turn, or it is too late.
    pub const fn may_roll_back(self) -> bool {
        matches!(self, State::Migrating | State::Migrated | State::Promoting | State::Promoted)
    }
}

impl Direction {
    /// The key rows are moved to.
    pub const fn target(self) -> &'static str {
        match self {
            Direction::Forward => "new",
            Direction::Backward => "old",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for &s in State::ALL {
            assert_eq!(s.as_str().parse(), Ok(s));
        }
        assert!("done".parse::<State>().is_err());
    }

    #[test]
    fn only_the_two_ends_are_inactive() {
        let inactive: Vec<_> = State::ALL.iter().filter(|s| !s.is_active()).collect();
        assert_eq!(inactive, [&State::Finalized, &State::RolledBack]);
    }

    /// docs/lifecycle.md's table, line by line: direction of the rows, rollback allowed, workers may claim.
    #[test]
    fn what_each_state_allows() {
        use Direction::{Backward, Forward};
        for (state, direction, back, work) in [
            (State::Migrating, Forward, true, true),
            (State::Migrated, Forward, true, true),
            (State::Promoting, Forward, true, false),
            (State::Promoted, Forward, true, true),
            (State::Finalizing, Forward, false, false),
            (State::Finalized, Forward, false, false),
            (State::RollingBack, Backward, false, true),
            (State::Unpromoting, Backward, false, false),
            (State::RolledBack, Backward, false, true),
        ] {
            assert_eq!(state.direction(), direction, "{state}");
            assert_eq!(state.may_roll_back(), back, "{state}");
            assert_eq!(State::workable(direction).contains(&state), work, "{state}");
            let other = if direction == Forward { Backward } else { Forward };
            assert!(!State::workable(other).contains(&state), "{state}");
        }
        assert_eq!((Forward.target(), Backward.target()), ("new", "old"));
    }

    #[test]
    fn words_are_told_apart_and_padded() {
        assert_eq!(format!("[{:>8}]", Desired::Paused), "[  paused]");
        assert_eq!("migrated".parse(), Ok(State::Migrated));
        assert_eq!("pause".parse::<Desired>(), Err("\"pause\" is not a Desired".to_owned()));
        for &desired in Desired::ALL {
            assert_eq!(desired.as_str().parse(), Ok(desired));
        }
        for &direction in Direction::ALL {
            assert_eq!(direction.as_str().parse(), Ok(direction));
        }
    }
}
