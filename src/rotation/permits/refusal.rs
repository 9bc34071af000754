//! Why a command does not fit: the facts as types, how the process ends, and what to do instead.

use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

use super::step::{Command, Step};
use crate::error::{Error, Exit};
use crate::rotation::claim::{Claim, Contradicted};
use crate::rotation::state::State;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How the process ends.
    pub exit: Exit,
    /// Why.
    pub fact: Fact,
    /// What to do instead, in this order.
    pub then: Vec<Step>,
    /// Another way.
    pub or: Option<Step>,
}

/// Why a command does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// None was ever started.
    NoRotation(Command),
    /// None is active.
    NoneActive(Command),
    /// The operator aborted it, with rows on both keys or not.
    Aborted { id: Uuid, mixed: bool },
    /// Its window has ended, with rows on both keys or not.
    PastDeadline { id: Uuid, deadline: Option<Timestamp>, mixed: bool },
    /// Something else was begun, and has to be finished.
    UnderWay { id: Uuid, state: State },
    /// The state is not one from which this command goes on.
    Unfit { id: Uuid, state: State, command: Command },
    /// The end has begun.
    NoRollback { id: Uuid, state: State },
    /// The old key is compromised, and this command does not say that it is known.
    Compromised { id: Uuid },
    /// Another process promotes, finalizes or rolls back.
    Busy { id: Uuid },
    /// The ledger claims what the audit trail contradicts.
    Contradicted { id: Uuid, state: State, contradicted: Contradicted },
    /// It ended on the new key.
    Over { id: Uuid },
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fact::NoRotation(command) => write!(f, "there is no rotation to {}", command.verb()),
            Fact::NoneActive(command) => write!(f, "there is no active rotation to {}", command.verb()),
            Fact::Aborted { id, mixed } => write!(f, "rotation {id} was aborted{}", cannot_read(mixed)),
            Fact::PastDeadline { id, deadline, mixed } => {
                write!(f, "rotation {id} is past its deadline")?;
                if let Some(deadline) = deadline {
                    write!(f, ", {deadline}")?;
                }
                f.write_str(cannot_read(mixed))
            }
            Fact::UnderWay { id, state } => match state {
                State::Promoting => write!(f, "rotation {id} is being promoted"),
                State::Finalizing => write!(f, "rotation {id} is being finalized"),
                State::RollingBack | State::Unpromoting => write!(f, "rotation {id} is being rolled back"),
                _ => write!(f, "rotation {id} is {state}"),
            },
            Fact::Unfit { id, state, command } => {
                let done = if command == Command::Finalize { "finalized" } else { "promoted" };
                write!(f, "rotation {id} is {state} and can't be {done}")
            }
            Fact::NoRollback { id, state } => {
                write!(f, "rotation {id} is {state} and can no longer be rolled back")
            }
            Fact::Compromised { id } => write!(f, "the old key of rotation {id} is compromised"),
            Fact::Busy { id } => {
                write!(f, "another process is promoting, finalizing or rolling back rotation {id}")
            }
            Fact::Contradicted { id, state, contradicted: Contradicted { claim: Claim::State, trail } } => {
                let trail = trail.map_or("has no event of it", State::as_str);
                write!(f, "the ledger says that rotation {id} is {state}, and the audit trail says {trail}")
            }
            Fact::Contradicted { id, contradicted: Contradicted { claim: Claim::Promotion, .. }, .. } => {
                write!(f, "ledger and audit trail disagree on whether, and where, rotation {id} was promoted")
            }
            Fact::Contradicted { id, .. } => {
                write!(f, "ledger and audit trail disagree on the keys of rotation {id}")
            }
            Fact::Over { id } => write!(f, "rotation {id} is finalized"),
        }
    }
}

/// Rows are on both keys, and the application has one of them.
const fn cannot_read(mixed: bool) -> &'static str {
    if mixed {
        "; rows are on both keys, and the application decrypts only those on the key it reads"
    } else {
        ""
    }
}

impl Refusal {
    /// There is no rotation that this command could be about.
    pub fn no_rotation(command: Command) -> Refusal {
        let then = vec![Step::Type(Command::Plan)];
        Refusal { exit: Exit::State, fact: Fact::NoRotation(command), then, or: None }
    }

    /// What to do instead, as a sentence with its commands in backquotes.
    pub fn hint(&self) -> String {
        let phrase = |step: &Step| match step {
            Step::Do(instruction) => instruction.to_string(),
            command => format!("run `{command}`"),
        };
        let mut hint = self.then.iter().map(phrase).collect::<Vec<_>>().join(", then ");
        if matches!(self.then[..], [Step::Finish(_)]) && self.exit == Exit::State {
            hint.push_str(" to finish");
        }
        if let Some(or) = &self.or {
            hint.push_str("; or ");
            hint.push_str(&phrase(or));
        }
        sentence(&hint)
    }
}

/// With its first letter in upper case.
pub fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let hint = refusal.hint();
        Error::new(refusal.exit, refusal.fact.to_string()).hint(hint)
    }
}
