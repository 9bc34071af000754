//! How a measured pressure becomes a pace, so that it neither flaps nor starves.
//!
//! [`Level`] is for what falls while rekey waits (lag, retained WAL, a backlog). [`Feedback`] is for what ends as soon as
//! rekey stops (blocked sessions, forced checkpoints) and would otherwise go on and off forever.
//! Pure: `now` is handed in, as time since any fixed moment.

use std::time::Duration;

/// The longest pause before a batch. It is what keeps a slowed worker from starving.
pub const MAX_PAUSE: Duration = Duration::from_secs(1);

/// How fast to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// As fast as the servo lets.
    #[default]
    Go,
    /// With a pause before each batch.
    Slow(Duration),
    /// Not at all, leases given back.
    Wait,
}

/// Pressure towards a limit: 1 is the limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Level {
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Duration,
    below_since: Option<Duration>,
}

impl Level {
    /// Below this there is no pause; from here on pauses grow until the limit.
    pub const SLOW_FROM: f64 = 0.5;
    /// A wait ends below this…
    pub const RESUME_BELOW: f64 = 0.7;
    /// …and no sooner than this after it began…
    pub const MIN_WAIT: Duration = Duration::from_secs(3);
    /// …or after this long below the limit, however near: the application alone may hold it there.
    pub const PATIENCE: Duration = Duration::from_secs(30);

    /// The pace for a pressure measured now.
    pub fn pace(&mut self, now: Duration, pressure: f64) -> Pace {
        if pressure >= 1.0 {
            self.waiting.get_or_insert(Waiting { since: now, below_since: None }).below_since = None;
            return Pace::Wait;
        }
        if let Some(waiting) = &mut self.waiting {
            let below = *waiting.below_since.get_or_insert(now);
            let low = pressure < Self::RESUME_BELOW || now.saturating_sub(below) >= Self::PATIENCE;
            if !low || now.saturating_sub(waiting.since) < Self::MIN_WAIT {
                return Pace::Wait;
            }
            self.waiting = None;
        }
        if pressure < Self::SLOW_FROM {
            return Pace::Go;
        }
        Pace::Slow(MAX_PAUSE.mul_f64((pressure - Self::SLOW_FROM) / (1.0 - Self::SLOW_FROM)))
    }
}

/// A pause that doubles while there is too much of something, and shrinks slowly when there is not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Feedback {
    pause: Duration,
    changed: Option<Duration>,
}

impl Feedback {
    /// The first pause, and the least.
    pub const FIRST: Duration = Duration::from_millis(20);

