//! Advisory locks that one process at a time holds, for as long as its connection lives.

use std::fmt;

use sqlx::PgConnection;

use super::encoding;
use super::error::StoreError;
use super::ledger::standing::{PROMOTIONS, ROLLBACKS};
use super::statement::{row, statements};

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// What the application reads: promote, finalize, and the outside half of a rollback.
    Outside,
    /// Rollbacks among themselves; taken before the other one.
    Rollbacks,
}

impl Lock {
    const fn key(self) -> i64 {
        match self {
            Lock::Outside => PROMOTIONS,
            Lock::Rollbacks => ROLLBACKS,
        }
    }
}

statements! {
    fn take(key: i64) -> One<bool> during "take the lock for promotions":
        "SELECT pg_try_advisory_lock($1)";

    // While it is held, the session says whose it is: 63 bytes are what the server keeps.
    fn sign(name: &str) during "take the lock for promotions":
        "SELECT set_config('application_name', $1, false)";

    fn holder(key: i64) -> Optional<Holder> during "look who holds the lock for promotions":
        "SELECT l.pid, a.application_name, a.usename::text AS login, host(a.client_addr) AS address, \
         to_char(coalesce(a.xact_start, a.state_change, a.backend_start) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS active, \
         to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS since \
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.database \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND d.datname = current_database() \
         AND l.classid::int8 << 32 | l.objid::int8 = $1 AND l.pid <> pg_backend_pid() LIMIT 1";

    fn release(outside: i64, rollbacks: i64) during "give back the lock for promotions":
        "SELECT pg_advisory_unlock($1), pg_advisory_unlock($2)";
}

/// Who holds a lock, as the server sees it. What the role may not see is missing.
#[derive(Clone, Debug)]
pub struct Holder {
    pid: i32,
    application_name: Option<String>,
    login: Option<String>,
    address: Option<String>,
    active: Option<String>,
    since: Option<String>,
}

row!(Holder { pid, application_name, login, address, active, since });

/// What the session of a process that holds a lock is called: its beginning tells it from a stranger's.
const OURS: &str = "rekey";

impl Holder {
    /// Whether it is a process of rekey's. Another program may use the same number for a lock of its own.
    pub fn is_rekey(&self) -> bool {
        self.application_name.as_deref().is_none_or(|name| name.starts_with(OURS))
    }

    /// Its backend.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend pid {}", self.pid)?;
        if let Some(name) = self.application_name.as_deref().filter(|name| !name.is_empty()) {
            write!(f, ", {name}")?;
        }
        if let Some(login) = &self.login {
            write!(f, ", login {login}")?;
        }
        write!(f, " from {}", self.address.as_deref().unwrap_or("a local socket"))?;
        match (&self.since, &self.active) {
            (Some(since), Some(active)) => write!(f, ", connected since {since}, last active {active}"),
            _ => Ok(()),
        }
    }
}

/// Who holds a lock that was not to be had; `None` where it is free by now.
pub async fn held_by(conn: &mut PgConnection, lock: Lock) -> Result<Option<Holder>, StoreError> {
    holder(conn, lock.key()).await
}

/// Lets the session that holds a lock say who it is: host and process, and its operator as far as that fits.
pub async fn sign_as(conn: &mut PgConnection, process: &str, operator: &str) -> Result<(), StoreError> {
    let operator = encoding::fit(conn, operator).await?.into_owned();
    let mut name = format!("{OURS} {process} by {operator}");
    while name.len() > 63 {
        name.pop();
    }
    sign(conn, &name).await
}

/// Takes a lock unless another session has it.
pub async fn try_take(conn: &mut PgConnection, lock: Lock) -> Result<bool, StoreError> {
    take(conn, lock.key()).await
}

/// Gives back whatever this session has taken.
pub async fn give_back(conn: &mut PgConnection) -> Result<(), StoreError> {
    release(conn, Lock::Outside.key(), Lock::Rollbacks.key()).await
}
