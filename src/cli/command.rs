//! Every command by its name, and what is true of it before it runs. Every flag has an environment variable REKEY_…; flag
//! before environment before default.

use clap::{Parser, Subcommand};

use super::cache::CacheCommand;
use super::control::ResumeArgs;
use super::explain::ExplainArgs;
use super::finalize::FinalizeArgs;
use super::init::InitArgs;
use super::keys::KeysCommand;
use super::options::{Global, KeyArgs};
use super::plan::PlanArgs;
use super::promote::PromoteArgs;
use super::quarantine::QuarantineCommand;
use super::report::ReportArgs;
use super::rollback::RollbackArgs;
use super::run::RunArgs;
use super::status::StatusArgs;
use super::verify::VerifyArgs;
use crate::manual::completions::CompletionsArgs;
use crate::manual::examples;
use crate::manual::man::ManArgs;

/// Re-encrypts every stored bank credential under a new AES-256-GCM key, and proves it
#[derive(Parser)]
#[command(
    name = "rekey",
    version,
    long_version = env!("REKEY_VERSION"),
    after_help = "DATABASE_URL names the database. A key is named by its source: env:VAR, \
        file:PATH,\ndotenv:PATH#VAR, aws:SECRET_ID[#JSON_FIELD][@LABEL_OR_VERSION_ID],\ncommand:PROGRAM ARG….\nFlags have \
        environment variables: --lease-ttl is REKEY_LEASE_TTL.\n\nA first rotation: rekey plan, rekey run \
        --dry-run, rekey run, rekey verify,\nrekey promote, restart the application, and days later rekey \
        finalize.\nUntil then, rekey rollback undoes it."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Check for blockers and estimate a run; changes nothing
    ///
    /// With `--rehearse`, rekey writes rows and rolls them back.
    #[command(after_long_help = examples::PLAN)]
    Plan(PlanArgs),
    /// Create schema rekey, and show the grants each role needs
    #[command(after_long_help = examples::INIT)]
    Init(InitArgs),
    /// Re-encrypt every credential: start, join or resume a rotation
    #[command(after_long_help = examples::RUN)]
    Run(RunArgs),
    /// Show the rotation, its workers, rate and totals
    #[command(after_long_help = examples::STATUS)]
    Status(StatusArgs),
    /// Decrypt every row with the right key and compare its bytes
    #[command(after_long_help = examples::VERIFY)]
    Verify(VerifyArgs),
    /// Verify, then give the application the new key
    #[command(after_long_help = examples::PROMOTE)]
    Promote(PromoteArgs),
    /// End the rotation on the new key; rollback is impossible afterwards
    #[command(after_long_help = examples::FINALIZE)]
    Finalize(FinalizeArgs),
    /// Re-encrypt every row under the old key again
    #[command(after_long_help = examples::ROLLBACK)]
    Rollback(RollbackArgs),
    /// Print evidence for auditors: who, when, keys, proofs, timeline
    #[command(after_long_help = examples::REPORT)]
    Report(ReportArgs),
    /// Make workers finish their batch and wait
    #[command(after_long_help = examples::PAUSE)]
    Pause,
    /// Allow paused, aborted or overdue workers to continue
    #[command(after_long_help = examples::RESUME)]
    Resume(ResumeArgs),
    /// Make workers finish their batch and exit
    #[command(after_long_help = examples::ABORT)]
    Abort,
    /// List, retry or accept rows that rekey can't re-encrypt
    #[command(subcommand, after_long_help = examples::QUARANTINE)]
    Quarantine(QuarantineCommand),
    /// Explain an exit code, finding, state or throttle reason
    #[command(after_long_help = examples::EXPLAIN)]
    Explain(ExplainArgs),
    /// Print the completion script for a shell
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one per command
    #[command(after_long_help = examples::MAN)]
    Man(ManArgs),
    /// Generate, check, back up, restore and replace keys
    #[command(subcommand, after_long_help = examples::KEYS)]
    Keys(KeysCommand),
    /// Delete stale entries from the application's Redis cache
    #[command(subcommand, after_long_help = examples::CACHE)]
    Cache(CacheCommand),
}

