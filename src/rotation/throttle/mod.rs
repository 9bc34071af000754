//! Being a good guest: what is known of the database is turned into one pace and one reason.
//!
//! Pure. `store::signals` reads the [`Signals`], about once a second; `engine::throttle` asks [`Throttle::decide`] and
//! the workers obey between batches. Every limit can be switched off; a signal that applies and cannot be read makes
//! everything wait, unless the operator lets that pass.

mod limits;
mod replicas;
mod signals;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::pressure::{Feedback, Level, Pace};
use super::words::words;
use replicas::Known;

pub use limits::Limits;
pub use signals::{Archive, Replica, Signals, Slot};

/// Requested checkpoints are counted over this long; a change of pace needs a third of it to show.
const CHECKPOINT_SPAN: Duration = Duration::from_secs(15);

words! {
    /// Why work is slow or waits, the weightiest first. The word of each is public: it begins the text in `status`, and is
    /// a metric's label.
    Reason {
        /// The operator paused the rotation.
        Paused = "paused by the operator",
        /// It is not the hour.
        Window = "outside the window",
        /// A signal that applies could not be read.
        Unreadable = "signal unreadable",
        /// A replica that was there is not.
        ReplicaGone = "replica vanished",
        /// A replica is behind.
        ReplicationLag = "replication lag",
        /// A slot keeps WAL.
        SlotWal = "slot retains WAL",
        /// A slot holds back the horizon.
        SlotXmin = "slot holds back xmin",
        /// WAL waits to be archived.
        WalArchive = "WAL archive backlog",
        /// Sessions wait for rekey's locks.
        Blocked = "sessions blocked by rekey",
        /// WAL forces checkpoints.
        Checkpoints = "checkpoint pressure",
        /// `--max-rate`.
        MaxRate = "max rate",
        /// A session holds a row.
        RowHeld = "row held",
        /// A prepared transaction holds a row, or the table.
        PreparedTransaction = "prepared transaction",
        /// A session holds a lock on the table.
        TableLocked = "table locked",
        /// Another process holds what is left.
        Lease = "waiting for the lease of",
    }
}

/// The reason, and what was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The reason.
    pub reason: Reason,
    /// What was measured, against which limit.
    pub detail: String,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.as_str() {
            "" => f.write_str(self.reason.as_str()),
            detail => write!(f, "{}: {detail}", self.reason.as_str()),
        }
    }
}

/// What to do until the next look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How fast to go.
    pub pace: Pace,
    /// Why not faster.
    pub why: Option<Why>,
}

impl Verdict {
    /// Wait, for this reason.
    pub fn wait(reason: Reason, detail: impl Into<String>) -> Verdict {
        Verdict { pace: Pace::Wait, why: Some(Why { reason, detail: detail.into() }) }
    }

    /// Whether everything stands still.
    pub fn waits(&self) -> bool {
        self.pace == Pace::Wait
    }
}

/// Remembers between looks: which replicas there were, what is being waited for, how long pauses are.
#[derive(Debug)]
pub struct Throttle {
    limits: Limits,
    known: Known,
    lag: Level,
    slot_wal: Level,
    slot_xmin: Level,
    archive: Level,
    archived_up_to: Option<u64>,
    blocked: Feedback,
    checkpoints: Feedback,
    requested: VecDeque<(Duration, i64)>,
    timeline: Option<u32>,
}

impl Throttle {
    /// Nothing seen yet.
    pub fn new(limits: Limits) -> Throttle {
        Throttle {
            limits,
            known: Known::default(),
            lag: Level::default(),
            slot_wal: Level::default(),
            slot_xmin: Level::default(),
            archive: Level::default(),
            archived_up_to: None,
            blocked: Feedback::default(),
            checkpoints: Feedback::default(),
            requested: VecDeque::new(),
            timeline: None,
        }
    }

    /// Takes in one look at the database. `now` is time since any fixed moment.
    pub fn decide(&mut self, now: Duration, signals: &Signals) -> Verdict {
        let mut signals = signals.clone();
        signals.replicas.retain(|replica| self.limits.watches(replica));
        let signals = &signals;
        if self.timeline != Some(signals.timeline) {
            // A promotion: this is another server, with replicas, archive and counters of its own.
            *self = Throttle { timeline: Some(signals.timeline), ..Throttle::new(self.limits.clone()) };
        }
        let found = [
            self.window(signals),
            self.unreadable(signals),
            self.replicas(now, signals),
            self.slots(now, signals),
            self.wal_archive(now, signals),
            self.blocked(now, signals),
            self.checkpoints(now, signals),
        ];
        let mut verdict = Verdict::default();
        for (pace, reason, detail) in found.into_iter().flatten() {
            if pace > verdict.pace {
                let ending = if pace == Pace::Wait { "waiting" } else { "slowed down" };
                let detail = format!("{detail}; {ending}");
                verdict = Verdict { pace, why: Some(Why { reason, detail }) };
            }
        }
        verdict
    }

    fn window(&self, signals: &Signals) -> Option<(Pace, Reason, String)> {
        let window = self.limits.window.as_ref().filter(|window| !window.is_open(signals.clock))?;
        let opens =
            window.opens_at(signals.clock).map_or_else(String::new, |at| format!(", opens at {at:.0}"));
        Some((Pace::Wait, Reason::Window, format!("{window}{opens}")))
    }

