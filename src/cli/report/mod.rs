//! `rekey report`: arguments, and which format. The formats are in [`crate::pages`].

mod affected;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use uuid::Uuid;

use super::context::Context;
use super::envelope::Document;
use crate::error::{Error, Exit, Result};
use crate::jobs::report::{self, Head, Report, Which};
use crate::pages::report::Pages;
use affected::{Csv, Json};

/// `--format` of `report`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// JSON for scripts
    #[default]
    Json,
    /// For people: one page that needs nothing else, to be read, printed and filed.
    Html,
    /// For a terminal.
    Text,
    /// For a spreadsheet; of `--affected` only.
    Csv,
}

#[derive(Args)]
pub struct ReportArgs {
    /// Format of the report
    #[arg(long, env = "REKEY_FORMAT", hide_env_values = true, value_enum, default_value_t)]
    pub format: ReportFormat,
    /// Id of the rotation [default: the active one, or the latest]
    #[arg(long, env = "REKEY_ROTATION", hide_env_values = true, value_name = "ID", conflicts_with = "all")]
    pub rotation: Option<Uuid>,
    /// All rotations
    #[arg(long, env = "REKEY_ALL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub all: bool,
    /// List users and providers whose credentials were on the old key and who should reconnect after a leak
    #[arg(long, env = "REKEY_AFFECTED", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub affected: bool,
    /// Audit chain head that you noted earlier; exit 6 if the chain does not contain it
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
        return affected(context, which, args.format).await;
    }
    if args.format == ReportFormat::Csv {
        return Err(Error::new(Exit::Usage, "`--format csv` is for `--affected` only")
            .hint("Choose `--format json`, `html` or `text`, or add `--affected`"));
    }
    let report = report::report(context, which, args.expect).await?;
    let broken = broken(&report);
    let exit = broken.as_ref().map_or(Exit::Ok, |e| e.exit);
    if args.format == ReportFormat::Json && context.json() {
        let document = Document::new(exit, &report)?.head(Some(&report.chain.head));
        context.print_json(&broken.iter().fold(document, Document::because))?;
    } else {
        print(&report, args.format)?;
    }
    // The report is the result; a refusal beside it would be a second one.
    if let Some(broken) = &broken {
        context.fail_beside_result(broken);
    }
    Ok(exit)
}

/// A file of its own, whose SHA-256 is known.
fn print(report: &Report, format: ReportFormat) -> Result<()> {
    let pages = Pages::of(report)?;
    match format {
        ReportFormat::Json => println!("{}", pages.json()),
        ReportFormat::Text => println!("{}", pages.text()?),
        ReportFormat::Html | ReportFormat::Csv => {
            println!("{}", pages.html()?);
            eprintln!("SHA-256 of the report's JSON: {}", pages.sha256());
        }
    }
    Ok(())
}

/// What the audit trail itself has against it.
fn broken(report: &Report) -> Option<Error> {
    Some(match &report.expected {
        _ if !report.chain.intact => Error::new(Exit::VerifyFailed, "the audit trail's hash chain is broken")
            .hint("Compare it with the chain heads in your stored logs"),
        _ if report.contradicts() => Error::new(
            Exit::VerifyFailed,
            "the ledger claims what the audit trail contradicts: `contradictions` in the report names it",
        )
        .hint("Find out who changed rekey's tables, and put back what the audit trail says"),
        Some(noted) if !noted.contained => Error::new(
            Exit::VerifyFailed,
            format!("the audit trail does not contain the head {}", noted.head),
        )
        .hint(
            "Check that DATABASE_URL names the right database. If it does, the trail was rewritten \
                    or restored",
        ),
        _ => return None,
    })
}

/// Whose credentials were under the old key.
async fn affected(context: &Context, which: Which, format: ReportFormat) -> Result<Exit> {
    if matches!(format, ReportFormat::Html | ReportFormat::Text) {
        return Err(Error::new(Exit::Usage, "`--affected` is printed as JSON or CSV only")
            .hint("Choose `--format json` or `--format csv`"));
    }
    if format == ReportFormat::Csv {
        let mut csv = Csv::new();
        report::affected(context, which, &mut csv).await?;
        return csv.finish().map(|()| Exit::Ok);
    }
    let mut json = Json::new(context);
    let listed = report::affected(context, which, &mut json).await;
    json.finish(listed)
}
