//! `rekey report`: arguments, and JSON. The page for people is in [`html`].

mod html;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use uuid::Uuid;

use super::context::Context;
use super::refusal;
use crate::error::{Error, Exit, Result};
use crate::jobs::report::{self, Which};

/// `--format` of `report`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For machines.
    #[default]
    Json,
    /// For people.
    Html,
}

#[derive(Args)]
pub struct ReportArgs {
    /// How
    #[arg(long, env = "REKEY_FORMAT", hide_env_values = true, value_enum, default_value_t)]
    pub format: ReportFormat,
    /// Which rotation [default: the active one, or the latest]
    #[arg(long, env = "REKEY_ROTATION", hide_env_values = true, value_name = "ID", conflicts_with = "all")]
    pub rotation: Option<Uuid>,
    /// All rotations
    #[arg(long, env = "REKEY_ALL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub all: bool,
    /// Users and providers whose credentials were under the old key, and should reconnect after a compromise
    #[arg(long, env = "REKEY_AFFECTED", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub affected: bool,
}

/// Runs the command.
pub async fn run(args: ReportArgs, context: &Context) -> Result<Exit> {
    let which = match (args.all, args.rotation) {
        (true, _) => Which::All,
        (false, Some(id)) => Which::One(id),
        (false, None) => Which::Latest,
    };
    if args.affected {
        match report::affected(context, which).await?.as_slice() {
            [one] => context.print_json(one)?,
            several => context.print_json(&several)?,
        }
        return Ok(Exit::Ok);
    }
    let report = report::report(context, which).await?;
    match args.format {
        ReportFormat::Json => context.print_json(&report)?,
        ReportFormat::Html => html::print(&report)?,
    }
    if report.chain.intact {
        return Ok(Exit::Ok);
    }
    // The report is the result; a refusal beside it would be a second one.
    let broken = Error::new(Exit::VerifyFailed, "the audit trail's hash chain is broken")
        .hint("compare with the chain heads in shipped logs");
    refusal::tell(&broken, context.global.log_format);
    Ok(broken.exit)
}
