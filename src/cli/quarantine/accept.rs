//! `rekey quarantine accept`: the question, with the facts, and what is printed.

use serde_json::json;
use uuid::Uuid;

use crate::cli::confirm::{self, Answer};
use crate::cli::context::Context;
use crate::cli::envelope::Document;
use crate::cli::last_lines::{print_head, print_next};
use crate::cli::signals;
use crate::error::{Error, Exit, Result};
use crate::jobs::interrupt::unless_stopped;
use crate::jobs::key_pair::NamedKeys;
use crate::jobs::quarantine::{self, AcceptRequest, Candidate};

/// Each row has a reason of its own: one that is exported for the day is none.
pub async fn run(context: &Context, id: Uuid, yes: bool, keys: NamedKeys) -> Result<Exit> {
    let Some(reason) = context.global.reason.clone().filter(|_| context.global.own_reason) else {
        return Err(Error::new(
            Exit::Usage,
            "accepting a row needs its own `--reason`; REKEY_REASON is not one",
        )
        .hint(format!("Run `rekey quarantine accept {id} --reason TEXT`")));
    };
    context.connector()?;
    let asks = confirm::is_needed(yes)?;
    let mut stop = signals::listen()?;
    let request = AcceptRequest { id, keys, reason };
    let candidate = unless_stopped(&mut stop, quarantine::look(context, &request)).await?;
    if asks {
        show(&candidate);
        confirm::ask(
            "This row's credential is lost if you accept it: its user has to reconnect. Continue?",
            Answer::Yes,
        )?;
    }
    let accepting = quarantine::accept(context, &candidate, &request.reason);
    let done = unless_stopped(&mut stop, accepting).await?;
    if context.json() {
        let result = json!({ "accepted": id, "event_head": done.event_head });
        context.print_json(&Document::new(Exit::Ok, &result)?.next(&done.next))?;
    } else {
        println!("row {id} is accepted; rekey leaves it unchanged");
        print_next(&done.next);
        print_head(Some(&done.event_head));
    }
    Ok(Exit::Ok)
}

/// What the question is about.
fn show(Candidate { entry, rotation, database, .. }: &Candidate) {
    let line = |name: &str, value: &str| eprintln!("  {name:<12}{value}");
    line("database", database);
    line("rotation", &format!("{}, {}", rotation.id, rotation.state));
    line(
        "keys",
        &format!("{} → {}; neither decrypts it", rotation.old_fingerprint, rotation.new_fingerprint),
    );
    line("connection", &entry.id.to_string());
    let bytes = entry.length.map_or_else(String::new, |bytes| format!(", {bytes} bytes"));
    line("quarantined", &format!("{}{bytes}, found {}", entry.reason, entry.found_at));
    if let Some(content) = &entry.content {
        line("content", content);
    }
}
