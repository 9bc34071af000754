//! What `--output json` prints on stdout where a command has no result: the error, with the same fields every time.
//! On stderr it is told as always.

use serde::Serialize;

use crate::error::Error;

#[derive(Serialize)]
struct Refusal<'a> {
    outcome: &'a str,
    exit_code: u8,
    meaning: &'static str,
    error: &'a str,
    hint: Option<&'a str>,
}

/// Prints it. A stdout that is closed is no error: the exit code tells.
pub fn print(e: &Error) {
    let refusal = Refusal {
        outcome: "error",
        exit_code: e.exit.code(),
        meaning: e.exit.meaning(),
        error: &e.message,
        hint: e.hint.as_deref(),
    };
    if let Ok(text) = serde_json::to_string_pretty(&refusal) {
        println!("{text}");
    }
}
