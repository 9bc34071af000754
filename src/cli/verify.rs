//! `rekey verify`: arguments, and JSON. What is printed for people is in [`verify_text`].

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::options::KeyArgs;
use super::signals;
use super::verify_text;
use crate::engine::VerifyReport;
use crate::error::{Exit, Result};
use crate::jobs::verify::{self, VerifyRequest};
use crate::rotation::Step;
use crate::store::ledger::Rotation;

#[derive(Args)]
pub struct VerifyArgs {
    /// Workers that read and decrypt rows
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    #[command(flatten)]
    pub keys: KeyArgs,
}

#[derive(Serialize)]
struct Printed<'a> {
    rotation: &'a Rotation,
    key: &'static str,
    exit_code: u8,
    recorded: bool,
    #[serde(flatten)]
    report: &'a VerifyReport,
    next: &'a [Step],
    event_head: Option<&'a str>,
}

/// Runs the command.
pub async fn run(args: VerifyArgs, context: &Context) -> Result<Exit> {
    let request = VerifyRequest { workers: args.workers.into(), keys: args.keys.named()? };
    let verified = verify::verify(context, &request, signals::listen()?).await?;
    let exit = verified.report.exit();
    context.say_next(&verify_text::headline(&verified, exit), &verified.next);
    if context.json() {
        context.print_json(&Printed {
            rotation: &verified.rotation,
            key: verified.rotation.direction().target(),
            exit_code: exit.code(),
            recorded: verified.recorded,
            report: &verified.report,
            next: &verified.next,
            event_head: verified.event_head.as_deref(),
        })?;
    } else {
        verify_text::print(&verified, exit);
    }
    Ok(exit)
}
