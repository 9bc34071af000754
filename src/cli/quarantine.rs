//! `rekey quarantine list | retry | accept`.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::context::Context;
use super::options::{KeyArgs, WorkArgs, given};
use super::{examples, signals, summary};
use crate::crypto::EncryptionKey;
use crate::error::{Error, Exit, Result};
use crate::jobs::key_pair::{self, NamedKeys};
use crate::jobs::preflight::primary_only;
use crate::jobs::work::{self, WorkRequest};
use crate::jobs::{Ended, access, settle, standing};
use crate::rotation::{Command, State};
use crate::store::ledger::quarantine::{Acceptance, Entry};
use crate::store::ledger::{chunk, quarantine, rotation};
use crate::store::{Purpose, audit, connect, facts};

#[derive(Subcommand)]
pub enum QuarantineCommand {
    /// Ids and reasons
    #[command(after_long_help = examples::QUARANTINE_LIST)]
    List,
    /// Try the rows again, after they were repaired
    #[command(after_long_help = examples::QUARANTINE_RETRY)]
    Retry {
        /// A still older key some rows may be on; they move to the target too
        #[arg(long, env = "REKEY_ALSO_KEY", hide_env_values = true, value_name = "SOURCE")]
        also_key: Option<String>,
        #[command(flatten)]
        keys: Box<KeyArgs>,
        #[command(flatten)]
        work: Box<WorkArgs>,
    },
    /// Accept a row nobody can repair; verify, promote, finalize and rollback then tolerate it
    #[command(after_long_help = examples::QUARANTINE_ACCEPT)]
    Accept {
        /// The row
        id: Uuid,
    },
}

/// Runs the command.
pub async fn run(command: QuarantineCommand, context: &Context) -> Result<Exit> {
    match command {
        QuarantineCommand::List => list(context).await,
        QuarantineCommand::Retry { keys, work, also_key } => {
            retry(context, &keys.named()?, &work.request()?, also_key).await
        }
        QuarantineCommand::Accept { id } => accept(context, id).await,
    }
}

fn none() -> Error {
    Error::new(Exit::State, "there is no rotation, so nothing is quarantined").hint("rekey run starts one")
}

async fn list(context: &Context) -> Result<Exit> {
    let mut conn = context.connector()?.connect(Purpose::Control).await?;
    let r = rotation::latest(&mut conn).await?;
    let (mut shown, mut after) = (0, None);
    // A page at a time: there may be very many.
    while let Some(r) = &r {
        let entries = quarantine::page(&mut conn, r.id, after).await?;
        let Some(last) = entries.last() else { break };
        after = Some(last.id);
        for e in &entries {
            match (context.json(), shown) {
                (true, 0) => println!("["),
                (true, _) => println!(","),
                (false, 0) => println!("{:<36}  {:<12} {:>9}  accepted", "id", "reason", "bytes"),
                (false, _) => {}
            }
            shown += 1;
            if context.json() { json_entry(e)? } else { text_entry(e) }
        }
    }
    match (context.json(), shown) {
        (true, 0) => println!("[]"),
        (true, _) => println!("\n]"),
        (false, 0) => println!("no row is quarantined"),
        (false, _) => println!(
            "\nnext: repair the rows and rekey quarantine retry, or rekey quarantine accept ID --reason TEXT"
        ),
    }
    if !context.json()
        && let Some(head) = audit::head_line(&mut conn).await
    {
        println!("audit chain head: {head}");
    }
    Ok(Exit::Ok)
}

fn json_entry(e: &Entry) -> Result<()> {
    let text = serde_json::to_string(e)
        .map_err(|e| Error::new(Exit::Internal, format!("cannot print the result: {e}")))?;
    print!("  {text}");
    Ok(())
}

