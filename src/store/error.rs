//! Database errors, by what can be done about them.

mod exit;

pub use exit::reindex;

use std::time::Duration;

use uuid::Uuid;

use super::dsn::PasswordError;
use crate::fault_point::{self, Fault, Side};

/// What to do after a database error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The connection is gone, or may be: discard everything buffered, reconnect.
    ConnectionLost,
    /// Serialization failure, deadlock: do the same again.
    Retry,
    /// The server cut the statement off, at its time limit or because it was asked to: do less, or the same later.
    TookTooLong,
    /// Someone holds a row: take what is free.
    LockTimeout,
    /// The server ran out of disk, memory or another resource: that may pass, but not by trying at once.
    Exhausted,
    /// The server rejects a value: find the row.
    Data,
    /// Privileges or configuration: trying again cannot help.
    Denied,
    /// Anything else.
    Fatal,
}

/// One operation that failed against the database. Messages name the operation; values never appear.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection could be made.
    #[error("cannot connect to {server}: {}", describe(.source))]
    Connect {
        /// `user@host:port/database`.
        server: String,
        /// What sqlx said.
        source: sqlx::Error,
    },
    /// TLS cannot be set up, and waiting does not help.
    #[error("cannot connect to {server}: {cause}")]
    Tls {
        /// `user@host:port/database`.
        server: String,
        /// What is wrong, naming the file or the host.
        cause: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The server refused, in words that are no UTF-8.
    #[error("cannot connect to {server}: {}", unreadable(.sqlstate.as_deref()))]
    Refused {
        /// `user@host:port/database`.
        server: String,
        /// The SQLSTATE; `None` where it was for the user, the password or the database.
        sqlstate: Option<String>,
    },
    /// SCRAM cannot take the password, or the user's name, to the server. Neither is shown.
    #[error(
        "can't connect to {server}: the password or the user's name has a character that SASLprep (RFC 4013) \
         forbids: a control character, an emoji, or letters of two directions"
    )]
    Unpreparable {
        /// `user@host:port/database`.
        server: String,
    },
    /// The password could not be read where it is kept.
    #[error("cannot connect to {server}: the password: {cause}")]
    Password {
        /// `user@host:port/database`.
        server: String,
        /// What failed; it holds no password.
        cause: PasswordError,
    },
    /// The server let this process in before, and refuses now: its password has changed, say, or its database is gone.
    #[error("{source}; it was accepted before")]
    NoLonger {
        /// What it says now.
        source: Box<StoreError>,
    },
    /// The server is not of the kind that `target_session_attrs` asks for, or not the primary that a verify began on; after
    /// a failover that may pass.
    #[error(
        "{server} is not the kind of server that target_session_attrs in DATABASE_URL or this operation \
         requires"
    )]
    WrongServer {
        /// `user@host:port/database`.
        server: String,
    },
    /// A name that leads to several servers led to another one this time.
    #[error("{server} is now a different server; this operation can't continue on it")]
    OtherServer {
        /// `user@host:port/database`.
        server: String,
    },
    /// Settings and locks of a session would not hold, and would be left to the application.
    #[error("pooling: rekey is connected to {server} through a pooler in transaction or statement mode")]
    Pooled {
        /// `user@host:port/database`.
        server: String,
    },
    /// A statement failed.
    #[error("could not {op}: {}", describe(.source))]
    Sql {
        /// What was being done, as a verb phrase.
        op: &'static str,
        /// What sqlx said.
        source: sqlx::Error,
    },
    /// A statement had no answer in time; the connection must not be used again.
    #[error("could not {op}: no response within {} s", .limit.as_secs())]
    Timeout {
        /// What was being done.
        op: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The tables are of an older version of rekey.
    #[error("an older version of rekey created schema rekey in this database")]
    OlderLedger,
    /// The tables are of a newer version of rekey.
    #[error("this rekey is too old: schema rekey in this database {needs}")]
    NewerLedger {
        /// "needs rekey X or later".
        needs: String,
    },
    /// The table has rows that the index of their primary key does not lead to: whatever reads by id misses them.
    #[error(
        "connection {id} is in the table, and index {index} does not find it{}: the index is damaged or half built",
        others(.rows)
    )]
    Unindexed {
        /// The index, as SQL names it.
        index: String,
        /// One of the rows.
        id: Uuid,
        /// How many were met.
        rows: usize,
    },
    /// Others write faster than rows can be verified.
    #[error("more than {most} rows were written while the table was verified")]
    TooManyWritten {
        /// As many can be held.
        most: i64,
    },
    /// The server handed rows on in another order than the one that was relied on.
    #[error("rows came in another order than that of their places")]
    OutOfOrder,
    /// rekey's migrations could not be applied.
    #[error("could not create or update schema rekey: {}", migration(.source))]
    Migrate {
        /// What sqlx said.
        source: Box<sqlx::migrate::MigrateError>,
        /// Event triggers that run for such statements, one of which may be why.
        triggers: Vec<String>,
    },
}

