//! Steers the rows and bytes of a batch so that its locks are held for about a target time.
//!
//! A pure function of what was measured: a limit moves a part of the way to what the last batch suggests, never to
//! more than double or less than half at once, and stays put within a dead band, so it does not oscillate. What a
//! batch costs whatever its size (round trips, COMMIT) is not held against its rows, or a distant server would
//! starve: the rows themselves always have at least half the target.

use std::time::Duration;

/// The largest batch there may be, steered towards a lock-hold time.
#[derive(Clone, Copy, Debug)]
pub struct BatchServo {
    rows: Steered,
    bytes: Steered,
    target: Duration,
}

/// One batch, as it was measured.
#[derive(Clone, Copy, Debug)]
pub struct BatchTiming {
    /// Its rows.
    pub rows: usize,
    /// Bytes of their new ciphertexts.
    pub bytes: usize,
    /// How long it held their locks.
    pub held: Duration,
    /// The part of that which does not depend on its size.
    pub fixed: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Steered {
    now: f64,
    min: f64,
    max: f64,
}

impl Steered {
    fn at_most(max: f64, min: f64) -> Steered {
        Steered { now: max, min: min.min(max), max }
    }

    /// A part of the way to `wanted`.
    fn move_towards(&mut self, wanted: f64) {
        let step = (self.now + (wanted - self.now) * 0.5).clamp(self.now * 0.5, self.now * 2.0);
        self.now = step.clamp(self.min, self.max);
    }
}

impl BatchServo {
    /// The fewest bytes a batch is steered to; a row that is larger still goes, alone.
    pub const MIN_BYTES: usize = 64 << 10;

    /// Starts at both maxima, which are never exceeded.
    pub fn new(max_rows: u32, max_bytes: usize, target: Duration) -> Self {
        BatchServo {
            rows: Steered::at_most(f64::from(max_rows.max(1)), 1.0),
            bytes: Steered::at_most(max_bytes.max(1) as f64, Self::MIN_BYTES as f64),
            target,
        }
    }

    /// Rows for the next batch, at most.
    pub fn rows(&self) -> usize {
        self.rows.now as usize
    }

    /// Bytes for the next batch, at most, beyond its first row.
    pub fn bytes(&self) -> usize {
        self.bytes.now as usize
    }

