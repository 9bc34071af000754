//! What can go wrong with a key source, and the exit code of each.
//!
//! Messages name the thing (a variable, a path, a secret's name, an IAM action) and never its value. Text that
//! may itself be a key, because somebody typed the key where its name belongs, is not carried at all.

use std::io;

use thiserror::Error as ThisError;

use crate::error::{Error, Exit};

/// A key source that cannot be parsed, read or written.
#[derive(Debug, ThisError)]
pub enum SourceError {
    /// The text is no key source. It is not kept: it may be a key.
    #[error("a key source was expected, but this is not one (it is not shown: it may be a key)")]
    NotASource,
    /// A known scheme with a name that cannot be right. The name is not kept: it may be a key.
    #[error(
        "`{scheme}:` is followed by something that cannot be {expected} (it is not shown: it may be a key)"
    )]
    BadName { scheme: &'static str, expected: &'static str },
    /// `dotenv:PATH` that does not say which variable.
    #[error("dotenv:{path} does not say which variable")]
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
    /// A file or folder that the operating system does not let us use.
    #[error("{path}: cannot {operation}: {cause}")]
    Io { path: String, operation: &'static str, cause: io::Error },
    /// It can be read, but a file must not be put in its place.
    #[error("{path} is {what}, and rekey writes files only")]
    Irregular { path: String, what: &'static str },
    /// Secrets Manager refused the call for want of a permission.
    #[error("AWS denies {action} on {resource}")]
    Denied { action: &'static str, resource: String, detail: String },
    /// No answer, throttling or server errors, for as long as we were willing to wait.
    #[error("AWS Secrets Manager: {action} on {resource} failed: {detail}")]
    Unavailable { action: &'static str, resource: String, detail: String },
    /// Secrets Manager refused the call for a reason that waiting does not mend.
    #[error("AWS Secrets Manager refused {action} on {resource}: {detail}")]
    Refused { action: &'static str, resource: String, detail: String },
    /// Another process of ours is changing files in the same folder.
    #[error("another rekey process is changing files in {folder}")]
    Locked { folder: String },
    /// What is to be replaced kept changing under us.
    #[error("{resource}: the current value changed {attempts} times while it was being replaced")]
    Contended { resource: String, attempts: u32 },
}

/// The operation that failed where a file has been replaced already.
pub(super) const SYNC_REPLACED: &str = "sync the folder of the file that was replaced";

/// The forms a key source is written in, for hints.
pub(super) const FORMS: &str = "name where the key is: env:VAR, file:PATH, dotenv:PATH#VAR or aws:SECRET_ID[#JSON_FIELD][@STAGE_OR_VERSION_ID]";

impl From<SourceError> for Error {
    fn from(e: SourceError) -> Self {
        let message = e.to_string();
        let (exit, hint) = match e {
            SourceError::NotASource | SourceError::BadName { .. } => (Exit::Usage, FORMS.to_owned()),
            SourceError::DotenvWithoutVariable { path } => {
                (Exit::Usage, format!("add it: dotenv:{path}#ENCRYPTION_KEY"))
            }
            SourceError::Config { hint, .. } => (Exit::Usage, hint),
            SourceError::Missing { hint, .. } | SourceError::Malformed { hint, .. } => (Exit::Key, hint),
            // Not being able to read a key is a missing key; not being able to write is how the machine is set up.
            SourceError::Io { path, operation: operation @ "read", .. } => {
                (Exit::Key, format!("let this user {operation} {path}, or name another place"))
            }
            SourceError::Io { path, operation, cause } => (Exit::Usage, write_hint(&path, operation, &cause)),
            SourceError::Irregular { path, .. } => (
                Exit::Usage,
                format!(
                    "nothing was changed: change the key where {path} gets it from; `rekey promote --external` looks whether it is"
                ),
            ),
            SourceError::Denied { action, resource, detail } => {
                (Exit::Key, format!("allow {action} on {resource} in the IAM policy of this role ({detail})"))
            }
            SourceError::Unavailable { .. } => (
                Exit::Unavailable,
                "check the network path to Secrets Manager (VPC endpoint, security group, AWS_ENDPOINT_URL, \
                 AWS_REGION), then run the same command again"
                    .to_owned(),
            ),
            SourceError::Refused { .. } => {
                (Exit::Key, "put right what AWS names here, then run the same command again".to_owned())
            }
            SourceError::Locked { .. } => (Exit::Busy, "wait for it to end, then run this again".to_owned()),
            SourceError::Contended { .. } => (
                Exit::Busy,
                "something else keeps writing this secret: stop it, then run the same command again"
                    .to_owned(),
            ),
        };
        Error::new(exit, message).hint(hint)
    }
}

fn write_hint(path: &str, operation: &str, cause: &io::Error) -> String {
    if operation == SYNC_REPLACED {
        return format!(
            "the file in {path} is changed, but a power cut may still take that back: look what it holds before you \
             run this again"
        );
    }
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "nothing was changed: free some disk space, then run this again".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            format!("nothing was changed: the folder of {path} must be writable for this user")
        }
        io::ErrorKind::ResourceBusy => {
            format!("nothing was changed: {path} is a mount point of its own; mount its folder instead")
        }
        _ => format!("nothing was changed: make it possible to {operation} {path}, then run this again"),
    }
}
