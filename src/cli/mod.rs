//! Arguments and one file per command. Raw argument structs stop here: past this module there are only types that
//! cannot be wrong.

/// As `std::println!`, but a reader that has seen enough (`rekey status | head`) is no panic: the work stands, and the
/// exit code tells. Nothing printed acts on the terminal ([`printable`]).
macro_rules! println {
    () => { println!("") };
    ($($what:tt)+) => {{
        use std::io::Write as _;
        let text = format!($($what)+);
        let text = $crate::text::printable::printable(&text);
        let _ = $crate::telemetry::console::around_the_bar(|| writeln!(std::io::stdout(), "{text}"));
    }};
}

/// The same on stderr.
macro_rules! eprintln {
    () => { eprintln!("") };
    ($($what:tt)+) => {{
        use std::io::Write as _;
        let text = format!($($what)+);
        let text = $crate::text::printable::printable(&text);
        let _ = $crate::telemetry::console::around_the_bar(|| writeln!(std::io::stderr(), "{text}"));
    }};
}

/// The same for text that ends its own lines.
macro_rules! print {
    ($($what:tt)*) => {{
        use std::io::Write as _;
        let mut out = std::io::stdout();
        let _ = write!(out, $($what)*).and_then(|()| out.flush());
    }};
}

mod cache;
mod columns;
mod command;
mod confirm;
mod context;
mod control;
mod envelope;
mod explain;
mod finalize;
mod hardening;
mod init;
mod keys;
mod last_lines;
mod list;
mod operator;
mod options;
mod parsing;
mod person;
mod plan;
mod plan_text;
mod promote;
mod quarantine;
mod refusal;
mod report;
mod rollback;
mod run;
mod serve;
mod signals;
mod status;
mod status_text;
mod summary;
mod variables;
mod verify;
mod verify_text;

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use serde_json::json;

pub use command::{Cli, Command};
pub use context::Context;

use crate::error::{Error, Exit, Result};
use crate::jobs::interrupt::unless_stopped;
use crate::manual::{completions, man};
use crate::store::connect::answer_limit;
use crate::store::with_answer_limit;
use crate::telemetry::logging::Verbosity;
use crate::telemetry::termination::LastWord;
use crate::telemetry::{console, ending, logging};
use envelope::{Document, Form};
use refusal::Refused;

/// Parses, runs, prints, and returns the exit code.
pub fn main() -> ExitCode {
    let exit = match parsing::parse() {
        Ok(cli) => carried_out(cli),
        Err(e) => not_understood(&e),
    };
    ending::finished(exit);
    ExitCode::from(exit.code())
}

fn carried_out(cli: Cli) -> Exit {
    let stderr = cli.global.console();
    console::take_off_when_panicking();
    logging::start(stderr, cli.global.verbosity());
    variables::warn_of_strangers(&Cli::command());
    cli.global.command.as_deref().map(ending::command);
    let (works, has_last_word) = (cli.command.is_work(), cli.command.has_last_word());
    let form = if cli.command.streams() { Form::Line } else { context::form() };
    let (password, unusable) = match cli.global.password_source() {
        Ok(password) => (password, None),
        Err(e) => (None, Some(e)),
    };
    let context = Context::new(cli.global, password);
    let work = || unusable.map_or_else(|| start(cli.command, &context), |e| Err(e.into()));
    let exit = match guarded(work) {
        Ok(exit) => exit,
        Err(refused) => {
            let e = &refused.error;
            refusal::tell(e, stderr);
            refusal::print(&refused, context.command(), context.json().then_some(form));
            context.last_word.say(&e.message, e.hint.as_deref());
            e.exit
        }
    };
    if works {
        hand_over_metrics(&context, exit);
    }
    if has_last_word {
        context.last_word.write(exit.code(), exit.meaning());
    }
    exit
}