impl Command {
    /// The key sources named on the command line, where the command takes any.
    pub fn keys(&self) -> Option<&KeyArgs> {
        match self {
            Command::Plan(args) => Some(&args.keys),
            Command::Run(args) => Some(&args.keys),
            Command::Verify(args) => Some(&args.keys),
            Command::Promote(args) => Some(&args.keys),
            Command::Finalize(args) => Some(&args.keys),
            Command::Rollback(args) => Some(&args.keys),
            Command::Quarantine(
                QuarantineCommand::Retry { keys, .. } | QuarantineCommand::Accept { keys, .. },
            ) => Some(keys),
            _ => None,
        }
    }

    /// Whether it is the work of a Job on the table. The others may be started inside such a pod, whose port and
    /// metrics are not theirs.
    pub const fn is_work(&self) -> bool {
        matches!(
            self,
            Command::Plan(_)
                | Command::Init(_)
                | Command::Run(_)
                | Command::Verify(_)
                | Command::Promote(_)
                | Command::Finalize(_)
                | Command::Rollback(_)
                | Command::Quarantine(QuarantineCommand::Retry { .. })
        )
    }

    /// Whether the command moves rows. Such a command is ready once its engine works.
    pub const fn moves_rows(&self) -> bool {
        matches!(
            self,
            Command::Run(_) | Command::Rollback(_) | Command::Quarantine(QuarantineCommand::Retry { .. })
        )
    }

    /// Whether it may be a Job of its own, with a termination message. Commands that only look or steer have none.
    pub const fn has_last_word(&self) -> bool {
        match self {
            Command::Keys(keys) => !matches!(
                keys,
                KeysCommand::Validate(_) | KeysCommand::Status(_) | KeysCommand::Fingerprint(_)
            ),
            Command::Cache(CacheCommand::Purge(args)) => !args.dry_run,
            command => command.is_work(),
        }
    }

    /// Whether it prints one JSON document after another.
    pub const fn streams(&self) -> bool {
        matches!(self, Command::Status(args) if args.watch)
    }

    /// Whether a signal may end it anywhere: it reads, or writes in one transaction. The others listen for
    /// themselves, or ask at the terminal.
    pub const fn may_be_given_up(&self) -> bool {
        match self {
            Command::Status(args) => !args.watch,
            Command::Plan(_)
            | Command::Init(_)
            | Command::Report(_)
            | Command::Pause
            | Command::Resume(_)
            | Command::Abort
            | Command::Quarantine(QuarantineCommand::List)
            | Command::Keys(
                KeysCommand::Validate(_) | KeysCommand::Status(_) | KeysCommand::Fingerprint(_),
            ) => true,
            Command::Run(_)
            | Command::Verify(_)
            | Command::Promote(_)
            | Command::Finalize(_)
            | Command::Rollback(_)
            | Command::Quarantine(QuarantineCommand::Retry { .. } | QuarantineCommand::Accept { .. })
            | Command::Explain(_)
            | Command::Completions(_)
            | Command::Man(_)
            | Command::Keys(_)
            | Command::Cache(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    /// `rekey COMMAND --flag` for every flag whose environment variable is not REKEY_FLAG.
    fn without_variable(path: &str, command: &clap::Command, found: &mut Vec<String>) {
        for flag in command.get_arguments().filter_map(|arg| Some((arg, arg.get_long()?))) {
            let expected = format!("REKEY_{}", flag.1.to_uppercase().replace('-', "_"));
            let named = flag.0.get_env().and_then(|name| name.to_str());
            // The application's own variable, which everybody has set already.
            let known = [Some(expected.as_str()), Some("REDIS_URL")].contains(&named);
            if !known && !["help", "version"].contains(&flag.1) {
                found.push(format!("{path} --{}", flag.1));
            }
        }
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            without_variable(&format!("{path} {}", sub.get_name()), sub, found);
        }
    }

    #[test]
    fn every_flag_but_two_has_an_environment_variable() {
        let mut found = Vec::new();
        let mut rekey = Cli::command();
        rekey.build();
        without_variable("rekey", &rekey, &mut found);
        // What cannot be undone is agreed to each time.
        assert_eq!(found, ["rekey finalize --yes", "rekey keys destroy --yes"]);
    }
}
