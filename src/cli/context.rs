//! A job's session made from global flags and the environment of the process, and how results are printed.

use std::io::IsTerminal as _;
use std::ops::Deref;

use zeroize::Zeroizing;

use super::envelope::{Document, Form};
use super::last_lines;
use super::operator;
use super::options::{Global, Output};
use super::refusal;
use crate::error::{Error, Exit, Result};
use crate::jobs::{AppCache, Session};
use crate::rotation::Step;
use crate::secrets::{AppSettings, Sources};
use crate::store::audit::Actor;
use crate::store::{Login, PasswordSource};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::progress;
use crate::telemetry::termination::LastWord;

/// A job's session, and what printing its outcome needs.
pub struct Context {
    /// What jobs start from.
    pub session: Session,
    /// Global flags, as parsed.
    pub global: Global,
    /// The termination message for Kubernetes.
    pub last_word: LastWord,
}

impl Deref for Context {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Context {
    /// Nothing is contacted yet.
    pub fn new(global: Global, password: Option<PasswordSource>) -> Context {
        let variable = |name: &str| std::env::var(name).ok();
        let operator = operator::filled(global.operator.clone()).unwrap_or_else(operator::of_this_process);
        let (console, quiet) = (global.console(), global.quiet);
        let session = Session {
            database_url: variable("DATABASE_URL").map(Zeroizing::new),
            login: Login::with(password),
            actor: Actor::new(operator, global.reason.clone()),
            sources: Sources::with_patience(global.retry_for),
            environment: global.environment,
            metrics: Metrics::default(),
            retry_for: global.retry_for,
            lease_ttl: global.lease_ttl,
            application: AppSettings::read(variable),
            cache: cache(),
            process: process(),
            show_progress: Box::new(move |received| (!quiet).then(|| progress::show(console, received))),
        };
        Context { session, global, last_word: LastWord::default() }
    }

    /// True for `--output json`.
    pub fn json(&self) -> bool {
        self.global.output == Output::Json
    }

    /// Lets the metrics bear the name of the database: host, port and name.
    pub fn know_database(&self) {
        if let Ok(connector) = self.connector() {
            let described = connector.describe();
            self.metrics.works_on(described.rsplit('@').next().unwrap_or(described));
        }
    }

    /// Sets the termination message of a command that ended: the outcome, and the first next step.
    pub fn say_next(&self, outcome: &str, next: &[Step]) {
        self.last_word.say(outcome, next.first().map(ToString::to_string).as_deref());
    }

    /// The words of the command, where it is known.
    pub fn command(&self) -> Option<&str> {
        self.global.command.as_deref()
    }

    /// Prints one document of several, a line each.
    pub fn print_json_line(&self, document: &Document) -> Result<()> {
        println!("{}", document.text(self.command(), Form::Line)?);
        Ok(())
    }

    /// Prints the document that is all there is on stdout: indented on a terminal, and elsewhere on one line.
    pub fn print_json(&self, document: &Document) -> Result<()> {
        println!("{}", document.text(self.command(), form())?);
        document.event_head().map(last_lines::witness);
        Ok(())
    }

    /// Says on stderr what went wrong besides a result, which is printed all the same.
    pub fn fail_beside_result(&self, error: &Error) -> Exit {
        refusal::tell(error, self.global.console());
        self.last_word.say(&error.message, error.hint.as_deref());
        error.exit
    }
}

/// How a document on stdout is laid out.
pub fn form() -> Form {
    if std::io::stdout().is_terminal() { Form::Page } else { Form::Line }
}

/// The application's cache, for the commands that have no flag for it.
fn cache() -> Option<AppCache> {
    let url = Zeroizing::new(std::env::var("REDIS_URL").ok()?);
    let prefix = std::env::var("REKEY_PREFIX").ok().filter(|prefix| !prefix.is_empty());
    let prefix = prefix.unwrap_or_else(|| "dashtam".to_owned());
    (!url.trim().is_empty()).then_some(AppCache { url, prefix })
}

/// This process's name in the ledger: host, pid, and something no other process has.
fn process() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // The end of the id: its beginning is the time, which processes may share.
    let unique = crate::entropy::id().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &unique[24..])
}
