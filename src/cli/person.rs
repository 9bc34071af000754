//! The person behind a command, for the audit trail: who it is where none is named, and when one must be named. A pod's
//! user is "uid 65532" and its name is chosen by a machine, so in Kubernetes production changes nothing without both a
//! person and a reason.

use super::command::Command;
use super::keys::KeysCommand;
use super::options::Global;
use super::quarantine::QuarantineCommand;
use crate::error::{Error, Exit, Result};
use crate::jobs::Environment;

/// Where a command runs.
fn is_in_kubernetes() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// Who acts where `--operator` names none: the pod and its service account; the user who called sudo; the user's name.
pub fn of_this_process() -> String {
    let named = |variable| filled(std::env::var(variable).ok());
    if is_in_kubernetes() {
        let pod = named("HOSTNAME").unwrap_or_else(|| "pod".into());
        return match named("SERVICE_ACCOUNT") {
            Some(account) => format!("{pod} ({account})"),
            None => pod,
        };
    }
    let uid = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named("SUDO_USER")
        .or_else(|| name_of(uid, &users))
        .or_else(|| named("USER"))
        .or_else(|| named("LOGNAME"))
        .unwrap_or_else(|| format!("uid {uid}"))
}

/// Blanks name nobody.
pub fn filled(name: Option<String>) -> Option<String> {
    name.filter(|name| !name.trim().is_empty())
}

fn name_of(uid: u32, users: &str) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

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
            tracing::warn!("the audit trail will say who did this, and not why: pass --reason TEXT");
        }
        return Ok(());
    }
    let operator = filled(global.operator.clone()).is_some();
    let (missing, hint) = match asks {
        Asks::Operator if !is_on_the_command_line("--operator") => (
            "who steers this: the pod's own operator started its Job, and need not be you",
            "name yourself: rekey pause --operator NAME [--reason TEXT]",
        ),
        Asks::OperatorAndReason if !(operator && reason) => (
            "who does this, and why",
            "set operator and reason in scripts/k8s/components/site/values.yaml (REKEY_OPERATOR and REKEY_REASON), then apply the Job again",
        ),
        _ => return Ok(()),
    };
    Err(Error::new(Exit::Usage, format!("production in Kubernetes: the audit trail needs {missing}"))
        .hint(hint))
}

fn is_on_the_command_line(flag: &str) -> bool {
    std::env::args_os().any(|argument| argument.to_string_lossy().starts_with(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_of_its_own() {
        let users = "root:x:0:0:root:/root:/bin/sh\n:x:7::\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(name_of(1000, users).as_deref(), Some("alice"));
        assert_eq!((name_of(7, users), name_of(65532, users)), (None, None));
    }
}
