//! From the command line and the environment to arguments: flags go before variables also where the two exclude each
//! other, a variable that says nothing is none, and `-h` leaves out what `--help` says of each flag's variable. What was
//! not understood is repeated only where it cannot be a secret.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, ColorChoice, Command, CommandFactory, FromArgMatches, ValueEnum as _};

use super::command::Cli;
use super::variables::{called_by_its_variable, said};
use crate::manual::help;
use crate::telemetry::console::{Color, Console, LogFormat};

/// The command line, or what to print in its place.
pub fn parse() -> Result<Cli, clap::Error> {
    understood().map_err(called_by_its_variable).map_err(without_secrets)
}

fn understood() -> Result<Cli, clap::Error> {
    let short = std::env::args_os().any(|argument| argument == "-h");
    let color = match said("--color").as_deref() {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    };
    let command = without_empty_variables(Cli::command().color(color));
    let command = if short { help::short(without_variables(command)) } else { help::long(command) };
    let matches = match command.clone().try_get_matches() {
        Err(e) if e.kind() == ErrorKind::ArgumentConflict => flags_first(command).try_get_matches()?,
        done => done?,
    };
    let mut cli = Cli::from_arg_matches(&matches)?;
    cli.global.own_reason = typed(&matches, "reason");
    cli.global.command = words(&matches);
    Ok(cli)
}

/// Whether an argument stands on the command line itself, before or after the command's name.
fn typed(matches: &ArgMatches, id: &str) -> bool {
    let here = matches.try_contains_id(id).unwrap_or(false)
        && matches.value_source(id) == Some(ValueSource::CommandLine);
    here || matches.subcommand().is_some_and(|(_, deeper)| typed(deeper, id))
}

/// The words of the command: `quarantine accept`.
fn words(matches: &ArgMatches) -> Option<String> {
    let (name, deeper) = matches.subcommand()?;
    Some(words(deeper).map_or_else(|| name.to_owned(), |more| format!("{name} {more}")))
}

/// The same of a command line that could not be understood, as far as it was.
pub fn command_meant() -> Option<String> {
    words(&Cli::command().ignore_errors(true).try_get_matches().ok()?)
}

/// clap repeats what it does not understand, which may be a key or the URL of a Redis with its password.
fn without_secrets(mut e: clap::Error) -> clap::Error {
    use ContextKind::{InvalidArg, InvalidSubcommand, InvalidValue, Suggested};
    let typed: &[ContextKind] = match e.kind() {
        ErrorKind::UnknownArgument => &[InvalidArg],
        ErrorKind::InvalidSubcommand => &[InvalidSubcommand],
        // The rest name our own arguments and commands, beside a value that was typed.
        _ => &[InvalidValue],
    };
    for &kind in typed {
        let Some(ContextValue::String(said)) = e.get(kind) else { continue };
        if !is_plain_word(said) && !is_amount(said) {
            e.insert(kind, ContextValue::String("(not shown)".to_owned()));
            // In place of clap's "to pass '…' as a value", which repeats it too.
            let tip =
                "rekey does not repeat what may be a secret. Name a key by its source: env:VAR, file:PATH, …";
            e.insert(Suggested, ContextValue::StyledStrs(vec![tip.to_owned().into()]));
        }
    }
    e
}

/// A word like a command's or a flag's, mistyped: too short for a key, or without what makes a key hard to guess.
fn is_plain_word(text: &str) -> bool {
    let text = text.trim();
    let short = text.len() < 20 || text.starts_with("--");
    short && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

/// A number, perhaps with its unit: `99`, `-1`, `10min`, `0.5s`.
fn is_amount(text: &str) -> bool {
    let digits = text.trim_start_matches('-');
    text.len() <= 8
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

/// Arguments that exclude each other, by id: two of them are a conflict to clap even if one is a variable.
const RIVALS: [(&str, &str); 8] = [
    ("env_file", "to"),
    ("env_file", "stdout"),
    ("to", "stdout"),
    ("force", "stdout"),
    ("source", "env_file"),
    ("sources", "env_file"),
    ("rotation", "all"),
    ("quiet", "verbose"),
];

/// Without the variables whose rival is on the command line: a flag goes before the environment.
fn flags_first(command: Command) -> Command {
    let Ok(said) = command.clone().ignore_errors(true).try_get_matches() else { return command };
    let mut said = &said;
    while let Some((_, deeper)) = said.subcommand() {
        said = deeper;
    }
    let given = |id: &str| {
        said.try_contains_id(id).unwrap_or(false) && said.value_source(id) == Some(ValueSource::CommandLine)
    };
    let both_ways = RIVALS.iter().flat_map(|&(a, b)| [(a, b), (b, a)]);
    let beaten: Vec<&str> = both_ways.filter(|&(a, _)| given(a)).map(|(_, b)| b).collect();
    without_variables_of(command, &beaten)
}

fn without_variables_of(command: Command, ids: &[&str]) -> Command {
    let quiet = |arg: clap::Arg| match ids.contains(&arg.get_id().as_str()) {
        true => arg.env(clap::builder::Resettable::Reset),
        false => arg,
    };
    command.mut_args(quiet).mut_subcommands(|sub| without_variables_of(sub, ids))
}

/// What clap's BoolishValueParser takes for no.
const OFF: [&str; 6] = ["n", "no", "f", "false", "off", "0"];

fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_env(true)).mut_subcommands(without_variables)
}

/// A variable that is set to nothing says nothing: templates of pods leave such behind. Nor does a switch that is off.
fn without_empty_variables(command: Command) -> Command {
    let quiet = |arg: clap::Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let says_nothing = value.is_some_and(|value| {
            let value = value.to_string_lossy().to_lowercase();
            value.is_empty() || is_switch && OFF.contains(&value.as_str())
        });
        if says_nothing { arg.env(clap::builder::Resettable::Reset) } else { arg }
    };
    command.mut_args(quiet).mut_subcommands(without_empty_variables)
}

/// How stderr is written to on such a command line.
pub fn console() -> Console {
    let format = said("--log-format").and_then(|form| LogFormat::from_str(&form, true).ok());
    Console::new(format.unwrap_or_default(), Color::Auto)
}

/// Whether JSON was asked for on a command line that could not be understood.
pub fn wants_json() -> bool {
    said("--output").is_some_and(|form| form == "json")
}
