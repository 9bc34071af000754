//! `rekey report`: arguments, and JSON. The page for people is in [`html`].

mod html;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use uuid::Uuid;

use super::context::Context;
use super::refusal;
use crate::error::{Error, Exit, Result};
use crate::jobs::report::{self, Head, Which};

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
    /// A head of the audit chain that you noted earlier; exit 6 if the chain does not contain it
    #[arg(long, env = "REKEY_EXPECT", hide_env_values = true, value_name = "SEQ:HASH")]
    pub expect: Option<Head>,
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
    let report = report::report(context, which, args.expect).await?;
    match args.format {
        ReportFormat::Json => context.print_json(&report)?,
        ReportFormat::Html => html::print(&report)?,
    }
    // The report is the result; a refusal beside it would be a second one.
    let broken = match &report.expected {
        _ if !report.chain.intact => Error::new(Exit::VerifyFailed, "the audit trail's hash chain is broken")
            .hint("Compare it with the chain heads in shipped logs"),
        Some(noted) if !noted.contained => {
            Error::new(Exit::VerifyFailed, format!("the audit trail does not contain the head {}", noted.head))
                .hint("Check that DATABASE_URL names the right database. If it does, the trail was rewritten or restored")
        }
        _ => return Ok(Exit::Ok),
    };
    refusal::tell(&broken, context.global.log_format);
    Ok(broken.exit)
}
