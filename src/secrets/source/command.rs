//! `command:PROGRAM ARG…`: a program that prints the key, as it is named.
//!
//! Whoever may write the ledger must not get to run a program: only a text that this invocation's flags or environment
//! name becomes a [`Given`](Origin::Given) one, and no other is run.

use std::fmt;

use super::{Place, SourceError, bad_name};
use crate::crypto::Fingerprint;
use crate::program::Program;

const A_PROGRAM: &str = "a program and its arguments, with quotes as in a shell";

/// Who names a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// The ledger: text for people.
    Recorded,
    /// This invocation.
    Given,
}

/// One program, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommandSource {
    program: Program,
    origin: Origin,
}

impl CommandSource {
    /// The program, if it may be run.
    pub(in crate::secrets) fn given(&self) -> Option<&Program> {
        (self.origin == Origin::Given).then_some(&self.program)
    }

    pub(super) fn into_given(self) -> CommandSource {
        CommandSource { origin: Origin::Given, ..self }
    }

    /// Whether both name the same program with the same arguments, whoever names it.
    pub(in crate::secrets) fn is_same_text(&self, other: &CommandSource) -> bool {
        self.program.words() == other.program.words()
    }
}

impl fmt::Display for CommandSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command:{}", self.program)
    }
}

impl Place for CommandSource {
    fn parse(rest: &str) -> Result<CommandSource, SourceError> {
        match Program::parse(rest) {
            Some(program) => Ok(CommandSource { program, origin: Origin::Recorded }),
            None => bad_name("command", A_PROGRAM),
        }
    }

    fn refuse_key(&self) -> Result<(), SourceError> {
        match self.program.shows_secret() {
            true => Err(SourceError::SecretArgument),
            false => Ok(()),
        }
    }

    fn key_name(&self) -> Option<String> {
        Some(self.program.to_string())
    }

    fn is_live(&self) -> bool {
        true
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn instruction(&self, fingerprint: Fingerprint) -> String {
        format!("put the key with fingerprint {fingerprint} where `{}` reads it", self.program)
    }
}