    /// The pace after another look. `settle` is how long a change needs before its effect can be seen.
    pub fn pace(&mut self, now: Duration, too_much: bool, settle: Duration) -> Pace {
        if self.changed.is_none_or(|at| now.saturating_sub(at) >= settle) {
            let before = self.pause;
            self.pause = if too_much {
                (self.pause * 2).clamp(Self::FIRST, MAX_PAUSE)
            } else {
                self.pause.mul_f64(0.75)
            };
            if self.pause < Self::FIRST {
                self.pause = Duration::ZERO;
            }
            if self.pause != before || too_much {
                self.changed = Some(now);
            }
        }
        if self.pause.is_zero() { Pace::Go } else { Pace::Slow(self.pause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The paces for one pressure a second.
    fn paces(pressures: impl IntoIterator<Item = f64>) -> Vec<Pace> {
        let mut level = Level::default();
        pressures.into_iter().enumerate().map(|(n, p)| level.pace(SECOND * n as u32, p)).collect()
    }

    fn turns(paces: &[Pace]) -> usize {
        paces.windows(2).filter(|w| (w[0] == Pace::Wait) != (w[1] == Pace::Wait)).count()
    }

    #[test]
    fn pauses_grow_towards_the_limit_and_a_wait_ends_well_below_it() {
        let pace = |p| Level::default().pace(Duration::ZERO, p);
        assert_eq!(pace(0.49), Pace::Go);
        assert_eq!(pace(0.75), Pace::Slow(MAX_PAUSE / 2));
        assert_eq!(pace(1.0), Pace::Wait);
        let after = paces([1.2, 0.9, 0.9, 0.9, 0.9, 0.69]);
        assert_eq!(after[4], Pace::Wait);
        assert!(matches!(after[5], Pace::Slow(_)), "{after:?}");
    }

    #[test]
    fn each_threshold_holds_to_the_second_and_the_hundredth() {
        assert_eq!(Level::default().pace(Duration::ZERO, 0.5), Pace::Slow(Duration::ZERO));
        let after = paces([1.0, 0.7, 0.7, 0.7, 0.7, 0.69]);
        assert_eq!((after[4], after[5] == Pace::Wait), (Pace::Wait, false));
        let after = paces([1.0, 0.6, 0.6, 0.6]);
        assert_eq!((after[2], after[3] == Pace::Wait), (Pace::Wait, false));
        let after = paces(std::iter::once(1.0).chain(std::iter::repeat_n(0.95, 31)));
        assert_eq!((after[30], after[31] == Pace::Wait), (Pace::Wait, false));
    }

    #[test]
    fn feedback_looks_again_when_its_last_change_has_settled() {
        let mut feedback = Feedback::default();
        for (at, too_much, millis) in [
            (0, true, 20.0),
            (4, true, 20.0),
            (5, true, 40.0),
            (9, false, 40.0),
            (10, false, 30.0),
            (11, false, 30.0),
            (15, false, 22.5),
            // Less than the least pause is none.
            (20, false, 0.0),
        ] {
            let pause = Duration::from_secs_f64(millis / 1e3);
            let expected = if pause.is_zero() { Pace::Go } else { Pace::Slow(pause) };
            assert_eq!(feedback.pace(SECOND * at, too_much, SECOND * 5), expected, "at {at} s");
        }
    }

    #[test]
    fn what_stays_just_below_the_limit_does_not_hold_us_for_ever() {
        let after = paces(std::iter::once(1.0).chain(std::iter::repeat_n(0.95, 40)));
        assert_eq!(after[30], Pace::Wait);
        assert!(matches!(after[40], Pace::Slow(_)), "{after:?}");
    }

    proptest! {
        /// Noise around the limit makes it wait and go on again at most once in its patience.
        #[test]
        fn noise_around_the_limit_does_not_flap(noise in prop::collection::vec(0.85f64..1.15, 300)) {
            prop_assert!(turns(&paces(noise)) <= 2 * 300 / 30 + 2);
        }

        /// Whatever came before, it waits at the limit at once, goes on soon below half of it, and a wait lasts.
        #[test]
        fn at_the_limit_it_waits_and_below_half_it_goes_on(before in prop::collection::vec(0.0f64..3.0, 0..200)) {
            let calm = std::iter::repeat_n(0.2, 4);
            let all = paces(before.iter().copied().chain(calm));
            for (pressure, pace) in before.iter().zip(&all) {
                prop_assert!(*pressure < 1.0 || *pace == Pace::Wait);
                prop_assert!(!matches!(pace, Pace::Slow(pause) if *pause > MAX_PAUSE));
            }
            prop_assert_eq!(all.last(), Some(&Pace::Go));
            for run in all.chunk_by(|a, b| (*a == Pace::Wait) == (*b == Pace::Wait)) {
                let inner = run[0] == Pace::Wait;
                prop_assert!(!inner || run.len() >= 3 || all.ends_with(run), "a wait of {} s", run.len());
            }
        }

        /// Feedback never waits, never pauses for longer than it may, and forgets in half a minute.
        #[test]
        fn feedback_is_bounded_and_forgets(trouble in prop::collection::vec(any::<bool>(), 0..200), settle in 0u64..6) {
            let (mut feedback, mut now) = (Feedback::default(), Duration::ZERO);
            for too_much in trouble {
                now += SECOND;
                let pace = feedback.pace(now, too_much, Duration::from_secs(settle));
                prop_assert!(!matches!(pace, Pace::Wait));
                prop_assert!(!matches!(pace, Pace::Slow(pause) if pause > MAX_PAUSE || pause < Feedback::FIRST));
            }
            for _ in 0..30 * settle.max(1) {
                now += SECOND;
                feedback.pace(now, false, Duration::from_secs(settle));
            }
            prop_assert_eq!(feedback.pace(now, false, Duration::ZERO), Pace::Go);
        }
    }
}
