//! Steers the rows of a batch so that its row locks are held for about a target time.
//!
//! A pure function of what was measured: the size moves a part of the way to what the last batch suggests, never
//! more than double or half at once, and stays put within a dead band, so it neither oscillates nor starves.

use std::time::Duration;

/// Batch size, in rows, steered towards a lock-hold time.
#[derive(Clone, Copy, Debug)]
pub struct BatchServo {
    rows: f64,
    max: f64,
    target: Duration,
}

impl BatchServo {
    /// The fewest rows a batch is steered to.
    pub const MIN_ROWS: f64 = 16.0;

    /// Starts at `max_rows`, which is never exceeded.
    pub fn new(max_rows: u32, target: Duration) -> Self {
        let max = f64::from(max_rows.max(1));
        BatchServo { rows: max, max, target }
    }

    /// Rows for the next batch.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Takes in one batch: how many rows it held, and for how long it held their locks.
    pub fn observe(&mut self, rows: usize, held: Duration) {
        if rows == 0 {
            return;
        }
        let ratio = self.target.as_secs_f64() / held.as_secs_f64().max(1e-6);
        if (0.8..=1.5).contains(&ratio) {
            return;
        }
        // A short batch says little about a long one: trust growth only from batches near the current size.
        if ratio > 1.0 && (rows as f64) < self.rows * 0.5 {
            return;
        }
        let wanted = rows as f64 * ratio;
        let step = (self.rows + (wanted - self.rows) * 0.5).clamp(self.rows * 0.5, self.rows * 2.0);
        self.rows = step.clamp(Self::MIN_ROWS.min(self.max), self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TARGET: Duration = Duration::from_millis(50);

    #[test]
    fn a_fast_database_is_left_alone() {
        let mut servo = BatchServo::new(1000, TARGET);
        servo.observe(1000, Duration::from_millis(10));
        assert_eq!(servo.rows(), 1000);
    }

    proptest! {
        /// Whatever the cost of a row, the servo settles where the lock time is near the target or a bound holds.
        #[test]
        fn settles(us_per_row in 1u64..20_000, start_slow in any::<bool>()) {
            let mut servo = BatchServo::new(1000, TARGET);
            if start_slow {
                servo.observe(1000, Duration::from_secs(30));
            }
            let mut sizes = Vec::new();
            for _ in 0..60 {
                let rows = servo.rows();
                servo.observe(rows, Duration::from_micros(us_per_row * rows as u64));
                sizes.push(servo.rows());
            }
            let last = *sizes.last().unwrap();
            prop_assert!(sizes[50..].iter().all(|&s| s == last), "oscillates: {:?}", &sizes[50..]);
            prop_assert!((16..=1000).contains(&last));
            let held = us_per_row * last as u64;
            prop_assert!(last == 16 || held <= 63_000, "{last} rows hold {held} µs");
            prop_assert!(last == 1000 || held >= 30_000 || last == 16, "{last} rows hold only {held} µs");
        }
    }
}
