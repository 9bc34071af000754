//! `rekey promote`: verifies, then makes the new key current where the application reads it.

use serde_json::json;

use super::args::PromoteArgs;
use super::confirm::confirm;
use super::context::Context;
use super::key_pair::{self, Role};
use super::{cache_after, signals, verify};
use crate::engine::lifecycle::{Exclusive, Target, promote};
use crate::error::{Error, Exit, Result};
use crate::rotation::State;
use crate::store::ledger::{Rotation, rotation};
use crate::store::{Purpose, audit};

/// Runs the command.
pub async fn run(args: PromoteArgs, context: &Context) -> Result<Exit> {
    let connector = context.connector()?;
    let stop = signals::listen()?;
    let named = key_pair::given(&args.target)?;
    confirm(args.yes, "This changes the key the application reads. Go on?")?;
    let mut conn = connector.connect(Purpose::Control).await?;
    let found = rotation::latest(&mut conn).await?;
    let r = may_promote(found)?;
    let alone = Exclusive::take(&mut conn).await?;
    // Until the lock was ours, a rollback may have turned the rotation round.
    let r = may_promote(Some(rotation::by_id(&mut conn, r.id).await?))?;
    let target = Target::of(&context.sources, &r, named)?;
    if !args.external && !target.is_writable() && !r.external {
        return Err(Error::new(
            Exit::Usage,
            format!("rekey cannot write {}: its owner has to change it", target.source),
        )
        .hint("rekey promote --external --yes says what to change, and goes on once it is changed"));
    }
    let external = args.external || r.external;
    let new = key_pair::one(context, &args.keys, &r, Role::New).await?;
    super::preflight::primary_only(&connector, &mut conn, "promote").await?;
    let report =
        verify::check(context, &args.keys, &connector, &mut conn, &r, usize::from(args.workers), stop)
            .await?;
    verify::record(context, &connector, &mut conn, &r, &report).await?;
    let clean = report.into_clean()?;
    let done = promote(&mut conn, &alone, &clean, &target, &new.key, external, &context.actor).await?;
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

fn may_promote(found: Option<Rotation>) -> Result<Rotation> {
    let Some(r) = found else {
        return Err(Error::new(Exit::State, "there is no rotation to promote").hint("rekey run starts one"));
    };
    let hint = match r.state {
        State::Migrated | State::Promoting | State::Promoted => return Ok(r),
        State::Migrating => "rekey run, then rekey promote",
        State::Finalizing => "rekey finalize --yes finishes it",
        State::RollingBack | State::Unpromoting => "rekey rollback --yes finishes it",
        State::Finalized | State::RolledBack => "rekey run starts another rotation",
    };
    Err(Error::new(Exit::State, format!("rotation {} is {}: it cannot be promoted", r.id, r.state))
        .hint(hint))
}
