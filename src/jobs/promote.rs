//! `promote`: verifies, then makes the new key current where the application reads it. Before it the state `promoting`
//! is written, and whoever finds that can repeat all of this.

use std::time::{Duration, Instant};

use super::exposure::warn_of_git;
use super::interrupt::unless_stopped;
use super::key_pair::{self, NamedKeys, Role};
use super::last_copy::{self, By};
use super::shared_key::{self, Move};
use super::verify::{self, How};
use super::{Session, cache_after, preflight, standing};
use crate::crypto::Fingerprint;
use crate::engine::Stop;
use crate::engine::lifecycle::{self, Exclusive, Hand, Target, Yields, reconcile};
use crate::error::{Error, Exit, Result};
use crate::program::Program;
use crate::rotation::permits::JustDone;
use crate::rotation::{Command, State, Step};
use crate::secrets::KeySource;
use crate::store::ledger::{Rotation, rotation};
use crate::store::preflight::{Allowed, Kind};
use crate::store::{Purpose, audit, connect};

/// What is asked for.
pub struct PromoteRequest {
    /// Who owns the place changes it, and rekey only looks.
    pub external: bool,
    /// A program that changes it, and gets the new key on its stdin.
    pub program: Option<Program>,
    /// A place that is to yield the new key before the application is restarted.
    pub wait_for: Option<WaitFor>,
    /// Findings that the operator allows.
    pub allowed: Allowed,
    /// Connections that read at a time while it verifies.
    pub workers: usize,
    /// Where the keys are.
    pub keys: NamedKeys,
}

/// What the application is given its key by, where that takes its time: a file that is mounted into a pod, say.
pub struct WaitFor {
    /// The place, as it is seen here.
    pub source: KeySource,
    /// How long to wait.
    pub limit: Duration,
}

/// What a promotion reports.
pub struct Promoted {
    /// Where the application reads its key.
    pub target: KeySource,
    /// It yielded the new key before.
    pub already: bool,
    /// The version that is current now, where there are versions.
    pub version_id: Option<String>,
    /// A place that was waited for, which yields the new key now.
    pub seen_at: Option<KeySource>,
    /// What became of the application's cache.
    pub cache: String,
    /// The rotation as it stands now.
    pub rotation: Rotation,
    /// What to do next.
    pub next: Vec<Step>,
    /// The head of the audit chain.
    pub event_head: String,
}

/// Makes the new key the one that the application reads.
pub async fn promote(session: &Session, request: &PromoteRequest, mut stop: Stop) -> Result<Promoted> {
    if let Some(place) = request.wait_for.as_ref().filter(|place| !place.source.may_change()) {
        return Err(Error::new(Exit::Usage, format!("{} stays as it is while rekey runs", place.source))
            .hint(
                "Name the place that gives the application its key with `--wait-for SOURCE`: a file, a secret or a command",
            ));
    }
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    let command = Command::Promote { external: request.external || request.program.is_some() };
    let r = standing::permitted(session, &mut conn, command).await?;
    let mut alone = Exclusive::take(&mut conn, session.signed()).await?;
    // Before this process held the lock, a rollback may have turned the rotation round.
    let r = rotation::by_id(alone.conn(), r.id).await?;
    standing::require(session, alone.conn(), command, Some(&r)).await?;
    let target = Target { sources: &session.sources, rotation: &r, source: request.keys.target_of(&r)? };
    let external = is_external(&r, request, &target)?;
    let mut keys = request.keys.clone();
    if external && keys.new.is_none() && matches!(target.look().await, Ok(Yields::New)) {
        // Changed before rekey was asked: the new key may be nowhere else any more.
        keys.new = Some(target.source.clone());
    }
    let new = key_pair::one(session, &keys, &r, Role::New).await?;
    preflight::primary_only(&connector, alone.conn(), "promote").await?;
    preflight::same_database(session, alone.conn(), r.id, "promote", &request.allowed).await?;
    // Before the verify, whose result is recorded: a place that yields a foreign key, or changes by itself, is refused.
    let found = target.look_for_either().await?;
    if !external {
        preflight::no_replica(session, &target).await?;
    }
    preflight::no_automatic_rotation(session, alone.conn(), &target, &request.allowed).await?;
    let moving = if external { Move::HandOver } else { Move::Promote };
    let mut kept = None;
    if found == Yields::Old {
        shared_key::refuse(session, alone.conn(), &target, moving, &request.allowed).await?;
        if external {
            let by = if request.program.is_some() { By::Program } else { By::Owner };
            kept = last_copy::look(session, &request.keys, &target, Role::Old, by).await?;
        }
    }
    let hand = match &request.program {
        _ if !external => Hand::Rekey,
        Some(program) => Hand::Program(program, kept.as_ref()),
        // Whoever waits for the application's file waits for the change as well.
        None => Hand::Owner(request.wait_for.as_ref().map_or(Duration::ZERO, |place| place.limit)),
    };
    let how = How { workers: request.workers, may_be_empty: request.allowed.includes(Kind::EmptyTable) };
    let clean = {
        let mut checked =
            verify::check(session, &keys, &connector, alone.conn(), &r, how, stop.clone()).await?;
        verify::record(session, &connector, alone.conn(), &r, "promote", &mut checked).await?;
        // `run` moves the ones, and quarantines the others so that they can be accepted.
        let left_to_run = checked.report.wrong_key + checked.report.unreadable > 0;
        match checked.report.into_clean() {
            Ok(clean) => clean,
            Err(e) => {
                if r.state == State::Promoting && left_to_run {
                    reconcile(&mut alone, &target, &session.actor).await?;
                }
                return Err(e);
            }
        }
    };
    if target.look_for_either().await? == Yields::Old {
        // The verify took its time: another database may have begun with this key meanwhile.
        shared_key::refuse(session, alone.conn(), &target, moving, &request.allowed).await?;
    }
    let promoting = lifecycle::promote(&mut alone, &clean, &target, &new.key, hand, &session.actor);
    let done = match hand {
        Hand::Rekey => promoting.await?,
        // Others may take their time, and each step may be repeated.
        Hand::Owner(_) | Hand::Program(..) => unless_stopped(&mut stop, promoting).await?,
    };
    drop(new);
    target.files().iter().for_each(|path| warn_of_git(path));
    let cache = cache_after::purge(session, alone.conn(), &r).await;
    alone.give_back().await?;
    if let Some(place) = &request.wait_for {
        // Others may go on meanwhile.
        connect::close(conn).await;
        unless_stopped(&mut stop, wait_for(session, place, r.new_fingerprint)).await?;
        conn = connector.connect(Purpose::Control).await?;
    }
    let now = rotation::by_id(&mut conn, r.id).await?;
    let next = standing::next_steps(session, &mut conn, Some(&now), JustDone::Nothing).await?;
    let (seq, hash) = audit::head(&mut conn).await?;
    Ok(Promoted {
        already: done.already,
        version_id: done.version_id,
        seen_at: request.wait_for.as_ref().map(|place| place.source.clone()),
        cache,
        rotation: now,
        next,
        event_head: format!("{seq}:{hash}"),
        target: target.source,
    })
}