/// What clap has to say: help, the version, or what is wrong with the command line.
fn not_understood(said: &clap::Error) -> Exit {
    let json = parsing::wants_json();
    let print = || _ = said.print();
    if !said.use_stderr() {
        match said.kind() {
            ErrorKind::DisplayVersion if json => version(),
            _ => print(),
        }
        return Exit::Ok;
    }
    let exit = Exit::Usage;
    let command = parsing::command_meant();
    let text = said.render().to_string();
    let text = text.trim_start_matches("error: ").trim_end();
    let error = |text: &str| Error::new(exit, text).hint("Run `rekey --help`");
    let stderr = parsing::console();
    if stderr.json {
        logging::start(stderr, Verbosity::Normal);
        command.as_deref().map(ending::command);
        refusal::tell(&error(text), stderr);
    } else {
        print();
    }
    if json {
        // Not its tips, nor how the command is used.
        let said = text.split("\n\n").next().unwrap_or_default().replace("\n  ", " ");
        refusal::print(&error(&said).into(), command.as_deref(), Some(context::form()));
    }
    LastWord::default().write(exit.code(), exit.meaning());
    exit
}

/// `rekey --version --output json`.
fn version() {
    let result = json!({ "version": env!("CARGO_PKG_VERSION"), "build": env!("REKEY_VERSION") });
    if let Ok(text) = Document::new(Exit::Ok, &result).and_then(|d| d.text(None, context::form())) {
        println!("{text}");
    }
}

/// A panic is a bug with an exit code of the table, and the last word of a pod like any other.
fn guarded(work: impl FnOnce() -> Result<Exit, Refused>) -> Result<Exit, Refused> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::new(Exit::Internal, "rekey panicked; its message is above")
            .hint("Report this bug with the log. No data was lost: run the same command again to resume")
            .into())
    })
}

fn start(command: Command, context: &Context) -> Result<Exit, Refused> {
    hardening::no_core_dumps();
    crate::secrets::refuse_sensitive_logging()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Exit::Internal, format!("can't start the runtime: {e}")))?;
    let tells = command.is_work() && context.global.metrics_file.is_some();
    let work = async {
        let done = match dispatch(command, context).await {
            Ok(exit) => Ok(exit),
            Err(error) => Err(Refused { error, event_head: context.head_if_appended().await }),
        };
        if tells {
            serve::look_once(context).await;
        }
        done
    };
    let exit = runtime.block_on(with_answer_limit(answer_limit(context.lease_ttl), work));
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    exit
}

/// Metrics, wherever they are wanted. What cannot be written changes no exit code.
fn hand_over_metrics(context: &Context, exit: Exit) {
    context.metrics.ended(exit.code());
    if let Some(path) = &context.global.metrics_file
        && let Err(error) = context.metrics.write_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "Could not write the metrics file");
    }
}

async fn serve_metrics(context: &Context) -> Result<()> {
    let Some(address) = context.global.metrics_listen else { return Ok(()) };
    let bound = serve::start(address, context).await?;
    tracing::info!(address = %bound, "Serving a page to watch, /metrics, /livez and /readyz");
    Ok(())
}

async fn dispatch(command: Command, context: &Context) -> Result<Exit> {
    // Usage before anything is contacted.
    if let Some(keys) = command.keys() {
        keys.named()?;
    }
    person::require(&command, &context.global)?;
    if command.is_work() {
        context.metrics.wait_for_rows(command.moves_rows());
        context.know_database();
        serve_metrics(context).await?;
    }
    if command.may_be_given_up() {
        let mut stop = signals::listen()?;
        return unless_stopped(&mut stop, carry_out(command, context)).await;
    }
    carry_out(command, context).await
}

async fn carry_out(command: Command, context: &Context) -> Result<Exit> {
    match command {
        Command::Plan(args) => plan::run(args, context).await,
        Command::Init(args) => init::run(args, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Promote(args) => promote::run(args, context).await,
        Command::Finalize(args) => finalize::run(args, context).await,
        Command::Rollback(args) => rollback::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Report(args) => report::run(args, context).await,
        Command::Status(args) => status::run(args, context).await,
        Command::Pause => control::pause(context).await,
        Command::Resume(args) => control::resume(args, context).await,
        Command::Abort => control::abort(context).await,
        Command::Quarantine(command) => quarantine::run(command, context).await,
        Command::Explain(args) => explain::run(&args, context),
        Command::Completions(args) => completions::run(args, Cli::command()),
        Command::Man(args) => man::run(args, Cli::command()),
        Command::Keys(command) => keys::run(command, context).await,
        Command::Cache(command) => cache::run(command, context).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_with_a_code_of_the_table() {
        let refused = guarded(|| panic!("provoked by a test")).unwrap_err();
        assert_eq!(refused.error.exit, Exit::Internal);
        assert_eq!(guarded(|| Ok(Exit::Busy)).unwrap(), Exit::Busy);
    }
}
