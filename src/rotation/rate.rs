//! `--max-rate`: rows a second for a whole process, shared by its workers.
//!
//! A queue of slots: each batch books the time its rows take at the rate, and starts when those booked before it are
//! over. Idle time is not saved up, so there is no burst. Pure: `now` is handed in.

use std::time::Duration;

/// A number of rows a second, at least one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(f64);

impl Rate {
    /// `None` for less than one row a second, or none at all.
    pub fn new(rows_per_second: f64) -> Option<Rate> {
        (rows_per_second.is_finite() && rows_per_second >= 1.0).then_some(Rate(rows_per_second))
    }

    /// Rows a second.
    pub fn rows_per_second(self) -> f64 {
        self.0
    }

    /// Batches no larger than a quarter of a second's rows keep the flow even.
    pub fn batch_rows(self) -> usize {
        ((self.0 / 4.0) as usize).max(1)
    }

    fn time_for(self, rows: usize) -> Duration {
        Duration::from_secs_f64(rows as f64 / self.0)
    }
}

/// When the next batch may start.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    rate: Rate,
    free_at: Duration,
}

impl Limiter {
    /// Nothing booked.
    pub fn new(rate: Rate) -> Limiter {
        Limiter { rate, free_at: Duration::ZERO }
    }

    /// The rate.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Books a batch and says how long to wait before it.
    pub fn book(&mut self, now: Duration, rows: usize) -> Duration {
        let start = self.free_at.max(now);
        self.free_at = start + self.rate.time_for(rows);
        start - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn less_than_one_row_a_second_is_no_rate() {
        assert_eq!(Rate::new(0.0), None);
        assert_eq!(Rate::new(f64::NAN), None);
        assert_eq!(Rate::new(f64::INFINITY), None);
        assert_eq!(Rate::new(1.0), Some(Rate(1.0)));
        assert_eq!(Rate::new(2.5).map(Rate::rows_per_second), Some(2.5));
        assert_eq!(Rate::new(3.0).map(Rate::batch_rows), Some(1));
        assert_eq!(Rate::new(400.0).map(Rate::batch_rows), Some(100));
    }

    #[test]
    fn a_batch_books_the_time_that_its_rows_take_and_idle_time_is_lost() {
        let ms = Duration::from_millis;
        let mut limiter = Limiter::new(Rate::new(100.0).unwrap());
        assert_eq!(limiter.rate(), Rate(100.0));
        for (now, rows, wait) in
            [(1000, 50, 0), (1200, 50, 300), (2000, 0, 0), (5000, 100, 0), (5000, 1, 1000)]
        {
            assert_eq!(limiter.book(ms(now), rows), ms(wait), "{rows} rows at {now} ms");
        }
    }

    proptest! {
        /// Over any stretch, whoever asks and however irregularly, no more rows start than the rate allows and one batch.
        #[test]
        fn never_faster_than_the_rate(
            rate in 1.0f64..100_000.0,
            batches in prop::collection::vec((0u64..500, 1usize..2000), 1..100),
        ) {
            let mut limiter = Limiter::new(Rate::new(rate).unwrap());
            let (mut now, mut starts) = (Duration::ZERO, Vec::new());
            for (idle_ms, rows) in batches {
                now += Duration::from_millis(idle_ms);
                starts.push((now + limiter.book(now, rows), rows));
            }
            for (i, (from, _)) in starts.iter().enumerate() {
                let mut rows = 0;
                for (at, more) in &starts[i..] {
                    let allowed = (*at - *from).as_secs_f64() * rate;
                    prop_assert!(rows as f64 <= allowed * 1.000_001 + 0.01, "{rows} rows where {allowed} may start");
                    rows += more;
                }
            }
        }
    }
}