    /// Takes in one batch.
    pub fn observe(&mut self, batch: BatchTiming) {
        if batch.rows == 0 {
            return;
        }
        let (held, fixed, target) =
            (batch.held.as_secs_f64(), batch.fixed.as_secs_f64(), self.target.as_secs_f64());
        let budget = (target - fixed).max(target / 2.0);
        let ratio = budget / (held - fixed).max(1e-6);
        if (0.8..=1.5).contains(&ratio) {
            return;
        }
        let (rows, bytes) = (batch.rows as f64, batch.bytes as f64);
        let (rows_share, bytes_share) = (rows / self.rows.now, bytes / self.bytes.now);
        // A short batch says little about a long one: grow only from near the limit, and shrink the limit that holds.
        let steer = |share: f64, other: f64| if ratio > 1.0 { share > 0.5 } else { share >= other };
        if steer(rows_share, bytes_share) {
            self.rows.move_towards(rows * ratio);
        }
        if steer(bytes_share, rows_share) {
            self.bytes.move_towards(bytes * ratio);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TARGET: Duration = Duration::from_millis(50);
    const MAX_BYTES: usize = 4 << 20;

    fn servo() -> BatchServo {
        BatchServo::new(1000, MAX_BYTES, TARGET)
    }

    /// However slow the database is, 64 KiB go at once.
    #[test]
    fn bytes_have_a_least() {
        let mut servo = servo();
        for _ in 0..40 {
            let (bytes, held) = (servo.bytes(), Duration::from_secs(10));
            servo.observe(BatchTiming { rows: 1, bytes, held, fixed: Duration::ZERO });
        }
        assert_eq!(servo.bytes(), 65_536);
    }

    /// A database with these costs.
    #[derive(Debug)]
    struct Costs {
        us_per_row: f64,
        us_per_kb: f64,
        fixed: Duration,
        row_bytes: usize,
    }

    impl Costs {
        /// The next batch as the writer would cut it: rows, and the time for them without noise.
        fn batch(&self, servo: &BatchServo) -> (usize, Duration) {
            let rows = servo.rows().min(servo.bytes() / self.row_bytes).max(1);
            (rows, self.time(rows))
        }

        fn time(&self, rows: usize) -> Duration {
            let kb = (rows * self.row_bytes) as f64 / 1024.0;
            Duration::from_secs_f64((rows as f64 * self.us_per_row + kb * self.us_per_kb) / 1e6)
        }

        /// Writes batches, each `noise` times as long as it should be, and returns their sizes.
        fn write(&self, servo: &mut BatchServo, noise: &[f64]) -> Vec<usize> {
            let sizes = noise.iter().map(|noise| {
                let (rows, time) = self.batch(servo);
                let held = time.mul_f64(*noise) + self.fixed;
                servo.observe(BatchTiming { rows, bytes: rows * self.row_bytes, held, fixed: self.fixed });
                rows
            });
            sizes.collect()
        }

        /// What the rows of a batch may take.
        fn budget(&self) -> Duration {
            TARGET.saturating_sub(self.fixed).max(TARGET / 2)
        }

        /// Whether no smaller, or no larger, batch is possible.
        fn is_least(&self, rows: usize) -> bool {
            rows == 1 || rows * self.row_bytes <= BatchServo::MIN_BYTES
        }

        fn is_most(&self, rows: usize) -> bool {
            rows == 1000 || (rows + 1) * self.row_bytes > MAX_BYTES
        }
    }

    prop_compose! {
        fn costs()(
            us_per_row in 1.0f64..20_000.0, us_per_kb in 0.0f64..100.0, fixed_ms in 0u64..300,
            row_bytes in prop::sample::select(vec![30, 500, 3000, 40_000, 1_000_000]),
        ) -> Costs {
            Costs { us_per_row, us_per_kb, fixed: Duration::from_millis(fixed_ms), row_bytes }
        }
    }

    #[test]
    fn a_fast_database_is_left_alone() {
        let mut servo = servo();
        let held = Duration::from_millis(10);
        servo.observe(BatchTiming { rows: 1000, bytes: 500_000, held, fixed: Duration::ZERO });
        assert_eq!((servo.rows(), servo.bytes()), (1000, MAX_BYTES));
    }

    #[test]
    fn a_limit_moves_halfway_and_no_more_than_to_half_or_double() {
        let ms = Duration::from_millis;
        let mut servo = servo();
        for (rows, held, fixed, limit) in [
            (0, 9000, 0, 1000),
            // Its rows took half the target, all that they have at least.
            (1000, 85, 60, 1000),
            // Twice the 30 ms that its rows had: towards 500.
            (1000, 80, 20, 750),
            (750, 500, 0, 412),
            (412, 30_000, 0, 206),
            // Half a batch says nothing about a whole one.
            (100, 1, 0, 206),
            (206, 1, 0, 413),
            (413, 25, 0, 619),
        ] {
            servo.observe(BatchTiming { rows, bytes: rows, held: ms(held), fixed: ms(fixed) });
            assert_eq!((servo.rows(), servo.bytes()), (limit, MAX_BYTES), "{rows} rows in {held} ms");
        }
    }

    #[test]
    fn two_limits_that_hold_alike_move_together() {
        let mut servo = servo();
        let held = Duration::from_millis(100);
        servo.observe(BatchTiming { rows: 1000, bytes: MAX_BYTES, held, fixed: Duration::ZERO });
        assert_eq!((servo.rows(), servo.bytes()), (750, MAX_BYTES / 4 * 3));
        let held = Duration::from_millis(1);
        servo.observe(BatchTiming { rows: 375, bytes: MAX_BYTES / 8 * 3, held, fixed: Duration::ZERO });
        assert_eq!((servo.rows(), servo.bytes()), (750, MAX_BYTES / 4 * 3), "half a batch is too little");
    }

    #[test]
    fn a_slow_commit_or_a_distant_server_starves_nobody() {
        let mut servo = servo();
        let fixed = Duration::from_millis(400);
        let far = Costs { us_per_row: 15.0, us_per_kb: 0.0, fixed, row_bytes: 500 };
        assert_eq!(far.write(&mut servo, &[1.0; 50]), [1000; 50]);
    }

    #[test]
    fn large_rows_shrink_bytes_and_leave_small_rows_their_batches() {
        let mut servo = servo();
        let large = Costs { us_per_row: 0.0, us_per_kb: 40.0, fixed: Duration::ZERO, row_bytes: 1_000_000 };
        large.write(&mut servo, &[1.0; 50]);
        assert_eq!((large.batch(&servo).0, servo.rows()), (1, 1000));
        let small = Costs { us_per_row: 10.0, us_per_kb: 0.0, fixed: Duration::ZERO, row_bytes: 500 };
        assert_eq!(small.write(&mut servo, &[1.0; 20])[19], 1000);
    }

    proptest! {
        /// Whatever a row costs, the size settles where the lock time is near the target or a bound holds.
        #[test]
        fn settles(costs in costs(), start_slow in any::<bool>()) {
            let mut servo = servo();
            if start_slow {
                let held = Duration::from_secs(30);
                servo.observe(BatchTiming { rows: 1000, bytes: 500_000, held, fixed: Duration::ZERO });
            }
            let sizes = costs.write(&mut servo, &[1.0; 80]);
            let last = sizes[79];
            prop_assert!(sizes[70..].iter().all(|&s| s == last), "oscillates: {:?}", &sizes[60..]);
            let (took, budget) = (costs.time(last), costs.budget());
            prop_assert!(costs.is_least(last) || took <= budget.mul_f64(1.26), "{last} rows take {took:?}");
            let larger = costs.time(last + 1);
            prop_assert!(costs.is_most(last) || larger >= budget.mul_f64(0.66), "{last} rows take only {took:?}");
        }

        /// Costs that vary from batch to batch move it about, within bounds: neither starved nor far too large.
        #[test]
        fn noise_does_not_carry_it_away(costs in costs(), noise in prop::collection::vec(0.6f64..1.7, 200)) {
            let mut servo = servo();
            costs.write(&mut servo, &[1.0; 60]);
            for rows in costs.write(&mut servo, &noise) {
                let (took, budget) = (costs.time(rows), costs.budget());
                prop_assert!(costs.is_least(rows) || took <= budget.mul_f64(2.5), "{rows} rows take {took:?}");
                let larger = costs.time(rows + 1);
                prop_assert!(costs.is_most(rows) || larger >= budget.mul_f64(0.3), "{rows} rows take only {took:?}");
            }
        }

        /// One stall, however long, costs a few small batches and no more.
        #[test]
        fn a_stall_is_forgotten(costs in costs(), stall in 1u32..10_000) {
            let mut servo = servo();
            let before = costs.write(&mut servo, &[1.0; 80])[79];
            costs.write(&mut servo, &[f64::from(stall)]);
            let after = costs.write(&mut servo, &[1.0; 40])[39];
            prop_assert!(after * 2 >= before || costs.time(after + 1) >= costs.budget().mul_f64(0.66), "{before} {after}");
        }

        /// No batch is ever larger than both maxima, whatever is reported.
        #[test]
        fn never_beyond_its_maxima(batches in prop::collection::vec((0usize..5000, 0usize..10_000_000, 0u64..100_000, 0u64..100_000), 0..100)) {
            let mut servo = servo();
            for (rows, bytes, held, fixed) in batches {
                let (held, fixed) = (Duration::from_micros(held), Duration::from_micros(fixed));
                servo.observe(BatchTiming { rows, bytes, held, fixed });
                prop_assert!((1..=1000).contains(&servo.rows()));
                prop_assert!((BatchServo::MIN_BYTES..=MAX_BYTES).contains(&servo.bytes()));
            }
        }
    }
}