    fn unreadable(&self, signals: &Signals) -> Option<(Pace, Reason, String)> {
        let what = signals.unreadable.as_ref().filter(|_| !self.limits.allow_unreadable)?;
        self.limits.watches_replicas().then(|| (Pace::Wait, Reason::Unreadable, what.clone()))
    }

    fn replicas(&mut self, now: Duration, signals: &Signals) -> Option<(Pace, Reason, String)> {
        if !self.limits.watches_replicas() {
            return None;
        }
        if let Some((name, since)) = self.known.missing(now, signals) {
            let detail = format!(
                "{name} stopped streaming {} s ago; if it was removed permanently, stop this process and \
                 start it again",
                (now - since).as_secs()
            );
            return Some((Pace::Wait, Reason::ReplicaGone, detail));
        }
        let worst =
            signals.replicas.iter().map(|r| (self.limits.lag(r), r)).max_by(|a, b| a.0.total_cmp(&b.0));
        let pace = self.lag.pace(now, worst.as_ref().map_or(0.0, |(pressure, _)| *pressure));
        let (_, replica) = worst?;
        Some((pace, Reason::ReplicationLag, self.limits.tell_lag(replica)))
    }

    fn slots(&mut self, now: Duration, signals: &Signals) -> Option<(Pace, Reason, String)> {
        let wal = signals.slots.iter().max_by_key(|s| s.retained_bytes);
        let xmin = signals.slots.iter().max_by_key(|s| s.xmin_age);
        let mut found = (Pace::Go, Reason::SlotWal, String::new());
        if let Some(limit) = self.limits.slot_bytes {
            let retained = wal.map_or(0, |s| s.retained_bytes);
            let pace = self.slot_wal.pace(now, share(retained, limit));
            if let Some(slot) = wal.filter(|_| pace > found.0) {
                let read = if slot.active { "" } else { ", which has no consumer," };
                let detail =
                    format!("{}{read} retains {}; the limit is {}", slot.name, mib(retained), mib(limit));
                found = (pace, Reason::SlotWal, detail);
            }
        }
        if let Some(limit) = self.limits.slot_xmin_age {
            let age = xmin.map_or(0, |s| s.xmin_age);
            let pace = self.slot_xmin.pace(now, share(age, limit));
            if let Some(slot) = xmin.filter(|_| pace > found.0) {
                let detail =
                    format!("the xmin of {} is {age} transactions old; the limit is {limit}", slot.name);
                found = (pace, Reason::SlotXmin, detail);
            }
        }
        Some(found)
    }

    fn wal_archive(&mut self, now: Duration, signals: &Signals) -> Option<(Pace, Reason, String)> {
        let limit = self.limits.archive_bytes?;
        let archive = signals.archive.as_ref()?;
        let (waiting, bytes) = signals.archive_backlog(self.archived_up_to);
        self.archived_up_to = archive.archived_up_to.or(self.archived_up_to).or(Some(signals.segment));
        let mut pressure = share(bytes, limit);
        if archive.failing && waiting > 0 {
            // A failing archive does not recover by waiting: go slowly until it is fixed.
            pressure = pressure.max(FAILING_ARCHIVE);
        }
        let pace = self.archive.pace(now, pressure);
        let failing = if archive.failing { " and archive_command fails" } else { "" };
        let detail =
            format!("{waiting} segments ({}) wait{failing}; the limit is {}", mib(bytes), mib(limit));
        Some((pace, Reason::WalArchive, detail))
    }

    fn blocked(&mut self, now: Duration, signals: &Signals) -> Option<(Pace, Reason, String)> {
        let limit = self.limits.blocked_sessions?;
        let pace = self.blocked.pace(now, signals.blocked > limit, Duration::ZERO);
        let detail = format!("{} sessions wait for rekey's locks; the limit is {limit}", signals.blocked);
        Some((pace, Reason::Blocked, detail))
    }

    fn checkpoints(&mut self, now: Duration, signals: &Signals) -> Option<(Pace, Reason, String)> {
        let limit = self.limits.checkpoints_a_minute?;
        if self.requested.back().is_some_and(|(_, before)| signals.checkpoints_requested < *before) {
            // The statistics were reset.
            self.requested.clear();
        }
        self.requested.push_back((now, signals.checkpoints_requested));
        while self.requested.front().is_some_and(|(at, _)| now.saturating_sub(*at) > CHECKPOINT_SPAN) {
            self.requested.pop_front();
        }
        let first = self.requested.front().map_or(0, |(_, n)| *n);
        let a_minute = (signals.checkpoints_requested - first) as f64 * 60.0 / CHECKPOINT_SPAN.as_secs_f64();
        let too_many = a_minute > f64::from(limit);
        let pace = self.checkpoints.pace(now, too_many, CHECKPOINT_SPAN / 3);
        let detail = format!(
            "WAL forced {a_minute:.0} PostgreSQL checkpoints per minute; the limit is \
            {limit}"
        );
        Some((pace, Reason::Checkpoints, detail))
    }
}

/// The pressure of an archive that fails, however little waits for it: half the longest pause.
const FAILING_ARCHIVE: f64 = 0.75;

fn share(value: u64, limit: u64) -> f64 {
    value as f64 / limit.max(1) as f64
}

/// Bytes as people read them.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
