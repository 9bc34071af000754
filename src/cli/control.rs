//! `rekey pause`, `resume`, `abort`: arguments, and what is printed.

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::envelope::Document;
use super::last_lines::{print_head, print_next};
use super::options::deadline;
use crate::error::{Exit, Result};
use crate::jobs::control;
use crate::rotation::{Deadline, Desired};

#[derive(Args)]
pub struct ResumeArgs {
    /// New deadline: a duration or an RFC 3339 time
    #[arg(long, env = "REKEY_DEADLINE", hide_env_values = true, value_parser = deadline, value_name = "WHEN")]
    pub deadline: Option<Deadline>,
}

/// Lets workers finish their batch and wait.
pub async fn pause(context: &Context) -> Result<Exit> {
    set(context, Desired::Paused, None).await
}

/// Lets them go on.
pub async fn resume(args: ResumeArgs, context: &Context) -> Result<Exit> {
    set(context, Desired::Running, args.deadline).await
}

/// Lets workers finish their batch and end.
pub async fn abort(context: &Context) -> Result<Exit> {
    set(context, Desired::Aborted, None).await
}

async fn set(context: &Context, desired: Desired, deadline: Option<Deadline>) -> Result<Exit> {
    let done = control::set(context, desired, deadline).await?;
    if context.json() {
        let result = json!({ "rotation": done.rotation, "event_head": done.event_head });
        context.print_json(&Document::new(Exit::Ok, &result)?.next(&done.next))?;
        return Ok(Exit::Ok);
    }
    let says = match done.rotation.desired {
        Desired::Running => "workers continue",
        Desired::Paused => "workers finish their batch and wait",
        Desired::Aborted => "workers finish their batch and exit",
    };
    println!("rotation {}: {says}", done.rotation.id);
    print_next(&done.next);
    print_head(Some(&done.event_head));
    Ok(Exit::Ok)
}
