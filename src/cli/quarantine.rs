//! `rekey quarantine list | retry | accept`: arguments, and what is printed. The end of a retry is printed by [`summary`].

mod accept;

use clap::Subcommand;
use clap::builder::BoolishValueParser;
use uuid::Uuid;

use super::context::Context;
use super::envelope::Document;
use super::last_lines::{print_head, print_next, witness};
use super::list::List;
use super::options::{KeyArgs, WorkArgs, given};
use super::{signals, summary};
use crate::error::{Exit, Result};
use crate::jobs::quarantine::{self, Listing, RetryRequest};
use crate::manual::examples;
use crate::store::ledger::quarantine::Entry;

#[derive(Subcommand)]
pub enum QuarantineCommand {
    /// List quarantined rows and the reason for each
    #[command(after_long_help = examples::QUARANTINE_LIST)]
    List,
    /// Retry the quarantined rows after a repair
    #[command(after_long_help = examples::QUARANTINE_RETRY)]
    Retry {
        /// An older key that some rows may be on; rekey re-encrypts those rows too
        #[arg(long, env = "REKEY_ALSO_KEY", hide_env_values = true, value_name = "SOURCE")]
        also_key: Option<String>,
        #[command(flatten)]
        keys: Box<KeyArgs>,
        #[command(flatten)]
        work: Box<WorkArgs>,
    },
    /// Accept an unrepairable row; verify, promote, finalize and rollback then tolerate it
    #[command(after_long_help = examples::QUARANTINE_ACCEPT)]
    Accept {
        /// Id of the row
        id: Uuid,
        /// Don't ask for confirmation
        #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
        yes: bool,
        #[command(flatten)]
        keys: Box<KeyArgs>,
    },
}

/// Runs the command.
pub async fn run(command: QuarantineCommand, context: &Context) -> Result<Exit> {
    match command {
        QuarantineCommand::List => list(context).await,
        QuarantineCommand::Retry { keys, work, also_key } => {
            let (also_key, keys, work) = (given("--also-key", &also_key)?, keys.named()?, work.request()?);
            let request = RetryRequest { also_key, keys, work };
            let stop = signals::listen()?;
            summary::print(context, &quarantine::retry(context, &request, stop).await?)
        }
        QuarantineCommand::Accept { id, yes, keys } => accept::run(context, id, yes, keys.named()?).await,
    }
}

async fn list(context: &Context) -> Result<Exit> {
    let mut listing = Listing::open(context).await?;
    if context.json() {
        return list_as_json(context, listing).await;
    }
    let mut shown = 0;
    loop {
        let entries = listing.page().await?;
        if entries.is_empty() {
            break;
        }
        if shown == 0 {
            println!("{:<36}  {:<12} {:>9}  accepted", "id", "reason", "bytes");
        }
        shown += entries.len();
        entries.iter().for_each(text_entry);
    }
    let (next, event_head) = listing.close(context).await?;
    match shown {
        0 => println!("no row is quarantined"),
        _ => {
            println!();
            print_next(&next);
        }
    }
    print_head(event_head.as_deref());
    Ok(Exit::Ok)
}

/// A page at a time. An error after the first entries ends the document that was begun.
async fn list_as_json(context: &Context, mut listing: Listing) -> Result<Exit> {
    let mut entries = listing.page().await?;
    let mut list = List::begin(context.command(), "result")?;
    let ended = loop {
        for entry in &entries {
            list.entry(entry)?;
        }
        entries = match listing.page().await {
            Ok(more) if more.is_empty() => break listing.close(context).await,
            Ok(more) => more,
            Err(e) => break Err(e),
        };
    };
    let document = match &ended {
        Ok((next, head)) => Document::without_result(Exit::Ok).next(next).head(head.as_deref()),
        Err(e) => Document::without_result(context.fail_beside_result(e)).because(e),
    };
    list.end(&document)?;
    document.event_head().map(witness);
    Ok(document.exit())
}

fn text_entry(e: &Entry) {
    let accepted = match (&e.accepted_by, &e.accept_reason) {
        (Some(by), why) => format!("by {by}: {}", why.as_deref().unwrap_or("-")),
        _ => "no".into(),
    };
    let length = e.length.map_or_else(String::new, |l| l.to_string());
    println!("{:<36}  {:<12} {length:>9}  {accepted}", e.id, e.reason);
}
