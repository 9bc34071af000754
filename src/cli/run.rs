//! `rekey run`: starts a rotation, or joins or resumes the active one. Checked in this order: usage, state, keys,
//! preflight, work.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use tokio::sync::watch;

use super::args::RunArgs;
use super::context::Context;
use super::summary::Ended;
use super::{signals, summary};
use crate::crypto::Rewrapper;
use crate::engine::{DryRun, Settings, Stop, StopSource, dry_run, lifecycle};
use crate::error::{Error, Exit, Result};
use crate::jobs::interrupt::unless_stopped;
use crate::jobs::key_pair::{self, KeyPair, NamedKeys};
use crate::jobs::preflight::{Purpose as Asked, preflight};
use crate::jobs::work::WorkRequest;
use crate::jobs::{access, work};
use crate::rotation::throttle::Limits;
use crate::rotation::{Counters, Desired, Direction, Progress, State};
use crate::store::ledger::rotation::{self, NewRotation};
use crate::store::ledger::{Rotation, chunk};
use crate::store::preflight::{For, Report};
use crate::store::{Connector, Purpose, audit, connect, schema};
use crate::telemetry::progress::thousands;

/// Runs the command.
pub async fn run(args: RunArgs, context: &Context) -> Result<Exit> {
    let connector = context.connector()?;
    let dry_run = args.dry_run;
    let args =
        RunRequest { compromised: args.compromised, keys: args.keys.named()?, work: args.work.request()? };
    let mut stop = signals::listen()?;
    if dry_run {
        let prepared = prepare_dry(&args, context, &connector);
        let prepared = unless_stopped(&mut stop, prepared).await?;
        return dry(context, prepared, stop).await;
    }
    let prepared = prepare(&args, context, &connector);
    let Prepared { rotation, rewrapper, how, before } = unless_stopped(&mut stop, prepared).await?;
    let (end, took) = work::drive(context, &rotation, Direction::Forward, rewrapper, how, stop).await?;
    let mut conn = work::connect_to_tell(&connector, &end).await?;
    let ended = Ended { direction: Direction::Forward, end, took, before, cache: None };
    summary::print(context, &mut conn, rotation.id, ended).await
}

/// What is asked for.
struct RunRequest {
    compromised: bool,
    keys: NamedKeys,
    work: WorkRequest,
}

/// What the engine needs to start.
struct Prepared {
    rotation: Rotation,
    rewrapper: Rewrapper,
    how: (Settings, Limits),
    before: Counters,
}

/// State, keys, preflight; then the rotation is recorded or joined. May be given up anywhere: the
/// rotation's row is one transaction, and events and pins written before it harm nobody.
async fn prepare(args: &RunRequest, context: &Context, connector: &Connector) -> Result<Prepared> {
    let mut conn = connector.connect(Purpose::Control).await?;
    let mut active = rotation::latest(&mut conn).await?.filter(|r| r.state.is_active());
    let limits = args.work.limits(Direction::Forward);
    let (keys, report) = loop {
        if let Some(active) = &active {
            may_run(&mut conn, active, args.work.deadline.is_some()).await?;
        }
        let keys = match &active {
            Some(active) => key_pair::for_rotation(context, &args.keys, active).await?,
            None => key_pair::for_new(context, &args.keys).await?,
        };
        if active.is_none() {
            refuse_compromised(&mut conn, &keys).await?;
        }
        let purpose = Asked {
            purpose: For::Run,
            allowed: &args.work.allowed,
            limits: &limits,
            direction: Direction::Forward,
            fresh: active.is_none(),
        };
        let refused = match preflight(context, connector, &mut conn, &keys, purpose).await?.into_result() {
            Ok(report) => break (keys, report),
            Err(refused) => refused,
        };
        // What is no state to begin in may be where a rotation stands that another process has begun since.
        let begun = rotation::latest(&mut conn).await?.filter(|r| r.state.is_active());
        if active.is_some() || begun.is_none() {
            return Err(refused);
        }
        active = begun;
    };
    let settings = args.work.settings(context, &report.facts);
    let rotation = match active {
        Some(active) => active,
        None => begin(args, context, &mut conn, &keys, &report).await?,
    };
    if args.compromised && !rotation.compromised {
        rotation::set_compromised(&mut conn, rotation.id, &context.actor).await?;
    }
    access::record(context, &mut conn, rotation.id, "run", access::both(&keys)).await?;
    if rotation.state == State::Migrating
        && let Err(error) = lifecycle::pin(&context.sources, &rotation).await
    {
        tracing::warn!(%error, "the key versions could not be pinned now; promote will pin them or refuse");
    }
    args.work.store_deadline(&mut conn, rotation.id).await?;
    let before = chunk::totals(&mut conn, rotation.id, Direction::Forward).await?;
    let rewrapper = work::rewrapper(&keys, rotation.id, Direction::Forward, None)?;
    drop(keys);
    connect::close(conn).await;
    Ok(Prepared { rotation, rewrapper, how: (settings, limits), before })
}

