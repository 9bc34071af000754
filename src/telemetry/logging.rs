//! Logs, on stderr: for people on a terminal, JSON lines elsewhere. RUST_LOG is honoured.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Bars and text on a terminal, JSON lines otherwise.
    #[default]
    Auto,
    /// Text for people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Whether log lines are JSON here and now.
    pub fn is_json(self) -> bool {
        match self {
            LogFormat::Auto => !std::io::stderr().is_terminal(),
            LogFormat::Pretty => false,
            LogFormat::Json => true,
        }
    }
}

/// The target of the line that says why a command failed: no RUST_LOG silences it.
pub const NEVER_OFF: &str = "rekey::refused";

/// The target of the line that names the head of the audit chain: logs that are shipped witness it, and people at a terminal
/// read it in the command's output.
pub const HEAD: &str = "rekey::head";

/// Whether a line may be written at all. The AWS SDK repeats whole answers and errors below INFO, other than values it
/// was asked for: a refused PutSecretValue may quote what it refused.
fn tells_no_secret(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || !line.target().starts_with("aws_smithy_runtime")
}

/// Starts logging. Everything but our own lines is quiet unless RUST_LOG asks for it.
pub fn start(format: LogFormat) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|asked| !asked.is_empty());
    let filter = asked.and_then(|asked| EnvFilter::try_new(widened(&asked)).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("warn,rekey=info"));
    let base = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if format.is_json() {
        base.json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .with(filter_fn(tells_no_secret))
            .init();
    } else {
        let base = base.with_target(false).with_ansi(std::io::stderr().is_terminal());
        base.finish().with(filter_fn(|line| tells_no_secret(line) && line.target() != HEAD)).init();
    }
}

/// What was asked for, and what it must not leave out: our warnings where it speaks of other crates alone, and
/// [`NEVER_OFF`].
fn widened(asked: &str) -> String {
    let speaks_of_us =
        |directive: &str| directive.contains("rekey") || directive.trim().parse::<LevelFilter>().is_ok();
    let ours = if asked.split(',').any(speaks_of_us) { "" } else { "rekey=warn," };
    format!("{ours}{asked},{NEVER_OFF}=error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_filter_leaves_our_warnings_in_and_no_filter_the_error_out() {
        for (asked, widened_to) in [
            ("off", "off,rekey::refused=error"),
            ("aws_config=debug", "rekey=warn,aws_config=debug,rekey::refused=error"),
            ("sqlx=debug,TRACE", "sqlx=debug,TRACE,rekey::refused=error"),
            ("rekey::engine=off", "rekey::engine=off,rekey::refused=error"),
        ] {
            assert_eq!(widened(asked), widened_to);
        }
    }
}