/// too_many_connections: a server that is there, and full.
pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";

/// What to do about a pooler in transaction mode.
pub(super) const NAME_THE_SERVER: &str =
    "Name the server itself in DATABASE_URL, or a pool in session mode (PgBouncer: pool_mode = session)";

/// The server's own message and SQLSTATE, without its DETAIL: a detail may hold a row's values.
fn describe(e: &sqlx::Error) -> String {
    match e {
        sqlx::Error::Database(db) => match db.code() {
            Some(code) => format!("{} (SQLSTATE {code})", db.message()),
            None => db.message().to_owned(),
        },
        other => other.to_string(),
    }
}

fn unreadable(sqlstate: Option<&str>) -> String {
    match sqlstate {
        Some(code) => format!("the server refuses (SQLSTATE {code}); its message is not UTF-8"),
        None => {
            "the server refuses the user, the password or the database; its message is not UTF-8".to_owned()
        }
    }
}

fn others(rows: &usize) -> String {
    if *rows > 1 { format!(", and {} more", rows - 1) } else { String::new() }
}

/// What the server said to a statement of a migration.
pub(super) fn executed(e: &sqlx::migrate::MigrateError) -> Option<&sqlx::Error> {
    match e {
        sqlx::migrate::MigrateError::Execute(e) | sqlx::migrate::MigrateError::ExecuteMigration(e, _) => {
            Some(e)
        }
        _ => None,
    }
}

fn migration(e: &sqlx::migrate::MigrateError) -> String {
    executed(e).map_or_else(|| e.to_string(), describe)
}

fn class_of(e: &sqlx::Error) -> Class {
    use sqlx::Error as E;
    match e {
        E::Database(db) => class_of_state(db.code().as_deref().unwrap_or_default()),
        E::Io(_) | E::Protocol(_) | E::PoolClosed | E::PoolTimedOut | E::WorkerCrashed => {
            Class::ConnectionLost
        }
        E::Tls(_) | E::Configuration(_) => Class::Denied,
        _ => Class::Fatal,
    }
}

/// By the SQLSTATE alone: messages are in any language.
fn class_of_state(sqlstate: &str) -> Class {
    match sqlstate {
        "40001" | "40P01" => Class::Retry,
        "57014" => Class::TookTooLong,
        "55P03" => Class::LockTimeout,
        // Shutdown, crash, cannot connect now; idle, idle-in-transaction and transaction timeout; too many
        // connections; read-only.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | TOO_MANY_CONNECTIONS | "25006" => {
            Class::ConnectionLost
        }
        "42501" | "28000" | "28P01" | "3D000" => Class::Denied,
        code if code.starts_with("08") => Class::ConnectionLost,
        code if code.starts_with("22") || code.starts_with("23") || code == "P0001" => Class::Data,
        code if code.starts_with("53") => Class::Exhausted,
        _ => Class::Fatal,
    }
}