/// Whether `run` may work in this rotation's state.
pub async fn may_run(conn: &mut PgConnection, r: &Rotation, new_deadline: bool) -> Result<()> {
    let refuse = |exit, what: String, hint: &str| Err(Error::new(exit, what).hint(hint));
    match r.state {
        State::Migrating | State::Migrated | State::Promoted => {}
        State::RollingBack | State::Unpromoting => {
            return refuse(
                lifecycle::busy_or_state(conn, r).await?,
                format!("rotation {} is being rolled back", r.id),
                "rekey rollback finishes it",
            );
        }
        State::Promoting => {
            return refuse(
                lifecycle::busy_or_state(conn, r).await?,
                format!("rotation {} is being promoted", r.id),
                "rekey promote finishes it",
            );
        }
        State::Finalizing => {
            return refuse(
                lifecycle::busy_or_state(conn, r).await?,
                format!("rotation {} is being finalized", r.id),
                "rekey finalize finishes it",
            );
        }
        State::Finalized | State::RolledBack => {}
    }
    if r.desired == Desired::Aborted {
        return refuse(
            Exit::State,
            format!("rotation {} was aborted", r.id),
            "rekey resume, then rekey run; or rekey rollback",
        );
    }
    if r.past_deadline && !new_deadline {
        return refuse(
            Exit::Stopped,
            format!("rotation {} is past its deadline, {}", r.id, r.deadline.as_deref().unwrap_or("now")),
            "rekey run --deadline 2h, or rekey resume, lifts it",
        );
    }
    Ok(())
}

/// A key that others know is never rotated to again, and the pair of a compromised rotation is used up, whichever
/// way it ended.
async fn refuse_compromised(conn: &mut PgConnection, keys: &KeyPair) -> Result<()> {
    let (old, new) = (keys.old.record.fingerprint, keys.new.record.fingerprint);
    let refuse = |what: String| {
        Err(Error::new(Exit::Key, what).hint(
            "make a fresh key, rekey keys generate encryption --to SOURCE, and name it with --new-key SOURCE",
        ))
    };
    for earlier in rotation::compromised(conn).await? {
        if earlier.old_fingerprint == new {
            return refuse(format!("the new key is the compromised key of rotation {}", earlier.id));
        }
        if earlier.old_fingerprint == old && earlier.new_fingerprint == new {
            return refuse(format!("rotation {} was compromised and had this same pair of keys", earlier.id));
        }
    }
    Ok(())
}

/// Records the rotation, or joins the one that another pod recorded in the same second.
async fn begin(
    args: &RunRequest,
    context: &Context,
    conn: &mut PgConnection,
    keys: &KeyPair,
    preflight: &Report,
) -> Result<Rotation> {
    schema::ensure(conn).await?;
    let new = NewRotation {
        id: crate::entropy::id(),
        old: keys.old.record.clone(),
        new: keys.new.record.clone(),
        compromised: args.compromised,
        plan: json!({ "findings": preflight.findings, "rows_estimated": preflight.facts.rows, "sample": preflight.sample }),
        settings: json!({
            "workers": args.work.workers, "batch_rows": args.work.batch_rows, "chunk_rows": args.work.chunk_rows,
            "allow": args.work.allowed.names(), "version": env!("CARGO_PKG_VERSION"),
        }),
    };
    let (rotation, ours) = rotation::begin(conn, &new, &context.actor).await?;
    if ours {
        let (old, new) = (rotation.old_fingerprint, rotation.new_fingerprint);
        tracing::info!(rotation = %rotation.id, %old, %new, "rotation started");
        return Ok(rotation);
    }
    may_run(conn, &rotation, args.work.deadline.is_some()).await?;
    if rotation.old_fingerprint != keys.old.record.fingerprint
        || rotation.new_fingerprint != keys.new.record.fingerprint
    {
        return Err(Error::new(
            Exit::Key,
            format!("rotation {} was started by another process with other keys", rotation.id),
        )
        .hint("rekey status shows its fingerprints"));
    }
    Ok(rotation)
}

