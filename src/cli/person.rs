//! When a command must name the person behind it, for the audit trail: in Kubernetes, production changes nothing without
//! both a person and a reason.

use super::command::Command;
use super::keys::KeysCommand;
use super::operator::{filled, is_in_kubernetes};
use super::options::Global;
use super::quarantine::QuarantineCommand;
use crate::error::{Error, Exit, Result};
use crate::jobs::Environment;

/// What a command must say of the person behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// Nothing: it reads.
    Nothing,
    /// Who steers, on the command line: the pod's own variables name who started its Job.
    Operator,
    /// Who changes something, and why.
    OperatorAndReason,
}

fn asks(command: &Command) -> Asks {
    match command {
        Command::Pause | Command::Resume(_) | Command::Abort => Asks::Operator,
        Command::Run(args) if args.dry_run => Asks::Nothing,
        Command::Run(_) | Command::Promote(_) | Command::Finalize(_) | Command::Rollback(_) => {
            Asks::OperatorAndReason
        }
        Command::Quarantine(QuarantineCommand::List) => Asks::Nothing,
        Command::Quarantine(_) => Asks::OperatorAndReason,
        Command::Keys(
            KeysCommand::Validate(_)
            | KeysCommand::Status(_)
            | KeysCommand::Fingerprint(_)
            | KeysCommand::Backup(_),
        ) => Asks::Nothing,
        Command::Keys(_) => Asks::OperatorAndReason,
        Command::Plan(_)
        | Command::Init(_)
        | Command::Status(_)
        | Command::Verify(_)
        | Command::Report(_)
        | Command::Explain(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Cache(_) => Asks::Nothing,
    }
}

/// Refuses (2) what changes something in production from a pod without a person and a reason; elsewhere warns where
/// the reason is missing.
pub fn require(command: &Command, global: &Global) -> Result<()> {
    let asks = asks(command);
    if asks == Asks::Nothing || global.environment != Environment::Production {
        return Ok(());
    }
    let reason = match command {
        Command::Quarantine(QuarantineCommand::Accept { .. }) => true,
        _ => global.reason.is_some(),
    };
    if !is_in_kubernetes() {
        let rotates = matches!(
            command,
            Command::Run(_) | Command::Promote(_) | Command::Finalize(_) | Command::Rollback(_)
        );
        if rotates && !reason {
            tracing::warn!("The audit trail will have no reason. Pass `--reason TEXT`");
        }
        return Ok(());
    }
    let operator = filled(global.operator.clone()).is_some();
    let (missing, hint) = match asks {
        Asks::Operator if !is_on_the_command_line("--operator") => (
            "the name of the person who runs this command, because the pod's operator is the one who started its Job",
            "Run the same command again with `--operator NAME`",
        ),
        Asks::OperatorAndReason if !(operator && reason) => (
            "the operator's name and a reason",
            "Set operator and reason in scripts/k8s/components/site/values.yaml (REKEY_OPERATOR and REKEY_REASON), then apply the Job again",
        ),
        _ => return Ok(()),
    };
    Err(Error::new(Exit::Usage, format!("production in Kubernetes: the audit trail needs {missing}"))
        .hint(hint))
}

fn is_on_the_command_line(flag: &str) -> bool {
    std::env::args_os().any(|argument| argument.to_string_lossy().starts_with(flag))
}