fn text_entry(e: &Entry) {
    let accepted = match (&e.accepted_by, &e.accept_reason) {
        (Some(by), why) => format!("by {by}: {}", why.as_deref().unwrap_or("-")),
        _ => "no".into(),
    };
    let length = e.length.map_or_else(String::new, |l| l.to_string());
    println!("{:<36}  {:<12} {length:>9}  {accepted}", e.id, e.reason);
}

/// The closing proof looks at every quarantined row again: retrying is sweeping once more.
async fn retry(
    context: &Context,
    keys: &NamedKeys,
    args: &WorkRequest,
    also: Option<String>,
) -> Result<Exit> {
    let connector = context.connector()?;
    let stop = signals::listen()?;
    let also = given(&also)?;
    let mut conn = connector.connect(Purpose::Control).await?;
    primary_only(&connector, &mut conn, "quarantine retry").await?;
    let command = Command::QuarantineRetry { deadline: args.deadline.is_some() };
    let r = standing::permitted(context, &mut conn, command).await?;
    let direction = r.direction();
    let pair = key_pair::for_rotation(context, keys, &r).await?;
    let mut accessed = access::both(&pair);
    let also: Option<EncryptionKey> = match also {
        Some(source) => {
            let key = key_pair::fetch(context, &source).await?;
            let fingerprint = key.fingerprint().to_string();
            accessed
                .push(json!({ "role": "also", "source": source.to_string(), "fingerprint": fingerprint }));
            Some(key)
        }
        None => None,
    };
    args.store_deadline(&mut conn, r.id).await?;
    let facts = facts::table(&mut conn).await?;
    let settings = args.settings(context, &facts);
    let before = chunk::totals(&mut conn, r.id, direction).await?;
    let rewrapper = work::rewrapper(&pair, r.id, direction, also.as_ref())?;
    drop((pair, also));
    access::record(context, &mut conn, r.id, "quarantine retry", accessed).await?;
    audit::append(
        &mut conn,
        Some(r.id),
        "quarantine_retry",
        &context.actor,
        json!({ "rows": before.quarantined }),
    )
    .await?;
    connect::close(conn).await;
    let how = (settings, args.limits(direction));
    let (end, took) = work::drive(context, &r, direction, rewrapper, how, stop).await?;
    let mut conn = work::connect_to_tell(&connector, &end).await?;
    let ended = Ended { direction, end, took, before, cache: None };
    summary::print(context, &settle(context, &mut conn, r.id, ended).await?)
}

async fn accept(context: &Context, id: Uuid) -> Result<Exit> {
    let Some(reason) = &context.global.reason else {
        return Err(Error::new(Exit::Usage, "accepting a row needs a reason")
            .hint(format!("rekey quarantine accept {id} --reason TEXT")));
    };
    let connector = context.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    primary_only(&connector, &mut conn, "quarantine accept").await?;
    let r = rotation::latest(&mut conn).await?.ok_or_else(none)?;
    // Late writers are swept up even after a rollback, and what they wrote may be such a row.
    if r.state == State::Finalized {
        return Err(Error::new(Exit::State, format!("rotation {} is {}", r.id, r.state)).hint("rekey status"));
    }
    match quarantine::accept(&mut conn, r.id, id, None, reason, &context.actor).await? {
        Acceptance::Recorded => {}
        Acceptance::NotQuarantined => {
            return Err(Error::new(Exit::Usage, format!("connection {id} is not quarantined"))
                .hint("rekey quarantine list"));
        }
        Acceptance::Changed => {
            return Err(Error::new(
                Exit::State,
                format!("connection {id} has changed, or holds no credential"),
            )
            .hint("Run `rekey quarantine retry` to look at the row again"));
        }
    }
    let (seq, hash) = audit::head(&mut conn).await?;
    if context.json() {
        context.print_json(&json!({ "accepted": id, "event_head": format!("{seq}:{hash}") }))?;
    } else {
        println!("connection {id} is accepted as it is; it stays untouched");
        println!("audit chain head: {seq}:{hash}");
    }
    Ok(Exit::Ok)
}
