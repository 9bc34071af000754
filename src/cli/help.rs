//! Parsing, with a short help that is short: `-h` leaves out what `--help` and the manual pages say of each flag's
//! environment variable.

use clap::{Command, CommandFactory, FromArgMatches};

use super::args::Cli;

/// The command line, or what to print in its place.
pub fn parse() -> Result<Cli, clap::Error> {
    let short = std::env::args_os().any(|argument| argument == "-h");
    let command = if short { without_variables(Cli::command()) } else { Cli::command() };
    Cli::from_arg_matches(&command.try_get_matches()?)
}

fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_env(true)).mut_subcommands(without_variables)
}
