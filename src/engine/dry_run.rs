//! Reads, decrypts, re-encrypts and re-opens every row, and writes nothing at all: it works on a hot standby.
//!
//! Key ranges only, carved from a frontier in memory; every statement is short and read-only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use sqlx::PgConnection;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::fault::Fault;
use super::row::{Recrypt, Rewrapped, read_whole};
use super::{Settings, Stop};
use crate::crypto::Rewrapper;
use crate::error::{Error, Exit};
use crate::rotation::{Activity, Addressing, Counted, Counters, Extent, Progress, QuarantineReason};
use crate::store::ledger::quarantine::BadRow;
use crate::store::rows::{MAX_ROW_BYTES, READ_ROWS, Stretch, next_key};
use crate::store::{Backend, Connector, Purpose, connect, counting};

/// What a dry run found. Rows; nothing was written.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DryRun {
    /// Rows seen.
    pub rows: i64,
    /// Rows that opened with the old key and re-opened with the new one.
    pub would_re_encrypt: i64,
    /// Rows on the new key already.
    pub already_on_key: i64,
    /// Rows without a credential.
    pub null: i64,
    /// Rows that open with neither key.
    pub unreadable: i64,
    /// How many by reason.
    pub unreadable_by_reason: BTreeMap<QuarantineReason, i64>,
    /// The first of them.
    pub unreadable_ids: Vec<Uuid>,
    /// Seconds it took.
    pub seconds: f64,
    /// The run was stopped by a signal before it had seen every row.
    pub stopped: bool,
}

/// Ids listed at most.
const LISTED: usize = 100;

struct Frontier {
    after: Option<Uuid>,
    known: Extent,
}

