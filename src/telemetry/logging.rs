//! Logs, on stderr: text for people, JSON lines for machines. RUST_LOG is honoured; `-q` and `-v` go before it.

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

use super::console::{Console, Lines};

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and errors; no progress.
    Quiet,
    /// What RUST_LOG asks for, or else what an operator needs to know.
    #[default]
    Normal,
    /// What each worker does, too.
    Verbose,
    /// Everything rekey says.
    Everything,
}

impl Verbosity {
    /// From `-q`, and from how often `-v` was given.
    pub const fn new(quiet: bool, verbose: u8) -> Verbosity {
        match (quiet, verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, 1) => Verbosity::Verbose,
            (false, _) => Verbosity::Everything,
        }
    }

    /// The filter in RUST_LOG's words, where the flags decide.
    const fn filter(self) -> Option<&'static str> {
        match self {
            Verbosity::Quiet => Some("warn"),
            Verbosity::Normal => None,
            Verbosity::Verbose => Some("warn,rekey=debug"),
            Verbosity::Everything => Some("info,rekey=trace"),
        }
    }
}

/// The target of the line that says why a command failed: no RUST_LOG silences it.
pub const NEVER_OFF: &str = "rekey::refused";

/// The target of the line that names the head of the audit chain: logs that are shipped witness it, and people at a terminal
/// read it in the command's output.
pub const HEAD: &str = "rekey::head";

/// The target of the log's last line, which people at a terminal need as little.
pub const FINISHED: &str = "rekey::finished";

/// The time in front of a line for people: UTC, to the second.
struct Seconds;

impl FormatTime for Seconds {
    #[expect(
        clippy::disallowed_methods,
        reason = "a line of the log bears the time of the machine it is written on"
    )]
    fn format_time(&self, line: &mut Writer<'_>) -> std::fmt::Result {
        write!(line, "{:.0}", jiff::Timestamp::now())
    }
}

/// Whether a line may be written at all. The AWS SDK repeats whole answers and errors below INFO, other than values it
/// was asked for: a refused PutSecretValue may quote what it refused. It and its HTTP client repeat URLs, too, which may hold
/// a password or a token; where that is a warning, rekey's own error says the same with the server alone.
fn tells_no_secret(line: &Metadata<'_>) -> bool {
    const NEVER: [&str; 3] =
        ["aws_config::meta::credentials", "aws_config::profile", "aws_smithy_runtime_api::http::request"];
    const BELOW_INFO: [&str; 4] =
        ["aws_smithy_runtime", "aws_sigv4", "aws_runtime::env_config", "hyper_util::client::legacy::pool"];
    let is_of = |targets: &[&str]| targets.iter().any(|target| line.target().starts_with(target));
    !is_of(&NEVER) && (*line.level() <= Level::INFO || !is_of(&BELOW_INFO))
}

/// Starts logging. Everything but our own lines is quiet unless RUST_LOG asks for it.
pub fn start(console: Console, verbosity: Verbosity) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|asked| !asked.is_empty());
    let asked = verbosity.filter().map(str::to_owned).or(asked);
    let filter = asked.and_then(|asked| EnvFilter::try_new(widened(&asked)).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("warn,rekey=info"));
    let base = fmt().with_env_filter(filter).with_writer(Lines);
    if console.json {
        base.json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .with(filter_fn(tells_no_secret))
            .init();
    } else {
        let base = base.with_target(false).with_ansi(console.colored).with_timer(Seconds);
        let for_people = |line: &Metadata<'_>| ![HEAD, FINISHED].contains(&line.target());
        base.finish().with(filter_fn(move |line| tells_no_secret(line) && for_people(line))).init();
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
