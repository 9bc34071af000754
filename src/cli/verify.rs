//! `rekey verify`: arguments, and JSON. What is printed for people is in [`verify_text`].

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::envelope::Document;
use super::options::KeyArgs;
use super::signals;
use super::verify_text;
use crate::engine::VerifyReport;
use crate::error::{Exit, Result};
use crate::jobs::verify::{self, VerifyRequest};
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
    recorded: bool,
    #[serde(flatten)]
    report: &'a VerifyReport,
    event_head: Option<&'a str>,
}

/// Runs the command.
pub async fn run(args: VerifyArgs, context: &Context) -> Result<Exit> {
    let request = VerifyRequest { workers: args.workers.into(), keys: args.keys.named()? };
    let verified = verify::verify(context, &request, signals::listen()?).await?;
    let exit = verified.report.exit();
    let outcome = verify_text::headline(&verified, exit);
    context.say_next(&outcome, &verified.next);
    if context.json() {
        let result = Printed {
            rotation: &verified.rotation,
            key: verified.rotation.direction().target(),
            recorded: verified.recorded,
            report: &verified.report,
            event_head: verified.event_head.as_deref(),
        };
        context.print_json(&Document::new(exit, &result)?.outcome(&outcome).next(&verified.next))?;
    } else {
        verify_text::print(&verified, exit);
    }
    Ok(exit)
}
