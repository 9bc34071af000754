//! The operator's limits for the load on the database. `None` disables a limit.

use std::time::Duration;

use super::signals::Replica;
use super::{mib, share};
use crate::rotation::{Rate, Window};

/// Thresholds. From half of each on work slows down, at it work waits.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// WAL a standby may be behind, in bytes.
    pub replica_bytes: Option<u64>,
    /// Time a standby may be behind.
    pub replica_delay: Option<Duration>,
    /// Standbys that are not waited for, by their application_name: one that applies late on purpose, say.
    pub ignored_replicas: Vec<String>,
    /// WAL a replication slot may retain, in bytes.
    pub slot_bytes: Option<u64>,
    /// Age of a slot's xmin, in transactions.
    pub slot_xmin_age: Option<u64>,
    /// WAL that may wait to be archived, in bytes.
    pub archive_bytes: Option<u64>,
    /// Sessions that may wait for our locks.
    pub blocked_sessions: Option<u32>,
    /// Checkpoints that WAL may force, a minute.
    pub checkpoints_a_minute: Option<u32>,
    /// The hours for work.
    pub window: Option<Window>,
    /// Rows a second of this process.
    pub max_rate: Option<Rate>,
    /// A signal that cannot be read is done without.
    pub allow_unreadable: bool,
}

impl Limits {
    /// Whether lag matters at all.
    pub fn watches_replicas(&self) -> bool {
        self.replica_bytes.is_some() || self.replica_delay.is_some()
    }

    /// Whether a replica is waited for.
    pub fn watches(&self, replica: &Replica) -> bool {
        !self.ignored_replicas.contains(&replica.name)
    }

    /// A replica's lag, 1 being the limit.
    pub fn lag(&self, replica: &Replica) -> f64 {
        let bytes = self.replica_bytes.map_or(0.0, |limit| share(replica.behind_bytes, limit));
        let delay = self
            .replica_delay
            .map_or(0.0, |limit| replica.behind.as_secs_f64() / limit.as_secs_f64().max(0.001));
        // The delay of the last thing replayed says nothing once everything is.
        if replica.behind_bytes == 0 { 0.0 } else { bytes.max(delay) }
    }

    /// The same in words.
    pub fn tell_lag(&self, replica: &Replica) -> String {
        let bytes = self.replica_bytes.map_or_else(|| "off".to_owned(), mib);
        let delay =
            self.replica_delay.map_or_else(|| "off".to_owned(), |d| format!("{:.0} s", d.as_secs_f64()));
        format!(
            "{} lags by {} and {:.1} s; the limits are {bytes} and {delay}",
            replica.name,
            mib(replica.behind_bytes),
            replica.behind.as_secs_f64()
        )
    }
}
