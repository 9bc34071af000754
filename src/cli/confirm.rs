//! Asking before something is changed that cannot simply be run again. No terminal and no `--yes`: usage, 2.

use std::io::{BufRead, IsTerminal, Write};

use crate::error::{Error, Exit, Result};

/// Returns if the operator agrees.
pub fn confirm(yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Error::new(Exit::Usage, format!("{question} Nobody can be asked here"))
            .hint("say --yes if it should"));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|e| Error::new(Exit::Usage, format!("cannot read the answer: {e}")))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::new(Exit::Usage, "not confirmed; nothing was changed")),
    }
}
