//! `run --dry-run`: reads, decrypts, re-encrypts and decrypts again every row, and writes nothing at all, rekey's own
//! tables included. It needs no rotation, and works on a read replica.

use std::time::Duration;

use tokio::sync::watch;

use super::interrupt::unless_stopped;
use super::key_pair;
use super::preflight::{PreflightRequest, preflight, unless_changed, usable_ledger};
use super::run::RunRequest;
use super::work;
use super::{Session, access, standing};
use crate::crypto::Rewrapper;
use crate::engine::{self, DryRun, Settings, Stop, StopSource};
use crate::error::{Exit, Result};
use crate::rotation::permits::{Dry, JustDone};
use crate::rotation::{Counters, Direction, Progress, Standing, Step, next};
use crate::store::ledger::rotation;
use crate::store::preflight::For;
use crate::store::{Connector, Purpose, audit, connect};

/// What a dry run showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryEnd {
    /// Every row would be on the new key.
    Clean,
    /// Rows open with neither key, and would be quarantined.
    Quarantine,
    /// A constraint rejects the update of rows, which would be quarantined.
    Rejected,
    /// No row opens with the old key.
    WrongKey,
    /// The window was over before every row was seen.
    PastDeadline,
    /// A signal came before every row was seen.
    Signalled,
}

impl DryEnd {
    /// The exit code it stands for.
    pub const fn exit(self) -> Exit {
        match self {
            DryEnd::Clean => Exit::Ok,
            DryEnd::Quarantine | DryEnd::Rejected => Exit::Quarantined,
            DryEnd::WrongKey => Exit::Key,
            DryEnd::PastDeadline => Exit::Stopped,
            DryEnd::Signalled => Exit::Signalled,
        }
    }
}

/// What a dry run reports.
pub struct Tried {
    /// What it showed.
    pub end: DryEnd,
    /// Rows by outcome.
    pub found: DryRun,
    /// Rows whose update a constraint would reject; none where they could not be counted.
    pub rejected_rows: Option<u64>,
    /// What to do next.
    pub next: Vec<Step>,
    /// The head of the audit chain, where rekey has run before.
    pub event_head: Option<String>,
}

/// Tries every row.
pub async fn dry_run(session: &Session, request: &RunRequest, mut stop: Stop) -> Result<Tried> {
    let connector = session.connector()?;
    let prepared = prepare(session, request, &connector);
    let Prepared { rewrapper, settings, rejected_rows, event_head, limit, standing } =
        unless_stopped(&mut stop, prepared).await?;
    let (sender, receiver) = watch::channel(Progress { totals: Counters::default(), ..Default::default() });
    let shown = session.follow(receiver);
    let (give_up, given_up) = StopSource::new();
    let mut signal = stop.clone();
    let relay = tokio::spawn(async move {
        let past = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signal.wait() => {}
            () = past => {}
        }
        give_up.stop();
    });
    let found = engine::dry_run(connector.probed(), rewrapper, settings, given_up, sender).await;
    let found = unless_changed(&session.connector()?.probed(), found).await?;
    relay.abort();
    drop(shown);
    let end = match &found {
        f if f.stopped && !stop.is_set() => DryEnd::PastDeadline,
        f if f.stopped => DryEnd::Signalled,
        f if f.rows > 0 && f.would_re_encrypt == 0 && f.unreadable > f.already_on_key => DryEnd::WrongKey,
        f if f.unreadable > 0 => DryEnd::Quarantine,
        _ if rejected_rows.is_some_and(|rows| rows > 0) => DryEnd::Rejected,
        _ => DryEnd::Clean,
    };
    let just = JustDone::DryRun(match end {
        DryEnd::Clean => Dry::Clean,
        DryEnd::Quarantine | DryEnd::Rejected => Dry::BadRows,
        DryEnd::WrongKey => Dry::WrongKey,
        DryEnd::PastDeadline | DryEnd::Signalled => Dry::Stopped,
    });
    let next = next(&Standing { just, ..standing });
    Ok(Tried { end, found, rejected_rows, next, event_head })
}

/// What a dry run needs to start.
struct Prepared {
    rewrapper: Rewrapper,
    settings: Settings,
    rejected_rows: Option<u64>,
    event_head: Option<String>,
    /// How long it may take.
    limit: Option<Duration>,
    standing: Standing,
}

async fn prepare(session: &Session, request: &RunRequest, connector: &Connector) -> Result<Prepared> {
    let mut conn = connector.connect(Purpose::ReadOnly).await?;
    usable_ledger(&mut conn, &request.work.allowed).await?;
    let (latest, standing) = standing::latest(session, &mut conn).await?;
    let active = latest.filter(|r| r.state.is_active());
    let keys = match &active {
        Some(active) => key_pair::for_rotation(session, &request.keys, active).await?,
        None => key_pair::for_new(session, &request.keys).await?,
    };
    let limits = request.work.limits(Direction::Forward);
    let purpose = PreflightRequest {
        purpose: For::Reading,
        allowed: &request.work.allowed,
        limits: &limits,
        direction: Direction::Forward,
        fresh: active.is_none(),
    };
    let report = preflight(session, connector, &mut conn, &keys, purpose).await?.into_result()?;
    let event_head = audit::head_line(&mut conn).await;
    let limit = match request.work.deadline {
        Some(deadline) => Some(rotation::left_until(&mut conn, deadline.at).await?),
        None => None,
    };
    connect::close(conn).await;
    let settings = request.work.settings(session, &report.facts);
    // Where nothing is written, nothing is recorded.
    let also = access::also(session, request.also_key.as_ref(), &mut Vec::new()).await?;
    let id = active.map_or_else(crate::entropy::id, |r| r.id);
    let rewrapper = work::rewrapper(&keys, id, Direction::Forward, also.as_ref())?;
    let rejected_rows = report.rejected_rows;
    Ok(Prepared { rewrapper, settings, rejected_rows, event_head, limit, standing })
}
