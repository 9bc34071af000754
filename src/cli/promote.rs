//! `rekey promote`: verifies, then makes the new key current where the application reads it.

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;
use sqlx::PgConnection;

use super::confirm::confirm;
use super::context::Context;
use super::options::{KeyArgs, given};
use super::signals;
use crate::engine::lifecycle::{Exclusive, Target, Yields, busy_or_state, promote, reconcile};
use crate::error::{Error, Exit, Result};
use crate::jobs::exposure::warn_of_git;
use crate::jobs::key_pair::{self, Role};
use crate::jobs::{cache_after, preflight, verify};
use crate::rotation::State;
use crate::secrets::KeySource;
use crate::store::ledger::{Rotation, rotation};
use crate::store::preflight::{Allowed, Kind};
use crate::store::{Purpose, audit};

#[derive(Args)]
pub struct PromoteArgs {
    /// Where the application reads its key [default: the old key's source]
    #[arg(long, env = "REKEY_TARGET", hide_env_values = true, value_name = "SOURCE")]
    pub target: Option<String>,
    /// Somebody else changes it: say what to change, and go on once it is changed
    #[arg(long, env = "REKEY_EXTERNAL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub external: bool,
    /// Do not ask
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    /// Readers of the verify before it
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    /// Let a named finding pass; repeatable
    #[arg(long, env = "REKEY_ALLOW", hide_env_values = true, value_name = "FINDING", value_delimiter = ',')]
    pub allow: Vec<String>,
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// Runs the command.
pub async fn run(args: PromoteArgs, context: &Context) -> Result<Exit> {
    let connector = context.connector()?;
    let stop = signals::listen()?;
    let named = given(&args.target)?;
    let mut keys = args.keys.named()?;
    let allowed = Allowed::parse(&args.allow)?;
    confirm(args.yes, "This changes the key the application reads. Go on?")?;
    let mut conn = connector.connect(Purpose::Control).await?;
    let found = rotation::latest(&mut conn).await?;
    let r = may_promote(&mut conn, found).await?;
    let alone = Exclusive::take(&mut conn).await?;
    // Until the lock was ours, a rollback may have turned the rotation round.
    let again = rotation::by_id(&mut conn, r.id).await?;
    let r = may_promote(&mut conn, Some(again)).await?;
    same_place(&r, named.as_ref())?;
    let target = Target::of(&context.sources, &r, named)?;
    if !args.external && !target.is_writable() && !r.external {
        return Err(Error::new(
            Exit::Usage,
            format!("rekey cannot write {}: its owner has to change it", target.source),
        )
        .hint("rekey promote --external --yes says what to change, and goes on once it is changed"));
    }
    // What rekey once began to write itself stays its own to write, and to take back.
    let ours = r.promoting_at.is_some() && !r.external;
    let theirs = r.external && (r.state == State::Promoted || !target.is_writable());
    let external = (args.external || theirs) && !ours;
    if args.external && ours {
        tracing::warn!("rekey itself began to promote at {}, and goes on with it", target.source);
    }
    if external && keys.new.is_none() && matches!(target.look().await, Ok(Yields::New)) {
        // Changed before anybody asked: the new key may be nowhere else any more.
        keys.new = Some(target.source.clone());
    }
    let new = key_pair::one(context, &keys, &r, Role::New).await?;
    preflight::primary_only(&connector, &mut conn, "promote").await?;
    // Before the verify, whose result is recorded: a place that is somebody else's, or changes by itself, is refused.
    if !external {
        target.look_for_either().await?;
        preflight::no_automatic_rotation(context, &mut conn, &target, &allowed).await?;
    }
    let how = verify::How { workers: args.workers.into(), may_be_empty: allowed.includes(Kind::EmptyTable) };
    let mut checked = verify::check(context, &keys, &connector, &mut conn, &r, how, stop).await?;
    verify::record(context, &connector, &mut conn, &r, "promote", &mut checked).await?;
    // `run` moves the ones, and quarantines the others so that they can be accepted.
    let left_to_run = checked.report.wrong_key + checked.report.unreadable > 0;
    let clean = match checked.report.into_clean() {
        Ok(clean) => clean,
        Err(e) => {
            if r.state == State::Promoting && left_to_run {
                reconcile(&mut conn, &alone, &target, &context.actor).await?;
            }
            return Err(e);
        }
    };
    let done = promote(&mut conn, &alone, &clean, &target, &new.key, external, &context.actor).await?;
    drop(new);
    target.files().iter().for_each(|path| warn_of_git(path));
    let cache = cache_after::purge(context, &mut conn, &r).await;
    let now = rotation::by_id(&mut conn, r.id).await?;
    let (seq, hash) = audit::head(&mut conn).await?;
    context.last_word.say("promoted", Some("restart the application, then rekey finalize"));
    if context.json() {
        context.print_json(&json!({
            "outcome": "promoted", "already": done.already, "target": target.source.to_string(), "version_id": done.version_id,
            "cache": cache, "rotation": now, "next": ["restart the application", "rekey finalize"], "event_head": format!("{seq}:{hash}"),
        }))?;
        return Ok(Exit::Ok);
    }
    println!(
        "{} yields the new key, {}{}",
        target.source,
        r.new_fingerprint,
        if done.already { ", as before" } else { "" }
    );
    if let Some(version) = &done.version_id {
        println!("  version {version} is AWSCURRENT");
    }
    println!("  {cache}");
    println!("\nnext: restart the application, then rekey finalize");
    println!("audit chain head: {seq}:{hash}");
    Ok(Exit::Ok)
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
        .hint("leave --target out; another place can be given the key with rekey keys restore, or by hand"))
}

async fn may_promote(conn: &mut PgConnection, found: Option<Rotation>) -> Result<Rotation> {
    let Some(r) = found else {
        return Err(Error::new(Exit::State, "there is no rotation to promote").hint("rekey run starts one"));
    };
    r.refuse_aborted()?;
    let hint = match r.state {
        State::Migrated | State::Promoting | State::Promoted => return Ok(r),
        State::Migrating => "rekey run, then rekey promote",
        State::Finalizing => "rekey finalize --yes finishes it",
        State::RollingBack | State::Unpromoting => "rekey rollback --yes finishes it",
        State::Finalized | State::RolledBack => "rekey run starts another rotation",
    };
    let exit = busy_or_state(conn, &r).await?;
    Err(Error::new(exit, format!("rotation {} is {}: it cannot be promoted", r.id, r.state)).hint(hint))
}
