//! Options of every command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, PossibleValue};
use clap::{ArgAction, Args, ValueEnum};

use super::values::duration;
use crate::error::Result;
use crate::jobs::Environment;
use crate::store::PasswordSource;
use crate::telemetry::console::{Color, Console, LogFormat};
use crate::telemetry::logging::Verbosity;

/// Flags of every command.
#[derive(Args, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Format of results on stdout
    #[arg(long, global = true, env = "REKEY_OUTPUT", hide_env_values = true, value_enum, default_value_t)]
    pub output: Output,
    /// Format of logs and progress on stderr
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
    /// When to color stderr
    #[arg(
        long,
        global = true,
        env = "REKEY_COLOR",
        hide_env_values = true,
        hide_short_help = true,
        value_enum,
        default_value_t,
        value_name = "WHEN"
    )]
    pub color: Color,
    /// Log only warnings and errors; show no progress
    #[arg(short, long, global = true, env = "REKEY_QUIET", hide_env_values = true, hide_short_help = true, value_parser = BoolishValueParser::new())]
    pub quiet: bool,
    /// Log what each worker does; give it twice to log everything
    #[arg(short, long, global = true, env = "REKEY_VERBOSE", hide_env_values = true, hide_short_help = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Operator's name for the audit trail [default: the OS user; production in Kubernetes needs it]
    #[arg(
        long,
        global = true,
        env = "REKEY_OPERATOR",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "NAME"
    )]
    pub operator: Option<String>,
    /// Reason for the audit trail
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
    /// It was typed for this command, and is no variable's.
    #[arg(skip)]
    pub own_reason: bool,
    /// The command in words, `quarantine accept` say.
    #[arg(skip)]
    pub command: Option<String>,
    /// Program that prints the database's password; run for every connection
    #[arg(
        long,
        global = true,
        env = "REKEY_DATABASE_PASSWORD_COMMAND",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "CMD",
        conflicts_with = "database_password"
    )]
    pub database_password_command: Option<String>,
    /// Source of the database's password, read for every connection: file:PATH or command:PROGRAM ARG…
    #[arg(
        long,
        global = true,
        env = "REKEY_DATABASE_PASSWORD",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "SOURCE"
    )]
    pub database_password: Option<String>,
    /// Maximum time to retry an unreachable database, Redis or Secrets Manager
    #[arg(long, global = true, env = "REKEY_RETRY_FOR", hide_env_values = true, hide_short_help = true, default_value = "60s", value_parser = duration, value_name = "DURATION")]
    pub retry_for: Duration,
    /// Lease duration: how long a silent worker keeps its rows
    #[arg(long, global = true, env = "REKEY_LEASE_TTL", hide_env_values = true, hide_short_help = true, default_value = "30s", value_parser = lease_ttl, value_name = "DURATION")]
    pub lease_ttl: Duration,
    /// Environment, which decides how weak a new key may be
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
    /// Address to serve a page to watch, /metrics, /livez and /readyz on, such as 0.0.0.0:9090
    #[arg(
        long,
        global = true,
        env = "REKEY_METRICS_LISTEN",
        hide_env_values = true,
        hide_short_help = true,
        value_name = "ADDR"
    )]
    pub metrics_listen: Option<SocketAddr>,
    /// File to write the metrics to on exit, for node_exporter's textfile collector
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

impl Global {
    /// How stderr is written to.
    pub fn console(&self) -> Console {
        Console::new(self.log_format, self.color)
    }

    /// How much is said there.
    pub fn verbosity(&self) -> Verbosity {
        Verbosity::new(self.quiet, self.verbose)
    }

    /// Where the database's password is read, if DATABASE_URL is not to say it.
    pub fn password_source(&self) -> Result<Option<PasswordSource>> {
        let command = self.database_password_command.as_deref().map(PasswordSource::command);
        command.or_else(|| self.database_password.as_deref().map(PasswordSource::parse)).transpose()
    }
}

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people
    #[default]
    Text,
    /// JSON for scripts
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

fn reason(text: &str) -> std::result::Result<String, String> {
    if text.trim().is_empty() { Err("the reason is blank".into()) } else { Ok(text.to_owned()) }
}

fn lease_ttl(text: &str) -> std::result::Result<Duration, String> {
    let ttl = duration(text)?;
    if (Duration::from_secs(2)..=Duration::from_secs(3600)).contains(&ttl) {
        Ok(ttl)
    } else {
        Err("write a duration between 2s and 1h".into())
    }
}
