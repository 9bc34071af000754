//! Arguments and one file per command. Raw argument structs stop here: past this module there are only types that
//! cannot be wrong.

mod args;
mod cache;
mod confirm;
mod context;
mod control;
mod key_pair;
mod keys;
mod quarantine;
mod rollback;
mod run;
mod signals;
mod status;
mod summary;
mod verify;
mod work;

use std::process::ExitCode;

use clap::Parser;

pub use args::{Cli, Command};
pub use context::Context;

use crate::error::{Error, Exit, Result};
use crate::telemetry::logging;

/// Parses, runs, prints, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { Exit::Usage.code() } else { Exit::Ok.code() });
        }
    };
    let json_logs = cli.global.log_format.is_json();
    logging::start(cli.global.log_format);
    let exit = match start(cli) {
        Ok(exit) => exit,
        Err(e) => {
            report(&e, json_logs);
            e.exit
        }
    };
    ExitCode::from(exit.code())
}

fn start(cli: Cli) -> Result<Exit> {
    crate::secrets::refuse_sensitive_logging()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Exit::Internal, format!("cannot start the runtime: {e}")))?;
    let exit = runtime.block_on(dispatch(cli));
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    exit
}

async fn dispatch(cli: Cli) -> Result<Exit> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Run(args) => run::run(args, &context).await,
        Command::Rollback(args) => rollback::run(args, &context).await,
        Command::Verify(args) => verify::run(args, &context).await,
        Command::Status(args) => status::run(args, &context).await,
        Command::Pause => control::pause(&context).await,
        Command::Resume(args) => control::resume(args, &context).await,
        Command::Abort => control::abort(&context).await,
        Command::Quarantine(command) => quarantine::run(command, &context).await,
        Command::Keys(command) => keys::run(command, &context).await,
        Command::Cache(command) => cache::run(command, &context).await,
    }
}

fn report(e: &Error, json: bool) {
    if json {
        tracing::error!(exit_code = e.exit.code(), hint = e.hint, "{e}");
    } else {
        eprintln!("error: {e}");
        if let Some(hint) = &e.hint {
            eprintln!("  try: {hint}");
        }
    }
}
