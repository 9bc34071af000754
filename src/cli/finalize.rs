//! `rekey finalize`: ends the rotation on the new key, after one more clean verify. Irreversible.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;
use sqlx::PgConnection;

use super::confirm::confirm;
use super::context::Context;
use super::options::KeyArgs;
use super::signals;
use crate::engine::lifecycle::{Exclusive, Target, busy_or_state, clean_up, finalize, is_settled, settle};
use crate::error::{Error, Exit, Result};
use crate::jobs::key_pair::{self, Role};
use crate::jobs::{preflight, verify};
use crate::rotation::State;
use crate::store::ledger::{Rotation, rotation};
use crate::store::{Purpose, audit};

#[derive(Args)]
pub struct FinalizeArgs {
    /// Days in which the temporary secret can still be restored
    #[arg(long, env = "REKEY_RECOVERY_WINDOW", hide_env_values = true, default_value_t = 30, value_parser = clap::value_parser!(u8).range(7..=30), value_name = "DAYS")]
    pub recovery_window: u8,
    /// Do not ask
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    /// Readers of the verify before it
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// Runs the command.
pub async fn run(args: FinalizeArgs, context: &Context) -> Result<Exit> {
    let connector = context.connector()?;
    let keys = args.keys.named()?;
    let stop = signals::listen()?;
    confirm(args.yes, "After this there is no rollback. Go on?")?;
    let mut conn = connector.connect(Purpose::Control).await?;
    let found = rotation::latest(&mut conn).await?;
    if let Some(over) = found.as_ref().filter(|r| r.state == State::Finalized) {
        put_in_order(context, &mut conn, over).await?;
    }
    let r = may_finalize(&mut conn, found).await?;
    let alone = Exclusive::take(&mut conn).await?;
    // Until the lock was ours, a rollback may have turned the rotation round.
    let again = rotation::by_id(&mut conn, r.id).await?;
    let r = may_finalize(&mut conn, Some(again)).await?;
    let target = Target::of(&context.sources, &r, None)?;
    preflight::primary_only(&connector, &mut conn, "finalize").await?;
    if r.state == State::Promoted {
        target.look_for_either().await?;
        // Promoted from a verify that saw rows: whoever deleted them since did not ask rekey.
        let how = verify::How { workers: args.workers.into(), may_be_empty: true };
        let mut checked = verify::check(context, &keys, &connector, &mut conn, &r, how, stop).await?;
        verify::record(context, &connector, &mut conn, &r, "finalize", &mut checked).await?;
        checked.report.into_clean()?;
    }
    if !is_settled(&target).await? {
        let new = key_pair::one(context, &keys, &r, Role::New).await?;
        settle(&mut conn, &alone, &target, &new.key).await?;
    }
    let ending = finalize(&mut conn, &alone, &target, args.recovery_window, &context.actor).await?;
    let now = rotation::by_id(&mut conn, r.id).await?;
    let (seq, hash) = audit::head(&mut conn).await?;
    context.last_word.say("finalized", Some("rekey report"));
    if context.json() {
        context.print_json(&json!({
            "outcome": "finalized", "ending": ending, "rotation": now, "event_head": format!("{seq}:{hash}"),
        }))?;
        return Ok(Exit::Ok);
    }
    println!("rotation {} is over; every connection is on the new key, {}", r.id, r.new_fingerprint);
    if let Some(label) = &ending.retired_label {
        println!("  the old key stays, labelled {label}: database backups taken before the rotation need it");
    }
    if let Some(secret) = &ending.deletion_scheduled {
        println!(
            "  secret {secret} is scheduled for deletion, {} days from when that was asked",
            args.recovery_window
        );
    }
    if let Some(secret) = &ending.already_gone {
        println!("  secret {secret} is gone already: somebody deleted it for good");
    }
    if let Some(secret) = &ending.left_alone {
        println!("  secret {secret} stays: the application may be given its key out of it");
    }
    if let Some(secret) = &ending.not_deleted {
        println!("  secret {secret} could not be deleted: delete it by hand");
    }
    println!("\nnext: rekey report");
    println!("audit chain head: {seq}:{hash}");
    Ok(Exit::Ok)
}

/// How long the labels of a rotation that is over may hold the refusal up.
const BRIEFLY: Duration = Duration::from_secs(5);

/// An earlier finalize may have been killed after its last commit, before its labels and its backup were gone.
async fn put_in_order(context: &Context, conn: &mut PgConnection, r: &Rotation) -> Result<()> {
    if Exclusive::take(conn).await.is_ok() {
        let target = Target::of(&context.sources, r, None)?;
        if tokio::time::timeout(BRIEFLY, clean_up(&target)).await.is_err() {
            tracing::warn!("our labels could not be looked for in {BRIEFLY:?}");
        }
    }
    Ok(())
}

async fn may_finalize(conn: &mut PgConnection, found: Option<Rotation>) -> Result<Rotation> {
    let Some(r) = found else {
        return Err(Error::new(Exit::State, "there is no rotation to finalize").hint("rekey run starts one"));
    };
    r.refuse_aborted()?;
    let hint = match r.state {
        State::Promoted | State::Finalizing => return Ok(r),
        State::Migrating => "rekey run, then rekey promote",
        State::Migrated | State::Promoting => "rekey promote",
        State::RollingBack | State::Unpromoting => "rekey rollback --yes finishes it",
        State::Finalized | State::RolledBack => "rekey run starts another rotation",
    };
    let exit = busy_or_state(conn, &r).await?;
    Err(Error::new(exit, format!("rotation {} is {}: it cannot be finalized", r.id, r.state)).hint(hint))
}
