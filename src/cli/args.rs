//! The command line. Every flag has an environment variable REKEY_…; flag before environment before default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, PossibleValue};
use clap::{Args, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use super::cache::CacheCommand;
use super::examples;
use super::init::InitArgs;
use super::keys::KeysCommand;
use super::parsing::deadline_is_standing;
use super::plan::PlanArgs;
use super::rollback::RollbackArgs;
use super::run::RunArgs;
use super::throttle_args::ThrottleArgs;
use super::verify::VerifyArgs;
use crate::error;
use crate::jobs::Environment;
use crate::jobs::key_pair::NamedKeys;
use crate::jobs::work::WorkRequest;
use crate::rotation::{Deadline, DeadlineAt};
use crate::secrets::{KeySource, SecretLayout};
use crate::store::preflight::Allowed;
use crate::telemetry::logging::LogFormat;

/// Moves every stored bank credential from one AES-256-GCM key to another, and proves it.
#[derive(Parser)]
#[command(
    name = "rekey",
    version,
    after_help = "The database is named by DATABASE_URL; keys by their source: env:VAR, file:PATH,\n\
                  dotenv:PATH#VAR, aws:SECRET_ID[#JSON_FIELD][@STAGE_OR_VERSION_ID].\n\
                  Every flag has an environment variable: --lease-ttl is REKEY_LEASE_TTL.\n\n\
                  A first rotation: rekey plan, rekey run --dry-run, rekey run, rekey verify,\n\
                  rekey promote, and days later rekey finalize; rekey rollback undoes it until then."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Args, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How results are printed on stdout
    #[arg(long, global = true, env = "REKEY_OUTPUT", hide_env_values = true, value_enum, default_value_t)]
    pub output: Output,
    /// How logs and progress are printed on stderr
    #[arg(
        long,
        global = true,
        env = "REKEY_LOG_FORMAT",
        hide_env_values = true,
        hide_short_help = true,
        value_enum,
        default_value_t
    )]
    pub log_format: LogFormat,
    /// Who does this, for the audit trail [default: the OS user, or pod and service account]
    #[arg(
        long,
        global = true,
        env = "REKEY_OPERATOR",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "NAME"
    )]
    pub operator: Option<String>,
    /// Why, for the audit trail
    #[arg(
        long,
        global = true,
        env = "REKEY_REASON",
        hide_env_values = true,
        hide_short_help = true,
        value_parser = reason,
        value_name = "TEXT"
    )]
    pub reason: Option<String>,
    /// How long an unreachable database, Redis or Secrets Manager is waited for, at most
    #[arg(long, global = true, env = "REKEY_RETRY_FOR", hide_env_values = true, hide_short_help = true, default_value = "60s", value_parser = duration, value_name = "DURATION")]
    pub retry_for: Duration,
    /// How long a worker that fell silent keeps its rows
    #[arg(long, global = true, env = "REKEY_LEASE_TTL", hide_env_values = true, hide_short_help = true, default_value = "30s", value_parser = lease_ttl, value_name = "DURATION")]
    pub lease_ttl: Duration,
    /// Where this runs; decides how weak a new key may be
    #[arg(
        long,
        global = true,
        env = "REKEY_ENVIRONMENT",
        hide_env_values = true,
        hide_short_help = true,
        value_enum,
        default_value_t
    )]
    pub environment: Environment,
    /// Serve /metrics, /livez and /readyz here, e.g. 0.0.0.0:9090
    #[arg(
        long,
        global = true,
        env = "REKEY_METRICS_LISTEN",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "ADDR"
    )]
    pub metrics_listen: Option<SocketAddr>,
    /// Write the metrics to this file at the end, for node_exporter's textfile collector
    #[arg(
        long,
        global = true,
        env = "REKEY_METRICS_FILE",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "PATH"
    )]
    pub metrics_file: Option<PathBuf>,
}

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

