//! How many rows one reading statement asks for: a few megabytes, and about a second's worth.
//!
//! Learnt from the statements before, so that large rows over a slow network are not cut off by the server. Pure.

use std::time::Duration;

/// Steers the rows of a statement.
#[derive(Clone, Copy, Debug)]
pub struct ReadSize {
    rows: i64,
}

impl Default for ReadSize {
    /// Nothing is known yet.
    fn default() -> ReadSize {
        ReadSize { rows: ReadSize::FIRST }
    }
}

impl ReadSize {
    /// The first statement's rows: few, because nothing is known yet.
    const FIRST: i64 = 500;
    const LEAST: i64 = 16;
    const MOST: i64 = 10_000;
    /// Bytes of credential in one statement.
    const BYTES: f64 = 4e6;
    const TIME: Duration = Duration::from_secs(1);

    /// Rows for the next statement, at most.
    pub fn rows(self) -> i64 {
        self.rows
    }

    /// Takes in one statement.
    pub fn observe(&mut self, rows: i64, bytes: usize, took: Duration) {
        if rows == 0 {
            return;
        }
        let by_bytes = ReadSize::BYTES / (bytes.max(1) as f64 / rows as f64);
        let by_time = rows as f64 * ReadSize::TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
        let wanted = by_bytes.min(by_time).min(4.0 * self.rows as f64) as i64;
        self.rows = wanted.clamp(ReadSize::LEAST, ReadSize::MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_grow_until_their_bytes_or_their_time_are_enough() {
        let ms = Duration::from_millis;
        let mut size = ReadSize::default();
        let mut grown = Vec::new();
        for _ in 0..4 {
            size.observe(size.rows(), size.rows() as usize * 500, ms(10));
            grown.push(size.rows());
        }
        assert_eq!(grown, [2000, 8000, 8000, 8000], "4 MB of 500 B");
        size.observe(8000, 8000 * 7000, ms(800));
        assert_eq!(size.rows(), 571);
        size.observe(571, 571 * 7000, ms(4000));
        assert_eq!(size.rows(), 142);
        size.observe(142, 142 * 8_000_000, ms(60_000));
        assert_eq!(size.rows(), 16);
        size.observe(0, 0, ms(1));
        assert_eq!(size.rows(), 16);
        for _ in 0..9 {
            size.observe(size.rows(), 0, ms(1));
        }
        assert_eq!(size.rows(), 10_000);
    }
}
