//! How fast a rotation was, and why it was not faster, from the samples that its processes recorded.

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::StoreError;
use crate::store::ledger::sample::{self, Sample};

/// In numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Throughput {
    /// Rows a second while rows moved, over all samples.
    pub mean_rate: f64,
    /// The fastest sample.
    pub peak_rate: f64,
    /// The longest that a batch held its row locks.
    pub longest_lock_seconds: f64,
    /// Things that were tried again.
    pub retries: i64,
    /// How long each reason slowed the work down or held it up, the longest first.
    pub held: Vec<Held>,
    /// The samples, the oldest first; none of rotations that an older rekey moved.
    pub samples: Vec<Sample>,
}

/// A reason, and how long it held.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// The reason.
    pub reason: String,
    /// Seconds.
    pub seconds: f64,
}

impl Throughput {
    /// Of a rotation.
    pub async fn read(conn: &mut PgConnection, rotation: Uuid) -> Result<Throughput, StoreError> {
        match sample::are_readable(conn).await? {
            true => Ok(Throughput::of(sample::list(conn, rotation).await?)),
            false => Ok(Throughput::default()),
        }
    }

    fn of(samples: Vec<Sample>) -> Throughput {
        let mut throughput = Throughput::default();
        let (mut rows, mut seconds) = (0.0, 0.0);
        for sample in &samples {
            if sample.rate > 0.0 {
                rows += sample.rate * sample.seconds;
                seconds += sample.seconds;
            }
            throughput.peak_rate = throughput.peak_rate.max(sample.rate.round());
            throughput.longest_lock_seconds = throughput.longest_lock_seconds.max(sample.lock_seconds);
            throughput.retries += sample.retries;
            let Some(reason) = &sample.reason else { continue };
            match throughput.held.iter_mut().find(|held| held.reason == *reason) {
                Some(held) => held.seconds += sample.seconds,
                None => throughput.held.push(Held { reason: reason.clone(), seconds: sample.seconds }),
            }
        }
        if seconds > 0.0 {
            throughput.mean_rate = (rows / seconds).round();
        }
        throughput.held.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        throughput.samples = samples;
        throughput
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::Direction;

    fn sample(seconds: f64, rate: f64, reason: Option<&str>) -> Sample {
        Sample {
            at: String::new(),
            direction: Direction::Forward,
            after_seconds: 0.0,
            seconds,
            rows: 0,
            rate,
            reason: reason.map(str::to_owned),
            waits: rate == 0.0,
            lock_seconds: rate / 1000.0,
            retries: 1,
        }
    }

    #[test]
    fn standing_still_is_no_rate_and_has_its_reason() {
        let lag = Some("replication lag");
        let samples = vec![
            sample(5.0, 100.0, None),
            sample(60.0, 0.0, lag),
            sample(10.0, 40.0, Some("max rate")),
            sample(5.0, 0.0, lag),
        ];
        let throughput = Throughput::of(samples);
        assert_eq!((throughput.mean_rate, throughput.peak_rate, throughput.retries), (60.0, 100.0, 4));
        assert!((throughput.longest_lock_seconds - 0.1).abs() < 1e-9);
        let held: Vec<_> = throughput.held.iter().map(|held| (held.reason.as_str(), held.seconds)).collect();
        assert_eq!(held, [("replication lag", 65.0), ("max rate", 10.0)]);
    }
}
