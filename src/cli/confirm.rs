//! Asking before something is changed that cannot simply be run again, with the facts it is about. What ends something for
//! good is typed as a word. No terminal and no `--yes`: usage, 2.

use std::io::{BufRead, IsTerminal, Write};

use crate::error::{Error, Exit, Result};
use crate::jobs::stakes::{Milestone, Stakes};
use crate::telemetry::progress::thousands;
use crate::text::age::age;

/// What an operator has to type to agree.
#[derive(Clone, Copy)]
pub enum Answer<'a> {
    /// `y`
    Yes,
    /// This very word: there is no way back.
    Word(&'a str),
}

/// Whether the operator has to be asked; refuses where there is no terminal to ask at.
pub fn is_needed(yes: bool) -> Result<bool> {
    if yes {
        return Ok(false);
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Error::new(Exit::Usage, "confirmation needed, but there is no terminal")
            .hint("Pass `--yes` on the command line"));
    }
    Ok(true)
}

/// Returns if the operator agrees, or has agreed with `--yes`.
pub fn confirm(yes: bool, question: &str) -> Result<()> {
    if is_needed(yes)? { ask(question, Answer::Yes) } else { Ok(()) }
}

/// Returns if the operator agrees.
pub fn ask(question: &str, answer: Answer<'_>) -> Result<()> {
    match answer {
        Answer::Yes => eprint!("{question} [y/N] "),
        Answer::Word(word) => eprint!("{question}\nType {word} to continue: "),
    }
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut typed)
        .map_err(|e| Error::new(Exit::Usage, format!("can't read the answer: {e}")))?;
    let agreed = match answer {
        Answer::Yes => ["y", "yes"].contains(&typed.trim().to_ascii_lowercase().as_str()),
        Answer::Word(word) => typed.trim() == word,
    };
    if agreed { Ok(()) } else { Err(Error::new(Exit::Usage, "not confirmed; nothing was changed")) }
}

/// Shows what a command is about to change.
pub fn show(stakes: &Stakes) {
    let r = &stakes.rotation;
    let line = |name: &str, value: &str| eprintln!("  {name:<10}{value}");
    line("database", &stakes.database);
    line("rotation", &format!("{}, {}", r.id, r.state));
    line("keys", &format!("{} → {}", r.old_fingerprint, r.new_fingerprint));
    let accepted = match stakes.accepted {
        0 => String::new(),
        rows => format!(", {} of them accepted", thousands(rows)),
    };
    line("rows", &format!("{}{accepted}", thousands(stakes.rows)));
    line(
        "verified",
        &match (&stakes.verified, r.verified_clean) {
            (Some(verify), Some(clean)) => {
                format!("{}, {}", if clean { "clean" } else { "not clean" }, by(verify))
            }
            _ => "not yet".to_owned(),
        },
    );
    if let Some(promotion) = &stakes.promoted {
        line("promoted", &by(promotion));
    }
}

fn by(milestone: &Milestone) -> String {
    format!("{} ago by {}", age(milestone.seconds_ago), milestone.operator)
}
