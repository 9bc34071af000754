//! `rekey pause`, `resume`, `abort`: set what is wanted in the database; every worker obeys within one batch.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::options::deadline;
use crate::error::{Error, Exit, Result};
use crate::jobs::preflight::primary_only;
use crate::rotation::{Deadline, Desired};
use crate::store::ledger::{Rotation, rotation};
use crate::store::{Purpose, audit};

#[derive(Args)]
pub struct ResumeArgs {
    /// A new end of the window
    #[arg(long, env = "REKEY_DEADLINE", hide_env_values = true, value_parser = deadline, value_name = "WHEN")]
    pub deadline: Option<Deadline>,
}

/// Lets workers finish their batch and wait.
pub async fn pause(context: &Context) -> Result<Exit> {
    set(context, "pause", Desired::Paused, None).await
}

/// Lets them go on.
pub async fn resume(args: ResumeArgs, context: &Context) -> Result<Exit> {
    set(context, "resume", Desired::Running, args.deadline).await
}

/// Lets workers finish their batch and end.
pub async fn abort(context: &Context) -> Result<Exit> {
    set(context, "abort", Desired::Aborted, None).await
}

async fn set(context: &Context, name: &str, desired: Desired, deadline: Option<Deadline>) -> Result<Exit> {
    let connector = context.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    primary_only(&connector, &mut conn, name).await?;
    let active = rotation::latest(&mut conn).await?.filter(|r| r.state.is_active());
    let none = || Error::new(Exit::State, "there is no active rotation").hint("rekey status");
    let Some(r) = active else { return Err(none()) };
    if desired == Desired::Paused && r.desired == Desired::Aborted {
        return Err(Error::new(Exit::State, format!("rotation {} was aborted", r.id))
            .hint("rekey resume, or rekey rollback"));
    }
    if !rotation::set_desired(&mut conn, r.id, desired, &context.actor).await? {
        // It came to its end while we looked.
        return Err(none());
    }
    if let Some(deadline) = deadline {
        // One of the environment that has passed was lifted just now.
        if !deadline.standing || !rotation::left_until(&mut conn, deadline.at).await?.is_zero() {
            rotation::set_deadline(&mut conn, r.id, deadline).await?;
        }
    }
    let now = rotation::by_id(&mut conn, r.id).await?;
    let (seq, hash) = audit::head(&mut conn).await?;
    if context.json() {
        context.print_json(&json!({ "rotation": now, "event_head": format!("{seq}:{hash}") }))?;
    } else {
        text(&now);
        println!("audit chain head: {seq}:{hash}");
    }
    Ok(Exit::Ok)
}

fn text(r: &Rotation) {
    let (says, next) = match r.desired {
        Desired::Running => ("workers go on", "rekey run, if none is running; rekey status"),
        Desired::Paused => ("workers finish their batch and wait", "rekey resume"),
        Desired::Aborted => ("workers finish their batch and end", "rekey resume, or rekey rollback"),
    };
    println!("rotation {}: {says}", r.id);
    println!("next: {next}");
}
