//! A step is a command to type, or something to do by hand. It renders as the text that stands behind `next:`.

use std::fmt;

use serde::{Serialize, Serializer};

/// A command, as far as the table tells one from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `plan`
    Plan,
    /// `run --dry-run`
    DryRun,
    /// `run`
    Run {
        /// With a new `--deadline`.
        deadline: bool,
    },
    /// `verify`
    Verify,
    /// `promote`
    Promote {
        /// `--external`: rekey does not write the key, it waits for the change.
        external: bool,
    },
    /// `finalize`
    Finalize,
    /// `rollback`
    Rollback {
        /// With a new `--deadline`.
        deadline: bool,
        /// `--i-know-the-old-key-is-compromised`
        compromised: bool,
    },
    /// `pause`
    Pause,
    /// `resume`
    Resume,
    /// `abort`
    Abort,
    /// `status`
    Status,
    /// `status --watch`
    Watch,
    /// `quarantine list`
    QuarantineList,
    /// `quarantine retry`
    QuarantineRetry {
        /// With a new `--deadline`.
        deadline: bool,
    },
    /// `quarantine accept`
    QuarantineAccept,
    /// `report`
    Report,
    /// `keys fingerprint`
    Fingerprint,
    /// `cache purge`
    CachePurge,
}

/// A step to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Type this command. Where it ends or changes what the application reads, it asks first.
    Type(Command),
    /// Type it with `--yes`: it was begun, and so agreed to, before.
    Finish(Command),
    /// Something that rekey cannot do.
    Do(Instruction),
}

/// What only an operator can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// It reads its key when it starts.
    RestartApplication,
    /// They save rows under the wrong key.
    StopWriters,
    /// The index of the primary key does not lead to every row.
    Reindex,
    /// Those a dry run could not decrypt.
    RepairRows,
    /// Those of preflight.
    FixFindings,
    /// Until nothing asks for the old key any more.
    WaitSomeDays,
    /// Where rekey cannot write it.
    GiveNewKey,
    /// Where rekey cannot write it back.
    GiveOldKey,
    /// What is lost with a machine is no backup.
    CopyBackup,
    /// Its tables were changed by other means than rekey.
    RestoreLedger,
}

impl Step {
    /// The command to type, if it is one.
    pub const fn command(self) -> Option<Command> {
        match self {
            Step::Type(command) | Step::Finish(command) => Some(command),
            Step::Do(_) => None,
        }
    }
}

impl Command {
    /// Whether keys, rows or what counts of them change by it.
    pub(super) const fn moves(self) -> bool {
        matches!(
            self,
            Command::Run { .. }
                | Command::Promote { .. }
                | Command::Finalize
                | Command::Rollback { .. }
                | Command::QuarantineRetry { .. }
                | Command::QuarantineAccept
        )
    }

    /// What stands behind "there is no rotation to".
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Command::Promote { .. } => "promote",
            Command::Finalize => "finalize",
            Command::Rollback { .. } => "roll back",
            Command::Verify => "verify",
            Command::Pause => "pause",
            Command::Resume => "resume",
            Command::Abort => "abort",
            Command::QuarantineList | Command::QuarantineRetry { .. } | Command::QuarantineAccept => {
                "list quarantined rows of"
            }
            Command::Report => "report on",
            Command::Plan | Command::DryRun | Command::Run { .. } => "run",
            Command::Status | Command::Watch | Command::Fingerprint | Command::CachePurge => "show",
        }
    }

    fn write(self, f: &mut fmt::Formatter<'_>, yes: bool) -> fmt::Result {
        let yes = if yes { " --yes" } else { "" };
        match self {
            Command::Plan => f.write_str("rekey plan"),
            Command::DryRun => f.write_str("rekey run --dry-run"),
            Command::Run { deadline } => write!(f, "rekey run{}", until(deadline)),
            Command::Verify => f.write_str("rekey verify"),
            Command::Promote { external } => {
                write!(f, "rekey promote{}{yes}", if external { " --external" } else { "" })
            }
            Command::Finalize => write!(f, "rekey finalize{yes}"),
            Command::Rollback { deadline, compromised } => {
                let known = if compromised { " --i-know-the-old-key-is-compromised" } else { "" };
                write!(f, "rekey rollback{yes}{known}{}", until(deadline))
            }
            Command::Pause => f.write_str("rekey pause"),
            Command::Resume => f.write_str("rekey resume"),
            Command::Abort => f.write_str("rekey abort"),
            Command::Status => f.write_str("rekey status"),
            Command::Watch => f.write_str("rekey status --watch"),
            Command::QuarantineList => f.write_str("rekey quarantine list"),
            Command::QuarantineRetry { deadline } => write!(f, "rekey quarantine retry{}", until(deadline)),
            Command::QuarantineAccept => f.write_str("rekey quarantine accept ID --reason TEXT"),
            Command::Report => f.write_str("rekey report"),
            Command::Fingerprint => f.write_str("rekey keys fingerprint SOURCE"),
            Command::CachePurge => f.write_str("rekey cache purge"),
        }
    }
}

/// An example: how long the new window is, only its operator knows.
const fn until(deadline: bool) -> &'static str {
    if deadline { " --deadline 2h" } else { "" }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Type(command) => command.write(f, false),
            Step::Finish(command) => command.write(f, true),
            Step::Do(instruction) => instruction.fmt(f),
        }
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Instruction::RestartApplication => "restart the application",
            Instruction::StopWriters => "stop the writers",
            Instruction::Reindex => "rebuild the index of the primary key (REINDEX INDEX CONCURRENTLY)",
            Instruction::RepairRows => {
                "repair the listed rows, name their key with `--also-key`, or let the run quarantine them"
            }
            Instruction::FixFindings => "fix the refused findings",
            Instruction::WaitSomeDays => "wait a few days: you can roll back until you finalize",
            Instruction::GiveNewKey => "give the application the new key",
            Instruction::GiveOldKey => "give the application the old key",
            Instruction::CopyBackup => "copy the file to another machine",
            Instruction::RestoreLedger => {
                "find out who changed rekey's tables, and put back what the audit trail says"
            }
        })
    }
}

/// As text: in JSON, an entry that begins with `rekey ` is a command.
impl Serialize for Step {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
