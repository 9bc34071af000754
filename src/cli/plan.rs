//! `rekey plan`: arguments. What is printed for people is in [`plan_text`].

use clap::Args;

use super::context::Context;
use super::envelope::Document;
use super::options::{KeyArgs, WorkArgs};
use super::plan_text;
use crate::error::{Exit, Result};
use crate::jobs::plan::{self, PlanRequest};

#[derive(Args)]
pub struct PlanArgs {
    /// Measure a run: write this many rows in transactions that are rolled back
    #[arg(long, env = "REKEY_REHEARSE", hide_env_values = true, value_parser = clap::value_parser!(u64).range(1..=10_000_000), value_name = "ROWS")]
    pub rehearse: Option<u64>,
    #[command(flatten)]
    pub keys: KeyArgs,
    #[command(flatten)]
    pub work: WorkArgs,
}

/// Runs the command.
pub async fn run(args: PlanArgs, context: &Context) -> Result<Exit> {
    let request =
        PlanRequest { rehearse: args.rehearse, keys: args.keys.named()?, work: args.work.request()? };
    let plan = plan::plan(context, &request).await?;
    let exit = plan.report.exit();
    let outcome = match exit {
        Exit::Ok if plan.report.may_only_look() => {
            "no blockers for a run by a role that can write; this role can only plan and verify"
        }
        Exit::Ok if plan.rotation.is_some() => "no blockers: the rotation can continue",
        Exit::Ok => "no blockers: ready to run",
        _ => "refused: see the findings",
    };
    context.say_next(outcome, &plan.next);
    if context.json() {
        context.print_json(&Document::new(exit, &plan)?.outcome(outcome).next(&plan.next))?;
    } else {
        plan_text::print(outcome, &plan);
    }
    Ok(exit)
}
