//! `rekey completions SHELL`: the completion script, on stdout. It offers names that clap takes for free text: kinds of
//! key sources, findings, and what `rekey explain` knows.

use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, Command};
use clap_complete::Shell;

use crate::error::{Error, Exit, Result};
use crate::jobs::explain;
use crate::store::preflight::FINDINGS;

#[derive(Args)]
pub struct CompletionsArgs {
    /// Shell to complete for
    shell: Shell,
}

/// Prints it for all that `rekey` understands.
pub fn run(args: CompletionsArgs, rekey: Command) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut offering(rekey), "rekey", &mut script);
    if args.shell == Shell::Bash {
        script.extend_from_slice(GOES_ON.as_bytes());
    }
    super::man::to_stdout(&script)
        .map_err(|e| Error::new(Exit::Internal, format!("can't print the script: {e}")))?;
    Ok(Exit::Ok)
}

/// The beginnings of a key source.
const SOURCES: [&str; 5] = ["env:", "file:", "dotenv:", "aws:", "command:"];

/// A source goes on behind its colon, so no space is put there.
const GOES_ON: &str = r#"
_rekey_sources() {
    _rekey "$@"
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]]; then
        compopt -o nospace
    fi
}
complete -F _rekey_sources -o bashdefault -o default rekey
"#;

/// Only for the script: rekey itself takes any text there, and says what is wrong with it.
fn offering(rekey: Command) -> Command {
    let names = |arg: &Arg| -> Option<Vec<String>> {
        let is = |name| arg.get_value_names().is_some_and(|names| names.len() == 1 && names[0] == name);
        match arg.get_id().as_str() {
            "allow" => Some(FINDINGS.iter().map(|about| about.name.to_owned()).collect()),
            "database_password" => Some(["file:", "command:"].map(str::to_owned).into()),
            _ if is("SOURCE") => Some(SOURCES.map(str::to_owned).into()),
            _ => None,
        }
    };
    let explained = || explain::all().into_iter().map(|known| known.name.replace([' ', '_'], "-"));
    let offers = |arg: Arg| match names(&arg) {
        Some(names) => arg.value_parser(PossibleValuesParser::new(names)),
        None => arg,
    };
    let rekey = rekey.mut_subcommand("explain", |explain| {
        explain.mut_arg("name", |name| name.value_parser(PossibleValuesParser::new(explained())))
    });
    fn each(command: Command, offers: &impl Fn(Arg) -> Arg) -> Command {
        command.mut_args(offers).mut_subcommands(|deeper| each(deeper, offers))
    }
    each(rekey, &offers)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn scripts_offer_sources_findings_and_names() {
        // For fish, clap completes options only.
        let options = ["dotenv", "command", "replica-secret"];
        let arguments = ["replication-lag", "rolling-back"];
        for (shell, more) in [(Shell::Bash, &arguments[..]), (Shell::Zsh, &arguments), (Shell::Fish, &[])] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut offering(Cli::command()), "rekey", &mut script);
            let script = String::from_utf8(script).unwrap_or_default();
            for offered in options.iter().chain(more) {
                assert!(script.contains(offered), "{shell} offers no {offered}");
            }
        }
    }
}
