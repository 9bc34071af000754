//! Parsing, with a short help that is short: `-h` leaves out what `--help` and the manual pages say of each flag's
//! environment variable.

use clap::{Command, CommandFactory, FromArgMatches};

use super::args::Cli;

/// The command line, or what to print in its place.
pub fn parse() -> Result<Cli, clap::Error> {
    let short = std::env::args_os().any(|argument| argument == "-h");
    let command = without_empty_variables(Cli::command());
    let command = if short { without_variables(command) } else { command };
    Cli::from_arg_matches(&command.try_get_matches()?)
}

fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_env(true)).mut_subcommands(without_variables)
}

/// A variable that is set to nothing says nothing: templates of pods leave such behind.
fn without_empty_variables(command: Command) -> Command {
    let quiet = |arg: clap::Arg| {
        let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if empty { arg.env(clap::builder::Resettable::Reset) } else { arg }
    };
    command.mut_args(quiet).mut_subcommands(without_empty_variables)
}

/// Whether JSON was asked for on a command line that could not be understood.
pub fn wants_json() -> bool {
    let said: Vec<_> = std::env::args().skip(1).collect();
    let asked = said.iter().any(|a| a == "--output=json")
        || said.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    asked || std::env::var("REKEY_OUTPUT").is_ok_and(|form| form == "json")
}