impl ValueEnum for Environment {
    fn value_variants<'a>() -> &'a [Self] {
        Environment::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Say what stands in the way and what a run would cost; read-only
    #[command(after_long_help = examples::PLAN)]
    Plan(PlanArgs),
    /// Create schema rekey, and show the grants each role needs
    #[command(after_long_help = examples::INIT)]
    Init(InitArgs),
    /// Re-encrypt every connection: start, join or resume a rotation
    #[command(after_long_help = examples::RUN)]
    Run(RunArgs),
    /// Show the rotation, its workers, rate and totals
    #[command(after_long_help = examples::STATUS)]
    Status(StatusArgs),
    /// Open every row with the right key, and compare its bytes
    #[command(after_long_help = examples::VERIFY)]
    Verify(VerifyArgs),
    /// Verify, then make the new key the one the application reads
    #[command(after_long_help = examples::PROMOTE)]
    Promote(PromoteArgs),
    /// End the rotation on the new key; there is no rollback after it
    #[command(after_long_help = examples::FINALIZE)]
    Finalize(FinalizeArgs),
    /// Return every row to the old key
    #[command(after_long_help = examples::ROLLBACK)]
    Rollback(RollbackArgs),
    /// Print evidence for auditors: who, when, keys, proofs, timeline
    #[command(after_long_help = examples::REPORT)]
    Report(ReportArgs),
    /// Let workers finish their batch and wait
    #[command(after_long_help = examples::PAUSE)]
    Pause,
    /// Let paused or aborted workers go on
    #[command(after_long_help = examples::RESUME)]
    Resume(ResumeArgs),
    /// Let workers finish their batch and end
    #[command(after_long_help = examples::ABORT)]
    Abort,
    /// Rows that open with neither key
    #[command(subcommand, after_long_help = examples::QUARANTINE)]
    Quarantine(QuarantineCommand),
    /// Print a shell's completion script
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for every command
    #[command(after_long_help = examples::MAN)]
    Man {
        /// Write rekey.1, rekey-run.1, … into this folder
        #[arg(long, env = "REKEY_DIR", hide_env_values = true, value_name = "PATH")]
        dir: Option<PathBuf>,
    },
    /// Generate, check, back up, restore and replace keys
    #[command(subcommand, after_long_help = examples::KEYS)]
    Keys(KeysCommand),
    /// The application's cache in Redis
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
            Command::Quarantine(QuarantineCommand::Retry { keys, .. }) => Some(keys),
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

    /// Whether it may be a Job of its own, whose last word somebody reads. What looks and steers has none.
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

    /// Whether a signal may end it anywhere: it reads, or writes in one transaction. The others listen for
    /// themselves, or ask at the terminal.
    pub const fn may_be_given_up(&self) -> bool {
        match self {
            Command::Plan(_)
            | Command::Init(_)
            | Command::Status(_)
            | Command::Verify(_)
            | Command::Report(_)
            | Command::Pause
            | Command::Resume(_)
            | Command::Abort
            | Command::Quarantine(QuarantineCommand::List | QuarantineCommand::Accept { .. })
            | Command::Keys(
                KeysCommand::Validate(_) | KeysCommand::Status(_) | KeysCommand::Fingerprint(_),
            ) => true,
            Command::Run(_)
            | Command::Promote(_)
            | Command::Finalize(_)
            | Command::Rollback(_)
            | Command::Quarantine(QuarantineCommand::Retry { .. })
            | Command::Completions { .. }
            | Command::Man { .. }
            | Command::Keys(_)
            | Command::Cache(_) => false,
        }
    }
}

/// Where the two keys are. Kept as text: clap would echo what it cannot parse, and that may be a key.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Keys")]
pub struct KeyArgs {
    /// Source of the key rows are on [default: the application's own setting]
    #[arg(long, env = "REKEY_OLD_KEY", hide_env_values = true, value_name = "SOURCE")]
    pub old_key: Option<String>,
    /// Source of the key rows go to [default: env:NEW_ENCRYPTION_KEY, or AWS_SECRET_NAME's]
    #[arg(long, env = "REKEY_NEW_KEY", hide_env_values = true, value_name = "SOURCE")]
    pub new_key: Option<String>,
    /// How the application's secrets are laid out in Secrets Manager
    #[arg(long, env = "REKEY_SECRET_LAYOUT", hide_env_values = true, value_enum)]
    pub secret_layout: Option<SecretLayout>,
}

impl KeyArgs {
    /// The sources that are named; what does not parse is not echoed.
    pub fn named(&self) -> error::Result<NamedKeys> {
        Ok(NamedKeys { old: given(&self.old_key)?, new: given(&self.new_key)?, layout: self.secret_layout })
    }
}

/// A source as given on the command line; what does not parse is not echoed.
pub fn given(text: &Option<String>) -> error::Result<Option<KeySource>> {
    Ok(text.as_deref().map(KeySource::parse).transpose()?)
}

/// How hard to work.
#[derive(Args, Clone)]
#[command(next_help_heading = "Work")]
pub struct WorkArgs {
    /// Workers in this process
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    /// Rows a worker leases at a time [default: by rows per page and bytes, 12k to 48k]
    #[arg(long, env = "REKEY_CHUNK_ROWS", hide_env_values = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    pub chunk_rows: Option<u32>,
    /// Rows of one transaction, at most; of more than two workers, over all processes, each takes fewer
    #[arg(long, env = "REKEY_BATCH_ROWS", hide_env_values = true, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=5000), value_name = "N")]
    pub batch_rows: u32,
    /// How long a batch should hold its row locks
    #[arg(long, env = "REKEY_LOCK_TARGET", hide_env_values = true, default_value = "50ms", value_parser = duration, value_name = "DURATION")]
    pub lock_target: Duration,
    /// End of the window: a duration, or a time (RFC 3339); past it workers save and exit 9
    #[arg(long, env = "REKEY_DEADLINE", hide_env_values = true, value_parser = deadline, value_name = "WHEN")]
    pub deadline: Option<Deadline>,
    /// Sweeps for late writers before giving up on them
    #[arg(long, env = "REKEY_MAX_SWEEPS", hide_env_values = true, default_value_t = 40, value_name = "N")]
    pub max_sweeps: i32,
    /// Let a named preflight finding pass; repeatable
    #[arg(long, env = "REKEY_ALLOW", hide_env_values = true, value_name = "FINDING", value_delimiter = ',')]
    pub allow: Vec<String>,
    #[command(flatten)]
    pub throttle: ThrottleArgs,
}

impl WorkArgs {
    /// What a job is asked for; refuses findings that are none, or that nobody may allow.
    pub fn request(&self) -> error::Result<WorkRequest> {
        Ok(WorkRequest {
            workers: self.workers,
            chunk_rows: self.chunk_rows,
            batch_rows: self.batch_rows,
            lock_target: self.lock_target,
            deadline: self.deadline,
            max_sweeps: self.max_sweeps,
            allowed: Allowed::parse(&self.allow)?,
            limits: self.throttle.limits(),
        })
    }
}

#[derive(Args)]
pub struct PromoteArgs {
    /// Where the application reads its key [default: the old key's source]
    #[arg(long, env = "REKEY_TARGET", hide_env_values = true, value_name = "SOURCE")]
    pub target: Option<String>,
    /// Somebody else changes it: say what to change, and go on once it is changed
    #[arg(long, env = "REKEY_EXTERNAL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub external: bool,
    /// Do not ask
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    /// Readers of the verify before it
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    /// Let a named finding pass; repeatable
    #[arg(long, env = "REKEY_ALLOW", hide_env_values = true, value_name = "FINDING", value_delimiter = ',')]
    pub allow: Vec<String>,
    #[command(flatten)]
    pub keys: KeyArgs,
}

#[derive(Args)]
pub struct FinalizeArgs {
    /// Days in which the temporary secret can still be restored
    #[arg(long, env = "REKEY_RECOVERY_WINDOW", hide_env_values = true, default_value_t = 30, value_parser = clap::value_parser!(u8).range(7..=30), value_name = "DAYS")]
    pub recovery_window: u8,
    /// Do not ask
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    /// Readers of the verify before it
    #[arg(long, env = "REKEY_WORKERS", hide_env_values = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub workers: u16,
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// `--format` of `report`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For machines.
    #[default]
    Json,
    /// For people.
    Html,
}

#[derive(Args)]
pub struct ReportArgs {
    /// How
    #[arg(long, env = "REKEY_FORMAT", hide_env_values = true, value_enum, default_value_t)]
    pub format: ReportFormat,
    /// Which rotation [default: the active one, or the latest]
    #[arg(long, env = "REKEY_ROTATION", hide_env_values = true, value_name = "ID", conflicts_with = "all")]
    pub rotation: Option<Uuid>,
    /// All rotations
    #[arg(long, env = "REKEY_ALL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub all: bool,
    /// Users and providers whose credentials were under the old key, and should reconnect after a compromise
    #[arg(long, env = "REKEY_AFFECTED", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub affected: bool,
}

#[derive(Args)]
pub struct StatusArgs {
    /// Print again every two seconds until the rotation rests
    #[arg(long, env = "REKEY_WATCH", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub watch: bool,
}

#[derive(Args)]
pub struct ResumeArgs {
    /// A new end of the window
    #[arg(long, env = "REKEY_DEADLINE", hide_env_values = true, value_parser = deadline, value_name = "WHEN")]
    pub deadline: Option<Deadline>,
}

#[derive(Subcommand)]
pub enum QuarantineCommand {
    /// Ids and reasons
    #[command(after_long_help = examples::QUARANTINE_LIST)]
    List,
    /// Try the rows again, after they were repaired
    #[command(after_long_help = examples::QUARANTINE_RETRY)]
    Retry {
        /// A still older key some rows may be on; they move to the target too
        #[arg(long, env = "REKEY_ALSO_KEY", hide_env_values = true, value_name = "SOURCE")]
        also_key: Option<String>,
        #[command(flatten)]
        keys: Box<KeyArgs>,
        #[command(flatten)]
        work: Box<WorkArgs>,
    },
    /// Accept a row nobody can repair; verify, promote, finalize and rollback then tolerate it
    #[command(after_long_help = examples::QUARANTINE_ACCEPT)]
    Accept {
        /// The row
        id: Uuid,
    },
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| "write a duration like 500ms, 30s, 5m or 2h".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a duration cannot be negative".to_owned())
}

fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("blanks are no reason".into()) } else { Ok(text.to_owned()) }
}

fn lease_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if (Duration::from_secs(2)..=Duration::from_secs(3600)).contains(&ttl) {
        Ok(ttl)
    } else {
        Err("a lease lives between 2s and 1h".into())
    }
}

fn deadline(text: &str) -> Result<Deadline, String> {
    Ok(Deadline { at: deadline_at(text)?, standing: deadline_is_standing() })
}

fn deadline_at(text: &str) -> Result<DeadlineAt, String> {
    if let Ok(duration) = duration(text) {
        // Ten years: what comes after is a slip, and beyond what PostgreSQL can add to a time.
        return match duration.as_secs() <= 10 * 366 * 86_400 {
            true => Ok(DeadlineAt::In(duration)),
            false => Err("that is more than ten years from now".to_owned()),
        };
    }
    let time = text
        .parse()
        .map_err(|_| "write a duration like 2h, or a time like 2026-11-24T05:00:00Z".to_owned())?;
    Ok(DeadlineAt::At(time))
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
    fn every_flag_has_an_environment_variable() {
        let mut found = Vec::new();
        let mut rekey = Cli::command();
        rekey.build();
        without_variable("rekey", &rekey, &mut found);
        assert_eq!(found, Vec::<String>::new());
    }
}
