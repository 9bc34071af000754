//! What `run`, `rollback` and `quarantine retry` share: work settings, settings from the table's statistics, and
//! driving the engine. The loop itself is [`crate::engine::execute`].

use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::PgConnection;
use tokio::sync::watch;
use uuid::Uuid;

use super::Session;
use super::interrupt::stopped;
use super::key_pair::KeyPair;
use super::preflight::unless_changed;
use crate::crypto::{EncryptionKey, Rewrapper, TagKey};
use crate::engine::{End, Job, Settings, Stop, execute};
use crate::error::{Error, Exit, Result};
use crate::rotation::throttle::Limits;
use crate::rotation::{Addressing, ChunkSize, Deadline, Direction, Progress, TableFacts};
use crate::store::ledger::Rotation;
use crate::store::ledger::pass::Walk;
use crate::store::ledger::rotation;
use crate::store::preflight::{Allowed, Kind};
use crate::store::{Connector, Purpose};

/// Work settings.
#[derive(Clone)]
pub struct WorkRequest {
    /// Workers in this process.
    pub workers: u16,
    /// Rows a worker leases at a time; by rows per page and bytes where it is `None`.
    pub chunk_rows: Option<u32>,
    /// Maximum rows per transaction.
    pub batch_rows: u32,
    /// How long a batch should hold its row locks.
    pub lock_target: Duration,
    /// The end of the window, where one is given.
    pub deadline: Option<Deadline>,
    /// Maximum sweeps for rows that writers keep saving under the wrong key.
    pub max_sweeps: i32,
    /// Findings that the operator allows.
    pub allowed: Allowed,
    /// What the database may be made to bear, before what is allowed is taken off.
    pub limits: Limits,
}

impl WorkRequest {
    /// The limits for work in one direction. A signal whose finding is allowed is not watched.
    pub fn limits(&self, direction: Direction) -> Limits {
        let mut limits = self.limits.clone();
        if self.allowed.includes(Kind::Slots) {
            limits.slot_bytes = None;
            limits.slot_xmin_age = None;
        }
        if self.allowed.includes(Kind::WalArchive) {
            limits.archive_bytes = None;
        }
        // Preflight lets a rollback begin all the same: as little as possible shall stop it.
        limits.allow_unreadable = self.allowed.includes(Kind::Monitoring) || direction == Direction::Backward;
        limits
    }

    /// Settings for this table, from the request and the table's statistics.
    pub fn settings(&self, session: &Session, facts: &TableFacts) -> Settings {
        let workers = usize::from(self.workers);
        // What a row costs a worker: its ciphertext and what is kept beside it.
        let mut chunk = ChunkSize::choose(workers, facts.rows_per_page(), facts.credential_bytes);
        if let Some(rows) = self.chunk_rows {
            chunk.rows = rows;
        }
        let addressing = if facts.prefers_blocks() { Addressing::Blocks } else { Addressing::Keys };
        Settings {
            workers,
            chunk,
            batch_rows: self.batch_rows,
            lease_ttl: session.lease_ttl,
            lock_target: self.lock_target,
            max_sweeps: self.max_sweeps,
            rows_per_page: facts.rows_per_page(),
            walk: Walk { addressing, chunk_rows: i64::from(chunk.rows), estimated_rows: facts.rows as i64 },
        }
    }

    /// Stores the deadline, where one is given, and announces what it does to the one that held before: it is the
    /// rotation's, and so every process's.
    pub async fn store_deadline(
        &self,
        session: &Session,
        conn: &mut PgConnection,
        rotation: Uuid,
    ) -> Result<()> {
        let Some(deadline) = self.deadline else { return Ok(()) };
        match rotation::set_deadline(conn, rotation, deadline, &session.actor).await? {
            Some(rotation::Moved { was: Some(was), now, earlier: true }) => {
                tracing::warn!(%was, %now, "The deadline is now earlier for every process of this rotation");
            }
            Some(rotation::Moved { was, now, .. }) => tracing::info!(was, %now, "The deadline was set"),
            None => {}
        }
        Ok(())
    }

    /// Refuses a deadline before which the window does not open: no row could be moved until then. A standing one that
    /// moves nothing is not asked.
    pub async fn refuse_early_deadline(
        &self,
        conn: &mut PgConnection,
        active: Option<&Rotation>,
    ) -> Result<()> {
        let (Some(deadline), Some(window)) = (self.deadline, &self.limits.window) else { return Ok(()) };
        if deadline.standing && active.is_some_and(|r| r.deadline.is_some()) {
            return Ok(());
        }
        let now = rotation::clock(conn).await?;
        let ends = now + rotation::left_until(conn, deadline.at).await?.as_secs_f64();
        let moment = |seconds: f64| Timestamp::from_second(seconds as i64).unwrap_or(Timestamp::MAX);
        let (now, ends) = (moment(now), moment(ends));
        match window.opens_at(now) {
            Some(opens) if !window.is_open(now) && ends <= opens => Err(Error::new(
                Exit::Usage,
                format!("the deadline {ends} is before {opens}, when window {window} opens"),
            )
            .hint("Pass a later `--deadline` or another `--window`")),
            _ => Ok(()),
        }
    }
}

/// The rewrapper for one direction of a rotation.
pub fn rewrapper(
    keys: &KeyPair,
    rotation: Uuid,
    direction: Direction,
    also: Option<&EncryptionKey>,
) -> Result<Rewrapper> {
    let tags = TagKey::derive(&keys.new.key, rotation.as_bytes());
    let (source, target) = match direction {
        Direction::Forward => (&keys.old.key, &keys.new.key),
        Direction::Backward => (&keys.new.key, &keys.old.key),
    };
    Ok(Rewrapper::new(source, target, tags, also)?)
}

/// A connection to read how it ended. After a signal there is no time to wait for a database that is away.
pub async fn connect_to_tell(connector: &Connector, end: &End) -> Result<PgConnection> {
    if *end != End::Signalled {
        return Ok(connector.connect(Purpose::Control).await?);
    }
    let soon = tokio::time::timeout(Duration::from_secs(2), connector.try_connect(Purpose::Control));
    soon.await.ok().and_then(std::result::Result::ok).ok_or_else(stopped)
}

/// Runs the engine; returns how it ended and how long it took.
pub async fn drive(
    session: &Session,
    rotation: &Rotation,
    direction: Direction,
    rewrapper: Rewrapper,
    (settings, limits): (Settings, Limits),
    stop: Stop,
) -> Result<(End, Duration)> {
    let job = Job {
        connector: session.connector()?.probed(),
        rotation: rotation.id,
        direction,
        rewrapper,
        actor: session.actor.clone(),
        settings,
        limits,
        process: session.process.clone(),
        metrics: session.metrics.clone(),
    };
    let (sender, receiver) = watch::channel(Progress::default());
    let _shown = session.follow(receiver);
    let started = Instant::now();
    let end = unless_changed(&session.connector()?.probed(), execute(job, stop, sender).await).await?;
    Ok((end, started.elapsed()))
}