impl StoreError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            StoreError::Connect { source, .. } | StoreError::Sql { source, .. } => class_of(source),
            StoreError::Timeout { .. } | StoreError::WrongServer { .. } | StoreError::OtherServer { .. } => {
                Class::ConnectionLost
            }
            StoreError::Refused { sqlstate: Some(sqlstate), .. } => class_of_state(sqlstate),
            StoreError::Password { cause, .. } if cause.may_pass() => Class::ConnectionLost,
            StoreError::NoLonger { source } if source.is_refused_login() || source.is_unread_password() => {
                Class::ConnectionLost
            }
            StoreError::NoLonger { .. } | StoreError::Password { .. } => Class::Denied,
            StoreError::Pooled { .. }
            | StoreError::OlderLedger
            | StoreError::NewerLedger { .. }
            | StoreError::Tls { .. }
            | StoreError::Refused { .. }
            | StoreError::Unpreparable { .. } => Class::Denied,
            StoreError::Unindexed { .. } | StoreError::TooManyWritten { .. } | StoreError::OutOfOrder => {
                Class::Fatal
            }
            StoreError::Migrate { source, .. } => executed(source).map_or(Class::Fatal, class_of),
        }
    }

    /// The server refuses this role or its password (28P01; 28000 where a token of RDS has expired).
    pub(super) fn is_refused_login(&self) -> bool {
        match self {
            StoreError::Refused { sqlstate: None, .. } => true,
            _ => self.sqlstate().is_some_and(|code| code.starts_with("28")),
        }
    }

    fn is_unread_password(&self) -> bool {
        matches!(self, StoreError::Password { .. })
    }

    /// The server cannot read what it has stored.
    pub fn is_damage(&self) -> bool {
        self.sqlstate().is_some_and(|code| code.starts_with("XX"))
    }

    /// The server's SQLSTATE, where it sent one.
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            StoreError::Connect { source: sqlx::Error::Database(db), .. }
            | StoreError::Sql { source: sqlx::Error::Database(db), .. } => db.code().map(Into::into),
            StoreError::Refused { sqlstate, .. } => sqlstate.clone(),
            StoreError::NoLonger { source } => source.sqlstate(),
            StoreError::Migrate { source, .. } => match executed(source)? {
                sqlx::Error::Database(db) => db.code().map(Into::into),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Names the operation an sqlx error belongs to.
pub trait During<T> {
    /// `op` completes "could not …".
    fn during(self, op: &'static str) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, op: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Sql { op, source })
    }
}

/// No statement takes longer to be answered, those apart that say so: the longest, which waits for batches in
/// flight while a rollback starts, is cut off by the server after 90 s.
const SILENCE: Duration = Duration::from_secs(100);

tokio::task_local! {
    static ANSWER_LIMIT: Duration;
}

/// Runs `work`, no statement of which may go without an answer for longer than `limit`: a peer that fell silent, on a
/// connection that stays open, would be waited for without end. Tasks spawned within set their own.
pub async fn with_answer_limit<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    ANSWER_LIMIT.scope(limit, work).await
}

/// The next part of an answer, within the limit.
pub(super) async fn answered<T>(
    op: &'static str,
    part: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    in_time(op, ANSWER_LIMIT.try_with(|limit| *limit).unwrap_or(SILENCE), part).await
}

/// The same within a limit of its own.
pub(super) async fn in_time<T>(
    op: &'static str,
    limit: Duration,
    part: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, part).await {
        Ok(done) => done.during(op),
        Err(_) => Err(StoreError::Timeout { op, limit }),
    }
}

/// The same for a statement that is still to be sent: with a fault point on either side of it.
pub trait Statement<T>: Future<Output = Result<T, sqlx::Error>> + Sized {
    /// `op` completes "could not …". Statements have timeouts on the server; one that went silent itself is given
    /// up after [`SILENCE`].
    fn during(self, op: &'static str) -> impl Future<Output = Result<T, StoreError>> {
        answered(op, watched(op, self))
    }

    /// The same for the few statements that may take as long as they must.
    fn however_long(self, op: &'static str) -> impl Future<Output = Result<T, StoreError>> {
        async move { watched(op, self).await.during(op) }
    }
}

impl<T, F: Future<Output = Result<T, sqlx::Error>>> Statement<T> for F {}

/// A database operation with a limit on the waiting: a server that went silent is a lost connection.
pub async fn bounded<T>(
    op: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    in_time(op, limit, watched(op, work)).await
}

/// Passes the fault points before and after `work`.
pub(super) async fn watched<T>(
    op: &'static str,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    pass_point(Side::Before, op)?;
    let done = work.await?;
    pass_point(Side::After, op)?;
    Ok(done)
}

/// Passes one fault point, for what is no single future.
pub fn pass_point(side: Side, op: &'static str) -> Result<(), sqlx::Error> {
    match fault_point::reach(side, op) {
        None => Ok(()),
        Some(Fault::Error(sqlstate)) => Err(sqlx::Error::Database(Box::new(Injected(sqlstate)))),
        Some(Fault::Dropped) => Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())),
    }
}

/// What a server would say at a fault point.
#[derive(Debug, thiserror::Error)]
#[error("fault point")]
struct Injected(&'static str);

impl sqlx::error::DatabaseError for Injected {
    fn message(&self) -> &str {
        "fault point"
    }
    fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some(self.0.into())
    }
    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
    fn kind(&self) -> sqlx::error::ErrorKind {
        sqlx::error::ErrorKind::Other
    }
}
