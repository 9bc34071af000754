//! One look at the database.

use std::time::Duration;

use jiff::Timestamp;

/// What was read, all within a moment.
#[derive(Clone, Debug)]
pub struct Signals {
    /// The database's clock.
    pub clock: Timestamp,
    /// The server's timeline; another one means another server.
    pub timeline: u32,
    /// Number of the WAL segment being written.
    pub segment: u64,
    /// Size of one, in bytes.
    pub segment_bytes: u64,
    /// Standbys, and others that stream WAL.
    pub replicas: Vec<Replica>,
    /// Replication slots.
    pub slots: Vec<Slot>,
    /// Where WAL is archived.
    pub archive: Option<Archive>,
    /// Sessions that wait for rekey's locks.
    pub blocked: u32,
    /// Requested checkpoints since the statistics were reset.
    pub checkpoints_requested: i64,
    /// A signal that applies and may not be seen, with its remedy.
    pub unreadable: Option<String>,
}

impl Signals {
    /// Segments that are full and wait to be archived, and their bytes. Where nothing was ever archived, what was
    /// there before `from` is not of our making.
    pub fn archive_backlog(&self, from: Option<u64>) -> (u64, u64) {
        let Some(archive) = &self.archive else { return (0, 0) };
        let from = archive.archived_up_to.or(from).unwrap_or(self.segment);
        let waiting = self.segment.saturating_sub(from).saturating_sub(1);
        (waiting, waiting * self.segment_bytes)
    }
}

/// Something that streams WAL.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its application_name; several may share one.
    pub name: String,
    /// WAL it has not replayed, in bytes.
    pub behind_bytes: u64,
    /// How long ago what it replays was written.
    pub behind: Duration,
}

/// A replication slot.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// WAL kept for it, in bytes.
    pub retained_bytes: u64,
    /// Age of its xmin in transactions; 0 where it has none.
    pub xmin_age: u64,
    /// It has a consumer.
    pub active: bool,
}

/// The WAL archive.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Number of the last segment that was archived.
    pub archived_up_to: Option<u64>,
    /// The last attempt failed.
    pub failing: bool,
}
