//! What can go wrong with a key source, and the exit code of each.
//!
//! Messages name the thing (a variable, a path, a secret's name, an IAM action) and never its value. Text that
//! may itself be a key, typed where its name belongs, is not carried at all.

use std::io;

use thiserror::Error as ThisError;

use crate::error::{Error, Exit};
use crate::program::Failure;

/// A key source that cannot be parsed, read or written.
#[derive(Debug, ThisError)]
pub enum SourceError {
    /// The text is no key source. It is not kept: it may be a key.
    #[error("this is not a key source (not shown, because it may be a key)")]
    NotASource,
    /// A known scheme with a name that cannot be right. The name is not kept: it may be a key.
    #[error("the text after `{scheme}:` is not {expected} (not shown, because it may be a key)")]
    BadName { scheme: &'static str, expected: &'static str },
    /// A program with an argument that may be a secret.
    #[error("an argument after `command:` looks like a secret, and the text would be recorded (not shown)")]
    SecretArgument,
    /// `dotenv:PATH` that does not say which variable.
    #[error("dotenv:{path} does not name a variable")]
    DotenvWithoutVariable { path: String },
    /// The environment's settings contradict each other or are incomplete.
    #[error("{what}")]
    Config { what: String, hint: String },
    /// The place exists no more, or never did, or is empty.
    #[error("{source_name}: {what}")]
    Missing { source_name: String, what: String, hint: String },
    /// The place exists, but what is there cannot be used.
    #[error("{source_name}: {what}")]
    Malformed { source_name: String, what: String, hint: String },
    /// The operating system denies access to a file or directory.
    #[error("{path}: can't {operation}: {cause}")]
    Io { path: String, operation: &'static str, cause: io::Error },
    /// It can be read, but a file must not be put in its place.
    #[error("{path} is {what}; rekey only writes regular files")]
    Irregular { path: String, what: &'static str },
    /// Secrets Manager refused the call for want of a permission.
    #[error("AWS denies {action} on {resource}")]
    Denied { action: &'static str, resource: String, detail: String },
    /// No response, throttling or server errors, for the whole of `--retry-for`.
    #[error("AWS Secrets Manager: {action} on {resource} failed: {detail}")]
    Unavailable { action: &'static str, resource: String, detail: String },
    /// Secrets Manager refused the call, and waiting does not help.
    #[error("AWS Secrets Manager refused {action} on {resource}: {detail}")]
    Refused { action: &'static str, resource: String, detail: String },
    /// A program that the operator named failed.
    #[error("{source_name}: {failure}")]
    Program { source_name: String, failure: Failure },
    /// A command that only the ledger names.
    #[error(
        "{source_name} is recorded in the ledger, and this invocation does not name it: rekey did not run it"
    )]
    NotGiven { source_name: String },
    /// Another rekey process is changing files in the same directory.
    #[error("another rekey process is changing files in {folder}")]
    Locked { folder: String },
    /// The value kept changing while rekey was replacing it.
    #[error("{resource}: the current value changed {attempts} times while rekey was replacing it")]
    Contended { resource: String, attempts: u32 },
}

/// The operation that failed where a file has been replaced already.
pub(super) const SYNC_REPLACED: &str = "sync the folder of the file that was replaced";

/// The forms a key source is written in, for hints.
pub(super) const FORMS: &str = "Name the key's source: env:VAR, file:PATH, dotenv:PATH#VAR, \
    aws:SECRET_ID[#JSON_FIELD][@LABEL_OR_VERSION_ID] or command:PROGRAM ARG…";

impl From<SourceError> for Error {
    fn from(e: SourceError) -> Self {
        let message = e.to_string();
        let (exit, hint) = match e {
            SourceError::NotASource | SourceError::BadName { .. } => (Exit::Usage, FORMS.to_owned()),
            SourceError::SecretArgument => (
                Exit::Usage,
                "Let the program read it from its environment or a file. If it is a name, put the command into a script and \
                 name that: `command:PATH`"
                    .to_owned(),
            ),
            SourceError::DotenvWithoutVariable { path } => {
                (Exit::Usage, format!("Add the variable: dotenv:{path}#ENCRYPTION_KEY"))
            }
            SourceError::Config { hint, .. } => (Exit::Usage, hint),
            SourceError::Missing { hint, .. } | SourceError::Malformed { hint, .. } => (Exit::Key, hint),
            // Not being able to read a key is a missing key; not being able to write is how the machine is set up.
            SourceError::Io { path, operation: operation @ "read", .. } => {
                (Exit::Key, format!("Allow this user to {operation} {path}, or name another source"))
            }
            SourceError::Io { path, operation, cause } => (Exit::Usage, write_hint(&path, operation, &cause)),
            SourceError::Irregular { path, .. } => (
                Exit::Usage,
                format!(
                    "Nothing was changed. Change the key in the source of {path}, then confirm with `rekey \
                     promote --external`"
                ),
            ),
            SourceError::Denied { action, resource, detail } => {
                (Exit::Key, format!("Allow {action} on {resource} in the IAM policy of this role ({detail})"))
            }
            SourceError::Unavailable { .. } => (
                Exit::Unavailable,
                "Check the network path to Secrets Manager (VPC endpoint, security group, AWS_ENDPOINT_URL, \
                 AWS_REGION), then run the same command again"
                    .to_owned(),
            ),
            SourceError::Refused { .. } => {
                (Exit::Key, "Fix what AWS reports, then run the same command again".to_owned())
            }
            SourceError::Locked { .. } => {
                (Exit::Busy, "Wait for it to end, then run the same command again".to_owned())
            }
            SourceError::Program { failure, .. } => (failure.exit(), failure.hint()),
            SourceError::NotGiven { .. } => (
                Exit::Key,
                "read the command; if it is yours, name it in this invocation (--old-key, --new-key or --target, or their variables)"
                    .to_owned(),
            ),
            SourceError::Contended { .. } => (
                Exit::Busy,
                "Find and stop what keeps writing this secret, then run the same command again".to_owned(),
            ),
        };
        Error::new(exit, message).hint(hint)
    }
}

fn write_hint(path: &str, operation: &str, cause: &io::Error) -> String {
    if operation == SYNC_REPLACED {
        return format!(
            "File replaced in {path} but not synced; a power loss could undo it. Check it before rerunning"
        );
    }
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "Nothing was changed. Free some disk space, then run the same command again".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            format!("Nothing was changed. Make the directory of {path} writable for this user")
        }
        io::ErrorKind::ResourceBusy => {
            format!("Nothing was changed: {path} is a mount point. Mount its directory instead")
        }
        _ => format!(
            "Nothing was changed: rekey couldn't {operation} {path}. Fix that, then run the same \
            command again"
        ),
    }
}
