//! What `run`, `rollback` and `quarantine retry` share: settings from the table's statistics, and driving the engine.

use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::watch;

use super::args::WorkArgs;
use super::context::{Context, process_name};
use super::key_pair::KeyPair;
use super::signals;
use crate::crypto::{EncryptionKey, Rewrapper, TagKey};
use crate::engine::{End, Job, Settings, Stop, execute};
use crate::error::Result;
use crate::rotation::throttle::Limits;
use crate::rotation::{ChunkSize, Direction, Progress, TableFacts};
use crate::store::ledger::Rotation;
use crate::store::ledger::pass::{Addressing, Walk};
use crate::store::{Connector, Purpose};
use crate::telemetry::progress;

/// How often a progress line is logged where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(3);

/// Settings for this table, from flags and statistics.
pub fn settings(args: &WorkArgs, context: &Context, facts: &TableFacts) -> Settings {
    let workers = usize::from(args.workers);
    // What a row costs a worker: its ciphertext and what we keep beside it.
    let mut chunk = ChunkSize::choose(workers, facts.rows_per_page(), facts.credential_bytes);
    if let Some(rows) = args.chunk_rows {
        chunk.rows = rows;
    }
    let addressing = if facts.prefers_blocks() { Addressing::Blocks } else { Addressing::Keys };
    Settings {
        workers,
        chunk,
        batch_rows: args.batch_rows,
        lease_ttl: context.global.lease_ttl,
        lock_target: args.lock_target,
        max_sweeps: args.max_sweeps,
        rows_per_page: facts.rows_per_page(),
        walk: Walk { addressing, chunk_rows: i64::from(chunk.rows), estimated_rows: facts.rows as i64 },
    }
}

/// The rewrapper for one direction of a rotation.
pub fn rewrapper(
    keys: &KeyPair,
    rotation: uuid::Uuid,
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

/// A connection for the summary. After a signal there is no time to wait for a database that is away.
pub async fn connect_to_tell(connector: &Connector, end: &End) -> Result<PgConnection> {
    if *end != End::Signalled {
        return Ok(connector.connect(Purpose::Control).await?);
    }
    let soon = tokio::time::timeout(Duration::from_secs(2), connector.try_connect(Purpose::Control));
    soon.await.ok().and_then(std::result::Result::ok).ok_or_else(signals::stopped)
}

/// Runs the engine with progress shown; returns how it ended and how long it took.
pub async fn drive(
    context: &Context,
    rotation: &Rotation,
    direction: Direction,
    rewrapper: Rewrapper,
    (settings, limits): (Settings, Limits),
    stop: Stop,
) -> Result<(End, Duration)> {
    let job = Job {
        connector: context.connector()?.probed(),
        rotation: rotation.id,
        direction,
        rewrapper,
        actor: context.actor.clone(),
        settings,
        limits,
        process: process_name(),
        metrics: context.metrics.clone(),
    };
    let (sender, receiver) = watch::channel(Progress::default());
    context.metrics.follow(receiver.clone());
    let _shown = progress::show(context.global.log_format, PROGRESS_EVERY, receiver);
    let started = Instant::now();
    let end = execute(job, stop, sender).await?;
    Ok((end, started.elapsed()))
}
