//! `rekey completions SHELL`: the completion script, on stdout.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::error::{Error, Exit, Result};

#[derive(Args)]
pub struct CompletionsArgs {
    /// Shell to complete for
    shell: Shell,
}

/// Prints it for all that `rekey` understands.
pub fn run(args: CompletionsArgs, mut rekey: Command) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut rekey, "rekey", &mut script);
    super::man::to_stdout(&script)
        .map_err(|e| Error::new(Exit::Internal, format!("can't print the script: {e}")))?;
    Ok(Exit::Ok)
}