#[derive(Serialize)]
struct DryReport {
    outcome: &'static str,
    exit_code: u8,
    #[serde(flatten)]
    found: DryRun,
    rows_per_second: f64,
    next: Vec<&'static str>,
    event_head: Option<String>,
}

/// What a dry run needs to start.
struct PreparedDry {
    rewrapper: Rewrapper,
    settings: Settings,
    event_head: Option<String>,
    /// How long it may take.
    limit: Option<Duration>,
}

async fn prepare_dry(args: &RunRequest, context: &Context, connector: &Connector) -> Result<PreparedDry> {
    let mut conn = connector.connect(Purpose::ReadOnly).await?;
    let active = rotation::latest(&mut conn).await?.filter(|r| r.state.is_active());
    let keys = match &active {
        Some(active) => key_pair::for_rotation(context, &args.keys, active).await?,
        None => key_pair::for_new(context, &args.keys).await?,
    };
    let limits = args.work.limits(Direction::Forward);
    let purpose = Asked {
        purpose: For::Reading,
        allowed: &args.work.allowed,
        limits: &limits,
        direction: Direction::Forward,
        fresh: active.is_none(),
    };
    let report = preflight(context, connector, &mut conn, &keys, purpose).await?.into_result()?;
    let event_head = audit::head_line(&mut conn).await;
    let limit = match args.work.deadline {
        Some(deadline) => Some(rotation::left_until(&mut conn, deadline.at).await?),
        None => None,
    };
    connect::close(conn).await;
    let settings = args.work.settings(context, &report.facts);
    let rewrapper =
        work::rewrapper(&keys, active.map_or_else(crate::entropy::id, |r| r.id), Direction::Forward, None)?;
    Ok(PreparedDry { rewrapper, settings, event_head, limit })
}

async fn dry(context: &Context, prepared: PreparedDry, stop: Stop) -> Result<Exit> {
    let PreparedDry { rewrapper, settings, event_head, limit } = prepared;
    let (sender, receiver) = watch::channel(Progress { totals: Counters::default(), ..Default::default() });
    let shown = context.follow(receiver);
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
    let found = dry_run(context.connector()?.probed(), rewrapper, settings, given_up, sender).await?;
    relay.abort();
    drop(shown);
    let (exit, outcome, next) = match &found {
        f if f.stopped && !stop.is_set() => {
            (Exit::Stopped, "past its deadline; nothing was written", vec!["rekey run --dry-run"])
        }
        f if f.stopped => {
            (Exit::Signalled, "stopped by a signal; nothing was written", vec!["rekey run --dry-run"])
        }
        f if f.rows > 0 && f.would_re_encrypt == 0 && f.unreadable > f.already_on_key => (
            Exit::Key,
            "no row opens with the old key; nothing was written",
            vec!["rekey keys fingerprint SOURCE"],
        ),
        f if f.unreadable > 0 => (
            Exit::Quarantined,
            "rows open with neither key and would be quarantined; nothing was written",
            vec!["rekey run"],
        ),
        _ => (Exit::Ok, "every row would be on the new key; nothing was written", vec!["rekey run"]),
    };
    context.last_word.say(outcome, next.first().copied());
    let report = DryReport {
        outcome,
        exit_code: exit.code(),
        rows_per_second: (found.rows as f64 / found.seconds.max(1e-9)).round(),
        found,
        next,
        event_head,
    };
    if context.json() {
        context.print_json(&report)?;
        return Ok(exit);
    }
    println!("{outcome}\n");
    for (name, rows) in [
        ("would be re-encrypted", report.found.would_re_encrypt),
        ("already on the key", report.found.already_on_key),
        ("without a credential", report.found.null),
        ("neither key opens", report.found.unreadable),
    ] {
        println!("  {name:<22}{:>14} rows", thousands(rows));
    }
    println!("  {:<22}{:>14.1} s", "time", report.found.seconds);
    println!("  {:<22}{:>14} rows/s", "rate", thousands(report.rows_per_second as i64));
    for id in report.found.unreadable_ids.iter().take(10) {
        println!("  unreadable: {id}");
    }
    println!("\nnext: {}", report.next.join(", "));
    if let Some(head) = &report.event_head {
        println!("audit chain head: {head}");
    }
    Ok(exit)
}
