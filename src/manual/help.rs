//! How help is laid out: commands by task, `-h` on one screen, exit codes at the end of `--help`. What an option is for
//! stands beside the option.

use std::fmt::Write as _;

use clap::Command;
use clap::builder::StyledStr;

use crate::error::Exit;

/// Commands by what an operator is about.
const TASKS: [(&str, &[&str]); 5] = [
    ("Before the window", &["plan", "init"]),
    ("During the window", &["run", "status", "pause", "resume", "abort", "quarantine"]),
    ("After the window", &["verify", "promote", "rollback", "finalize"]),
    ("Keys", &["keys", "cache"]),
    ("Records and reference", &["report", "explain", "completions", "man"]),
];

/// What `-h` leaves out of commands that move rows; `--help` has it.
const FOR_LONG_HELP: [&str; 5] =
    ["secret_layout", "chunk_rows", "lock_target", "max_sweeps", "i_know_the_old_key_is_compromised"];

/// `--help`: all of it.
pub fn long(rekey: Command) -> Command {
    let groups = groups(&rekey);
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}\nOptions:\n{{options}}{{after-help}}"
    );
    rekey.help_template(template).mut_subcommands(with_exit_codes)
}

/// `-h`: what fits on a screen of 24 lines.
pub fn short(rekey: Command) -> Command {
    let mut lines = String::new();
    for (task, names) in TASKS {
        // The label stands beside the first command of its task.
        let labels = std::iter::once(task.split(' ').next().unwrap_or_default()).chain(std::iter::repeat(""));
        for (label, command) in labels.zip(commands(&rekey, names)) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(lines, "{label:<8} {:<12}{}", command.get_name(), first_clause(&about));
        }
    }
    let template = format!(
        "{{about-with-newline}}{{usage-heading}} {{usage}}\n\n{}\n\
         `rekey COMMAND -h` lists a command's options; `--help` explains them all",
        without_tags(&lines)
    );
    on_one_screen(rekey.help_template(template))
}

/// The commands under their tasks.
fn groups(rekey: &Command) -> String {
    let mut text = String::new();
    for (task, names) in TASKS {
        let _ = writeln!(text, "{}{task}:", if text.is_empty() { "" } else { "\n" });
        for command in commands(rekey, names) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {:<12}{}", command.get_name(), first_clause(&about));
        }
    }
    without_tags(&text)
}

fn commands<'a>(rekey: &'a Command, names: &[&str]) -> impl Iterator<Item = &'a Command> {
    names.iter().filter_map(|name| rekey.find_subcommand(name))
}

/// Braces would begin a tag of clap's templates.
fn without_tags(text: &str) -> String {
    text.replace(['{', '}'], "")
}

/// One table of options, each with its first clause.
fn on_one_screen(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let throttle = arg.get_help_heading().is_some_and(|heading| heading.starts_with("Throttle"));
        let kept = ["window", "max_rate"].contains(&arg.get_id().as_str());
        let hidden = throttle && !kept
            || FOR_LONG_HELP.contains(&arg.get_id().as_str())
            || arg.is_hide_short_help_set();
        let help = arg.get_help().map(|help| first_clause(&help.to_string()));
        let arg = arg.hide_short_help(hidden).hide_env(true).help_heading(None::<&str>);
        // The names of these values would push every text into a line of its own.
        let arg = match arg.get_id().as_str() {
            "window" => arg.value_name("HOURS"),
            _ => arg,
        };
        match help {
            Some(help) => arg.help(help),
            None => arg,
        }
    });
    command.mut_subcommands(on_one_screen)
}

/// Up to the first semicolon or colon, with the default that may follow.
fn first_clause(help: &str) -> String {
    let (text, default) = match help.find(" [default: ") {
        Some(at) => help.split_at(at),
        None => (help, ""),
    };
    let end = [text.find("; "), text.find(": ")].into_iter().flatten().min().unwrap_or(text.len());
    format!("{}{default}", &text[..end])
}

fn with_exit_codes(command: Command) -> Command {
    let codes = exit_codes(&command);
    let examples = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let text = StyledStr::from(format!("{examples}\n\n{codes}"));
    let command = command.mut_subcommands(with_exit_codes);
    match examples.is_empty() {
        true => command,
        false => command.after_long_help(text),
    }
}

/// Those that a command may end with: what contacts nothing cannot be refused by a database.
pub fn codes_of(command: &Command) -> &'static [Exit] {
    match command.get_name() {
        "explain" | "completions" | "man" => &Exit::ALL[..3],
        _ => Exit::ALL,
    }
}

fn exit_codes(command: &Command) -> String {
    let mut text =
        "Exit codes (`rekey explain CODE` says what is true of the data, and what to do):".to_owned();
    for exit in codes_of(command) {
        let _ = write!(text, "\n  {:>2}  {}", exit.code(), exit.meaning());
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_command_has_its_task() {
        let rekey = Cli::command();
        let mut listed: Vec<&str> = TASKS.iter().flat_map(|(_, names)| *names).copied().collect();
        let mut there: Vec<&str> = rekey.get_subcommands().map(Command::get_name).collect();
        listed.sort_unstable();
        there.sort_unstable();
        assert_eq!(listed, there);
    }

    fn too_long(path: &str, command: &mut Command, found: &mut Vec<String>) {
        let help = command.render_help().to_string();
        let lines = help.trim_end().lines().count();
        // clap does not wrap the usage line.
        let wide = |line: &str| line.chars().count() > 80 && !line.starts_with("Usage:");
        if lines > 24 || help.lines().any(wide) {
            found.push(format!("{path}: {lines} lines\n{help}"));
        }
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            too_long(&format!("{path} {}", sub.get_name()), sub, found);
        }
    }

    #[test]
    fn short_help_fits_on_a_screen() {
        let mut rekey = short(Cli::command()).term_width(80);
        rekey.build();
        let mut found = Vec::new();
        too_long("rekey", &mut rekey, &mut found);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn long_help_lists_exit_codes_after_the_examples() {
        let mut rekey = long(Cli::command()).term_width(80);
        rekey.build();
        let run = rekey.find_subcommand_mut("run").expect("a command").render_long_help().to_string();
        let (examples, codes) =
            (run.find("Examples:").expect("examples"), run.find("Exit codes").expect("codes"));
        assert!(examples < codes && run.contains("\n  75  Stopped by a signal"), "{run}");
        let root = rekey.render_long_help().to_string();
        assert!(
            root.contains("During the window:\n  run         ") && root.contains("--log-format"),
            "{root}"
        );
    }

    #[test]
    fn a_first_clause_keeps_its_default() {
        assert_eq!(
            first_clause("Rows of one batch, at most; fewer of many [default: 9]"),
            "Rows of one batch, at most [default: 9]"
        );
        assert_eq!(first_clause("Do not ask"), "Do not ask");
    }
}