/// Tries every row.
pub async fn dry_run(
    connector: Connector,
    rewrapper: Rewrapper,
    settings: Settings,
    stop: Stop,
    progress: watch::Sender<Progress>,
) -> Result<DryRun, Error> {
    let started = Instant::now();
    let (connector, rewrapper) = (Arc::new(connector), Arc::new(rewrapper));
    let known = Extent { estimated: settings.walk.estimated_rows, ..Extent::default() };
    let frontier = Arc::new(Mutex::new(Frontier { after: None, known }));
    let found = Arc::new(Mutex::new(DryRun::default()));
    let progress = Arc::new(progress);
    let mut workers = JoinSet::new();
    for _ in 0..settings.workers {
        let (connector, rewrapper, frontier) = (connector.clone(), rewrapper.clone(), frontier.clone());
        let (found, stop, progress) = (found.clone(), stop.clone(), progress.clone());
        workers.spawn(async move {
            let mut conn = connector.connect(Purpose::ReadOnly).await?;
            while let Some((lo, hi)) = carve(&connector, &mut conn, &frontier, settings.chunk.rows).await? {
                let Some(part) = range(&connector, &mut conn, &rewrapper, lo, hi, &stop).await? else {
                    break;
                };
                let known = frontier.lock().await.known;
                let mut found = found.lock().await;
                found.add(part);
                let seconds = started.elapsed().as_secs_f64();
                let totals = Counters {
                    re_encrypted: found.would_re_encrypt,
                    already_on_key: found.already_on_key,
                    null_rows: found.null,
                    quarantined: found.unreadable,
                    ..Default::default()
                };
                let total = known.rows(Addressing::Keys, &totals);
                let rate = found.rows as f64 / seconds;
                progress.send_replace(Progress {
                    rows_done: found.rows,
                    rows_total: total,
                    estimated: true,
                    rows_per_second: rate,
                    eta_seconds: Some((total - found.rows) as f64 / rate.max(1.0)),
                    pass: 1,
                    activity: Some(Activity::DryRun),
                    totals,
                    throttle: None,
                    waiting: false,
                    outage: None,
                });
            }
            connect::close(conn).await;
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done.map_err(|e| Error::new(Exit::Internal, format!("a worker panicked: {e}")))??;
    }
    if !stop.is_set() {
        refuse_unknown(&connector, stop.clone()).await?;
    }
    let mut found = std::mem::take(&mut *found.lock().await);
    found.seconds = started.elapsed().as_secs_f64();
    found.stopped = stop.is_set();
    let counted = if found.stopped { Counted::Partly } else { Counted::Whole };
    progress.send_modify(|p| p.finish(p.totals, counted));
    Ok(found)
}

/// What no id leads to was not read, and would not be re-encrypted.
async fn refuse_unknown(connector: &Connector, mut stop: Stop) -> Result<(), Error> {
    let mut conn = connector.connect(Purpose::ReadOnly).await?;
    let backend = Backend::of(&mut conn).await?;
    let looking = async {
        let mut since = None;
        loop {
            match counting::refuse_unknown(&mut conn).await {
                Ok(()) => return Ok(()),
                Err(e) => {
                    let since = *since.get_or_insert_with(Instant::now);
                    connector.again(Purpose::ReadOnly, &mut conn, since, e).await?;
                }
            }
        }
    };
    tokio::select! {
        done = looking => done,
        () = stop.wait() => {
            backend.cancel(connector).await;
            Ok(())
        }
    }
}

async fn carve(
    connector: &Connector,
    conn: &mut PgConnection,
    frontier: &Mutex<Frontier>,
    rows: u32,
) -> Result<Option<(Option<Uuid>, Option<Uuid>)>, Error> {
    let mut at = frontier.lock().await;
    if at.known.carved {
        return Ok(None);
    }
    let (lo, since) = (at.after, Instant::now());
    let hi = loop {
        match next_key(conn, lo, i64::from(rows)).await {
            Ok(hi) => break hi,
            Err(e) => connector.again(Purpose::ReadOnly, conn, since, e).await?,
        }
    };
    let Extent { estimated, carved_rows, .. } = at.known;
    (at.after, at.known.carved) = (hi, hi.is_none());
    at.known.carved_rows += match hi {
        Some(_) => i64::from(rows),
        None => (estimated - carved_rows).clamp(0, i64::from(rows)),
    };
    Ok(Some((lo, hi)))
}

/// One range; again from its start where the standby cancelled a statement or the connection was lost.
async fn range(
    connector: &Connector,
    conn: &mut PgConnection,
    rewrapper: &Rewrapper,
    lo: Option<Uuid>,
    hi: Option<Uuid>,
    stop: &Stop,
) -> Result<Option<DryRun>, Error> {
    let mut since = None;
    loop {
        if stop.is_set() {
            return Ok(None);
        }
        match try_range(conn, rewrapper, lo, hi, stop).await {
            Ok(part) => return Ok(part),
            Err(Fault::Store(e)) => {
                let since = *since.get_or_insert_with(Instant::now);
                connector.again(Purpose::ReadOnly, conn, since, e).await?;
            }
            Err(Fault::Fatal(e)) => return Err(e),
            Err(Fault::LeaseLost | Fault::Yield) => return Ok(None),
        }
    }
}

async fn try_range(
    conn: &mut PgConnection,
    rewrapper: &Rewrapper,
    lo: Option<Uuid>,
    hi: Option<Uuid>,
    stop: &Stop,
) -> Result<Option<DryRun>, Fault> {
    let mut recrypt = Recrypt::new();
    let mut part = DryRun::default();
    let mut after = lo;
    let hi = hi.unwrap_or(Uuid::max());
    loop {
        if stop.is_set() {
            return Ok(None);
        }
        let stretch = match after {
            None => Stretch::FromStart { hi, limit: READ_ROWS },
            Some(lo) => Stretch::After { lo, hi, limit: READ_ROWS },
        };
        let seen = read_whole(conn, &stretch, MAX_ROW_BYTES as usize, |row| {
            part.count(recrypt.row(rewrapper, row)?);
            Ok::<(), Fault>(())
        })
        .await?;
        after = seen.last.map(|(id, _)| id).or(after);
        if seen.rows < READ_ROWS {
            return Ok(Some(part));
        }
    }
}

impl DryRun {
    fn count(&mut self, outcome: Rewrapped) {
        self.rows += 1;
        match outcome {
            Rewrapped::Move(_) => self.would_re_encrypt += 1,
            Rewrapped::OnTarget { .. } => self.already_on_key += 1,
            Rewrapped::Null { .. } => self.null += 1,
            Rewrapped::Bad(BadRow { id, reason, .. }) => {
                self.unreadable += 1;
                *self.unreadable_by_reason.entry(reason).or_default() += 1;
                if self.unreadable_ids.len() < LISTED {
                    self.unreadable_ids.push(id);
                }
            }
        }
    }

    fn add(&mut self, o: DryRun) {
        self.rows += o.rows;
        self.would_re_encrypt += o.would_re_encrypt;
        self.already_on_key += o.already_on_key;
        self.null += o.null;
        self.unreadable += o.unreadable;
        for (reason, n) in o.unreadable_by_reason {
            *self.unreadable_by_reason.entry(reason).or_default() += n;
        }
        let room = LISTED - self.unreadable_ids.len().min(LISTED);
        self.unreadable_ids.extend(o.unreadable_ids.into_iter().take(room));
    }
}
