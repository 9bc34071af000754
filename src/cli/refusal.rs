//! How a command that ends in an error says so: on stderr always, and with `--output json`, where there is no result, on
//! stdout with the same fields every time. The head of the audit chain is its last line, as it is a success's.

use std::io::Write as _;

use super::envelope::{Document, Form};
use super::last_lines::print_head;
use crate::error::Error;
use crate::telemetry::console::{Console, around_the_bar};
use crate::telemetry::logging;

/// An error, and the audit chain's head where the command had appended to it.
#[derive(Debug)]
pub struct Refused {
    pub error: Error,
    pub event_head: Option<String>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused { error, event_head: None }
    }
}

/// On stderr, whatever RUST_LOG leaves out.
pub fn tell(e: &Error, console: Console) {
    if console.json {
        tracing::error!(target: logging::NEVER_OFF, exit_code = e.exit.code(), hint = e.hint, "{e}");
    } else {
        // Colours are the one thing here that may act on a terminal.
        if console.colored {
            around_the_bar(|| _ = write!(std::io::stderr(), "\x1b[1;31merror:\x1b[0m "));
            eprintln!("{e}");
        } else {
            eprintln!("error: {e}");
        }
        if let Some(hint) = &e.hint {
            eprintln!("  try: {hint}");
        }
    }
}

/// On stdout: JSON in this form, or else only the head. One that is closed is no error: the exit code tells.
pub fn print(refused: &Refused, command: Option<&str>, json: Option<Form>) {
    let Refused { error, event_head } = refused;
    let Some(form) = json else { return print_head(event_head.as_deref()) };
    if let Ok(text) = Document::refused(error, event_head.as_deref()).text(command, form) {
        println!("{text}");
    }
}
