//! What follows from a closing proof: the rules for ending a pass, sweeping, walking again, or giving up.
//!
//! Pure: `engine::closing` looks, asks here, and carries it out.

use std::time::Duration;

use super::PassOutcome;

/// What a closing proof met.
#[derive(Clone, Copy, Debug)]
pub struct Proven {
    /// Rows can be told older or younger than the pass's horizon.
    pub horizon_usable: bool,
    /// The table was rewritten under block ranges: chunks that were still to come pointed elsewhere.
    pub rewritten: bool,
    /// Rows on the source key.
    pub stragglers: Stragglers,
    /// Sweeps in a row before this pass.
    pub sweeps: i32,
    /// Sweeps in a row after which writers will not stop.
    pub max_sweeps: i32,
}

/// How many rows are on the source key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stragglers {
    /// None.
    None,
    /// As many as can be listed.
    Listed,
    /// More than a list should hold.
    TooMany,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Nothing is on the source key at one instant.
    Clean,
    /// Move the stragglers that are listed, after a pause, then prove again.
    Sweep(Duration),
    /// Walk over the whole table again.
    WalkAgain,
    /// Writers would not stop.
    Unsettled,
}

impl Proven {
    /// The rules, in this order. What cannot be told from the horizon, or was not walked over, is never clean.
    pub fn conclusion(&self) -> Conclusion {
        match self.stragglers {
            _ if !self.horizon_usable || self.rewritten => Conclusion::WalkAgain,
            Stragglers::None => Conclusion::Clean,
            _ if self.sweeps >= self.max_sweeps => Conclusion::Unsettled,
            Stragglers::TooMany => Conclusion::WalkAgain,
            Stragglers::Listed => Conclusion::Sweep(pause(self.sweeps)),
        }
    }
}

/// Before another sweep: none at first, then up to two seconds, so that writers may come to an end.
fn pause(sweeps: i32) -> Duration {
    match sweeps {
        ..2 => Duration::ZERO,
        sweeps => (Duration::from_millis(50) * (1 << sweeps.min(6))).min(Duration::from_secs(2)),
    }
}

impl Conclusion {
    /// How the pass ended.
    pub fn outcome(self) -> PassOutcome {
        match self {
            Conclusion::Clean => PassOutcome::Clean,
            Conclusion::Sweep(_) | Conclusion::WalkAgain => PassOutcome::Superseded,
            Conclusion::Unsettled => PassOutcome::Unsettled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: Proven = Proven {
        horizon_usable: true,
        rewritten: false,
        stragglers: Stragglers::None,
        sweeps: 0,
        max_sweeps: 8,
    };

    #[test]
    fn only_a_usable_horizon_over_an_unmoved_table_without_stragglers_is_clean() {
        assert_eq!(CLEAN.conclusion(), Conclusion::Clean);
        assert_eq!(Proven { sweeps: 9, ..CLEAN }.conclusion(), Conclusion::Clean);
        for stragglers in [Stragglers::None, Stragglers::Listed, Stragglers::TooMany] {
            for sweeps in [0, 8] {
                let met = Proven { stragglers, sweeps, ..CLEAN };
                assert_eq!(Proven { horizon_usable: false, ..met }.conclusion(), Conclusion::WalkAgain);
                assert_eq!(Proven { rewritten: true, ..met }.conclusion(), Conclusion::WalkAgain);
            }
        }
    }

    #[test]
    fn stragglers_are_swept_until_writers_will_not_stop() {
        let listed = Proven { stragglers: Stragglers::Listed, ..CLEAN };
        let many = Proven { stragglers: Stragglers::TooMany, ..CLEAN };
        let pauses = [0, 0, 200, 400, 800, 1600, 2000, 2000];
        for (sweeps, ms) in pauses.into_iter().enumerate() {
            let sweeps = sweeps as i32;
            let pause = Duration::from_millis(ms);
            assert_eq!(Proven { sweeps, ..listed }.conclusion(), Conclusion::Sweep(pause));
            assert_eq!(Proven { sweeps, ..many }.conclusion(), Conclusion::WalkAgain);
        }
        assert_eq!(Proven { sweeps: 8, ..listed }.conclusion(), Conclusion::Unsettled);
        assert_eq!(Proven { sweeps: 8, ..many }.conclusion(), Conclusion::Unsettled);
    }

    #[test]
    fn what_is_carried_on_is_superseded() {
        let ends = [Conclusion::Sweep(Duration::ZERO), Conclusion::WalkAgain].map(Conclusion::outcome);
        assert_eq!(ends, [PassOutcome::Superseded; 2]);
        assert_eq!(Conclusion::Clean.outcome(), PassOutcome::Clean);
        assert_eq!(Conclusion::Unsettled.outcome(), PassOutcome::Unsettled);
    }
}
