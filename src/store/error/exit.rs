//! How a database error ends a command: the exit code, and what to type next.

use super::{Class, NAME_THE_SERVER, StoreError};
use crate::error::{Error, Exit};

impl StoreError {
    /// A rotation under way, or all of rekey's tables, have vanished: this is another database than a moment ago.
    fn ledger_is_gone(&self) -> bool {
        match self {
            StoreError::Sql { source: sqlx::Error::RowNotFound, .. } => true,
            StoreError::Sql { source: sqlx::Error::Database(db), .. } => {
                // Names are the same in every language.
                matches!(db.code().as_deref(), Some("42P01" | "3F000")) && db.message().contains("rekey")
            }
            _ => false,
        }
    }

    /// The server, or an event trigger in it, does not let this role create or change schema rekey.
    fn refused_migration(&self) -> Option<Error> {
        let StoreError::Migrate { triggers, .. } = self else { return None };
        let passing = matches!(
            self.class(),
            Class::ConnectionLost | Class::LockTimeout | Class::Retry | Class::TookTooLong | Class::Exhausted
        );
        if passing || self.is_damage() || self.sqlstate().is_none() {
            return None;
        }
        let message = match triggers.as_slice() {
            [] => self.to_string(),
            triggers => format!("{self}; event trigger {} runs for such statements", triggers.join(", ")),
        };
        Some(Error::new(Exit::Preflight, message).hint(
            "Let a DBA or the owner of schema rekey apply the SQL of `rekey init --print-sql`, then run the \
             same command again",
        ))
    }
}

/// What to do about an index that does not find every row.
pub fn reindex(index: &str) -> String {
    format!("As the table's owner run `REINDEX INDEX CONCURRENTLY {index}`, then the same command again")
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Error {
        match e {
            StoreError::OlderLedger => {
                return Error::new(Exit::Preflight, e.to_string()).hint(
                    "Run `rekey init` as the owner of schema rekey. It upgrades the schema and loses nothing",
                );
            }
            StoreError::NewerLedger { .. } => {
                return Error::new(Exit::Preflight, e.to_string())
                    .hint("Use that version of rekey on every machine and in every pod");
            }
            StoreError::Unindexed { ref index, .. } => {
                return Error::new(Exit::Preflight, e.to_string()).hint(reindex(index));
            }
            StoreError::TooManyWritten { .. } => {
                return Error::new(Exit::Busy, e.to_string())
                    .hint("Stop the writers, then run the same command again");
            }
            _ => {}
        }
        if let StoreError::NoLonger { .. } = e {
            return Error::new(Exit::Unavailable, e.to_string()).hint(
                "What was committed stands, and the checkpoint is saved. Fix what the server refuses, then run the same command again",
            );
        }
        if let StoreError::Password { cause, .. } = &e {
            let exit = if cause.may_pass() { Exit::Unavailable } else { Exit::Usage };
            return Error::new(exit, e.to_string()).hint(cause.hint());
        }
        if matches!(e, StoreError::Pooled { .. }) {
            return Error::new(Exit::Preflight, e.to_string()).hint(NAME_THE_SERVER);
        }
        // A prepared statement that is there already, or not there: another client's session is at the other end.
        if matches!(e.sqlstate().as_deref(), Some("42P05" | "26000")) {
            return Error::new(
                Exit::Preflight,
                format!("pooling: rekey is connected through a pooler in transaction mode: {e}"),
            )
            .hint(NAME_THE_SERVER);
        }
        if e.ledger_is_gone() {
            return Error::new(
                Exit::Unavailable,
                format!("this rotation is no longer in this database: {e}"),
            )
            .hint(
                "The database may have been restored, or failed over before this rotation replicated. \
                Check `rekey status`, then rerun",
            );
        }
        if let Some(refused) = e.refused_migration() {
            return refused;
        }
        let (exit, hint) = match (e.class(), &e) {
            (Class::ConnectionLost | Class::LockTimeout | Class::Retry | Class::TookTooLong, _) => (
                Exit::Unavailable,
                "Check that the database is up and reachable, then run the same command again",
            ),
            (Class::Exhausted, _) => (
                Exit::Unavailable,
                "Free resources on the database server, then run the same command again. The checkpoint is \
                 saved",
            ),
            (Class::Denied, StoreError::Tls { remedy, .. }) => (Exit::Usage, *remedy),
            (Class::Denied, StoreError::Unpreparable { .. }) => (
                Exit::Usage,
                "Give the role a password of ASCII letters, digits and punctuation: `ALTER ROLE … PASSWORD`",
            ),
            (Class::Denied, StoreError::Refused { .. }) => (
                Exit::Usage,
                "Check the user, password and database name in DATABASE_URL. The server's log shows the reason",
            ),
            (Class::Denied, StoreError::Connect { .. }) => {
                (Exit::Usage, "Check the user, password, database name and TLS settings in DATABASE_URL")
            }
            (Class::Denied, _) => (
                Exit::Preflight,
                "Grant the missing privilege. Run `rekey init --print-sql` to see the grants that each role \
                 needs",
            ),
            (Class::Data | Class::Fatal, _) => (
                Exit::Internal,
                "Report this bug with the log. No data was lost: run the same command again to resume",
            ),
        };
        Error::new(exit, e.to_string()).hint(hint)
    }
}