/// Whether the place is changed by its owner. What rekey once began to write stays its own to write, and to take back,
/// but for a file that it could not replace.
fn is_external(r: &Rotation, request: &PromoteRequest, target: &Target<'_>) -> Result<bool> {
    let asked = request.external || request.program.is_some();
    if !asked && !target.is_writable() && !r.external {
        return Err(Error::new(
            Exit::Usage,
            format!("rekey can't write {}; its owner must change it", target.source),
        )
        .hint(
            "Run `rekey promote --external --yes` to see what to change, and run it again after the change; or give \
             the new key to a program with `--promote-command CMD`",
        ));
    }
    if request.program.is_some() && !target.source.may_change() {
        return Err(Error::new(
            Exit::Usage,
            format!("{} stays as it is while rekey runs: no program can change it", target.source),
        )
        .hint("Name the place where the new key can be read after `--promote-command`: `--target SOURCE`"));
    }
    let mut by_rekey = r.promoting_at.is_some() && !r.external;
    if asked && by_rekey {
        // A file is replaced at once or not at all. A secret's label may still be on its way.
        let nothing_under_way = r.state == State::Promoting && target.source.file().is_some();
        match nothing_under_way {
            true => by_rekey = false,
            false => {
                tracing::warn!(
                    "the promotion at {} began without `--external` and must finish without it",
                    target.source
                )
            }
        }
    }
    let by_owner = r.external && (r.state == State::Promoted || !target.is_writable());
    Ok((asked || by_owner) && !by_rekey)
}

/// How often a place is looked at that is to yield the new key, and how often that is said.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SAY_EVERY: Duration = Duration::from_secs(15);

/// Waits until a place yields the new key. Whatever it yields until then, and whether it can be read, is no error.
async fn wait_for(session: &Session, place: &WaitFor, wanted: Fingerprint) -> Result<()> {
    let (started, mut said) = (Instant::now(), None::<Instant>);
    loop {
        let found = match session.sources.fetch(&place.source).await {
            Ok(fetched) if Fingerprint::of(&fetched.value) == wanted => return Ok(()),
            Ok(fetched) => format!("it yields the key with fingerprint {}", Fingerprint::of(&fetched.value)),
            Err(e) => e.to_string(),
        };
        if started.elapsed() >= place.limit {
            let message = format!(
                "promoted, but {} does not yield the new key ({wanted}) after {:?}: {found}",
                place.source, place.limit
            );
            return Err(Error::new(Exit::State, message).hint(
                "Don't restart the application yet. Run `rekey promote --yes --wait-for SOURCE` again; it changes nothing and waits",
            ));
        }
        if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            tracing::info!("waiting until {} yields the new key ({wanted}): {found}", place.source);
            said = Some(Instant::now());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
