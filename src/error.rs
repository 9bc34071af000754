//! The exit-code table, and the one mapping from every error to its code.
//!
//! Codes are public: people script against them and the Kubernetes `podFailurePolicy` is tested against this
//! table. Everything returns an [`Error`], and `main` exits; only a second signal, or a shutdown that
//! takes too long, exits from `cli/signals.rs`.

use std::fmt;

/// What Kubernetes should do with a pod that ended with a code (`podFailurePolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodAction {
    /// The pod succeeded; no rule.
    None,
    /// Counts against `backoffLimit`: trying again may help.
    Count,
    /// Trying again cannot help: fail the Job.
    FailJob,
    /// Stopped on purpose from outside: replace the pod, do not count it.
    Ignore,
}

macro_rules! exit_codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal, $action:ident, $meaning:literal;)*) => {
        /// Every way a `rekey` process can end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Exit { $($(#[doc = $doc])* $name = $code),* }

        impl Exit {
            /// All codes, in the order of the public table.
            pub const ALL: &[Exit] = &[$(Exit::$name),*];
            /// One line for people.
            pub const fn meaning(self) -> &'static str { match self { $(Exit::$name => $meaning),* } }
            /// The Kubernetes rule for this code.
            pub const fn pod_action(self) -> PodAction { match self { $(Exit::$name => PodAction::$action),* } }
        }
    };
}

exit_codes! {
    Ok = 0, None, "Success: requested state reached";
    Internal = 1, Count, "Internal error: a bug";
    Usage = 2, FailJob, "Usage or configuration error";
    Key = 3, FailJob, "Key missing, malformed, wrong, not this rotation's, or both keys equal";
    Preflight = 4, FailJob, "Preflight refused";
    Quarantined = 5, FailJob, "Finished, but rows are quarantined";
    VerifyFailed = 6, FailJob, "Verify failed: rows are on the wrong key, or rows written by rekey changed \
        their contents";
    State = 7, FailJob, "Refused in this state of the rotation";
    Busy = 8, FailJob, "Another process holds a lock that this command needs";
    Stopped = 9, FailJob, "Stopped on purpose: aborted, or past the deadline; the checkpoint is saved";
    Unavailable = 69, Count, "Database, Redis or secrets backend unreachable";
    Signalled = 75, Ignore, "Stopped by a signal; the checkpoint is saved, so run again to resume";
}

impl Exit {
    /// The number the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// An error as the operator meets it: what happened, what to type next, and the exit code.
///
/// Modules have error enums of their own; each converts into this in one exhaustive match beside its enum.
#[derive(Clone, Debug)]
pub struct Error {
    /// How the process ends.
    pub exit: Exit,
    /// What happened, naming the thing. Never contains a secret.
    pub message: String,
    /// The remedy: what to do or type next.
    pub hint: Option<String>,
}

impl Error {
    /// An error without a remedy; add one with [`Error::hint`].
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Error { exit, message: message.into(), hint: None }
    }

    /// Adds what to do or type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The result of everything that can end the process.
pub type Result<T, E = Error> = std::result::Result<T, E>;
