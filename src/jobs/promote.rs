//! `promote`: verifies, then makes the new key current where the application reads it. Before it the state `promoting`
//! is written, and whoever finds that can repeat all of this.

use super::exposure::warn_of_git;
use super::key_pair::{self, NamedKeys, Role};
use super::shared_key::{self, Move};
use super::verify::{self, How};
use super::{Session, cache_after, preflight, standing};
use crate::engine::Stop;
use crate::engine::lifecycle::{self, Exclusive, Target, Yields, reconcile};
use crate::error::{Error, Exit, Result};
use crate::rotation::permits::JustDone;
use crate::rotation::{Command, State, Step};
use crate::secrets::KeySource;
use crate::store::ledger::{Rotation, rotation};
use crate::store::preflight::{Allowed, Kind};
use crate::store::{Purpose, audit};

/// What is asked for.
pub struct PromoteRequest {
    /// Where the application reads its key, if it is not where the old key was read.
    pub target: Option<KeySource>,
    /// Who owns the place changes it, and rekey only looks.
    pub external: bool,
    /// Findings that the operator allows.
    pub allowed: Allowed,
    /// Connections that read at a time while it verifies.
    pub workers: usize,
    /// Where the keys are.
    pub keys: NamedKeys,
}

/// What a promotion reports.
pub struct Promoted {
    /// Where the application reads its key.
    pub target: KeySource,
    /// It yielded the new key before.
    pub already: bool,
    /// The version that is current now, where there are versions.
    pub version_id: Option<String>,
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
pub async fn promote(session: &Session, request: &PromoteRequest, stop: Stop) -> Result<Promoted> {
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    let command = Command::Promote { external: request.external };
    let r = standing::permitted(session, &mut conn, command).await?;
    let mut alone = Exclusive::take(&mut conn).await?;
    // Before this process held the lock, a rollback may have turned the rotation round.
    let r = rotation::by_id(alone.conn(), r.id).await?;
    standing::require(session, alone.conn(), command, Some(&r)).await?;
    same_place(&r, request.target.as_ref())?;
    let target = Target::of(&session.sources, &r, request.target.clone())?;
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
    if !external {
        let found = target.look_for_either().await?;
        preflight::no_automatic_rotation(session, alone.conn(), &target, &request.allowed).await?;
        if found == Yields::Old {
            shared_key::refuse(session, alone.conn(), &target, Move::Promote, &request.allowed).await?;
        }
    }
    let how = How { workers: request.workers, may_be_empty: request.allowed.includes(Kind::EmptyTable) };
    let clean = {
        let mut checked = verify::check(session, &keys, &connector, alone.conn(), &r, how, stop).await?;
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
    let done = lifecycle::promote(&mut alone, &clean, &target, &new.key, external, &session.actor).await?;
    drop(new);
    target.files().iter().for_each(|path| warn_of_git(path));
    let cache = cache_after::purge(session, alone.conn(), &r).await;
    let now = rotation::by_id(alone.conn(), r.id).await?;
    let next = standing::next_steps(session, alone.conn(), Some(&now), JustDone::Nothing).await?;
    let (seq, hash) = audit::head(alone.conn()).await?;
    Ok(Promoted {
        already: done.already,
        version_id: done.version_id,
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
    if !request.external && !target.is_writable() && !r.external {
        return Err(Error::new(
            Exit::Usage,
            format!("rekey can't write {}; its owner must change it", target.source),
        )
        .hint(
            "Run `rekey promote --external --yes` to see what to change, and run it again after the change",
        ));
    }
    let mut by_rekey = r.promoting_at.is_some() && !r.external;
    if request.external && by_rekey {
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
    Ok((request.external || by_owner) && !by_rekey)
}

/// Once `promoting` was written, the place is the one to look at, and the one that rollback changes back.
fn same_place(r: &Rotation, named: Option<&KeySource>) -> Result<()> {
    let (Some(named), Some(recorded), Some(_)) = (named, &r.target_source, &r.promoting_at) else {
        return Ok(());
    };
    if KeySource::of(recorded)? == *named {
        return Ok(());
    }
    Err(Error::new(Exit::State, format!("rotation {} is promoted at {recorded}, not at {named}", r.id))
        .hint("Leave `--target` out. To write the key to another place too, use `rekey keys restore`"))
}
