//! Logs, on stderr: for people on a terminal, JSON lines elsewhere. RUST_LOG is honoured.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

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

/// Starts logging. Everything but our own lines is quiet unless RUST_LOG asks for it.
pub fn start(format: LogFormat) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|asked| !asked.is_empty());
    let filter = asked.and_then(|asked| EnvFilter::try_new(asked).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("warn,rekey=info"));
    let base = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if format.is_json() {
        base.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        base.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
    }
}
