//! `rekey completions SHELL`: the completion script, on stdout.

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Cli;
use crate::error::{Error, Exit, Result};

/// Prints it.
pub fn print(shell: Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rekey", &mut script);
    super::man::to_stdout(&script).map_err(|e| Error::new(Exit::Internal, format!("cannot print: {e}")))?;
    Ok(Exit::Ok)
}
