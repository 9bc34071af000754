//! What workers wait for where nothing slows them down: whose lease, or who holds a row or the table.
//!
//! Pure: `store::waits` finds out, and this says it.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use super::throttle::{Reason, Why};

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Another process holds what is left to do.
    Lease {
        /// Its name in the ledger.
        process: String,
        /// Since it was heard of; none where it signed off, or never reported.
        silent: Option<Duration>,
        /// Until its lease expires.
        free_in: Duration,
    },
    /// A row is locked.
    Row {
        /// The row.
        id: Uuid,
        /// By whom.
        holder: Holder,
    },
    /// The table is locked.
    Table(Holder),
}

/// Who holds a lock, as far as this role may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A session.
    Session {
        /// Its server process.
        pid: i32,
        /// Its role.
        user: Option<String>,
        /// Where it comes from; none for a socket.
        address: Option<String>,
        /// `idle in transaction`, `active`, …
        state: Option<String>,
        /// How long it has been in that state.
        since: Option<Duration>,
    },
    /// A transaction that was prepared, and not ended since.
    Prepared {
        /// Its name.
        gid: String,
        /// How long ago.
        since: Duration,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Session { pid, user, address, state, since } => {
                write!(f, "pid {pid}")?;
                let who: Vec<&str> = [user, address].into_iter().flatten().map(String::as_str).collect();
                if !who.is_empty() {
                    write!(f, " ({})", who.join(", "))?;
                }
                match (state, since) {
                    (Some(state), Some(since)) => write!(f, ", {state} for {} s", since.as_secs()),
                    (Some(state), None) => write!(f, ", {state}"),
                    (None, _) => Ok(()),
                }
            }
            Holder::Prepared { gid, since } => {
                write!(f, "prepared transaction {gid}, for {} s", since.as_secs())
            }
        }
    }
}

impl From<&Waiting> for Why {
    fn from(waiting: &Waiting) -> Why {
        let (reason, detail) = match waiting {
            Waiting::Lease { process, silent: Some(silent), free_in } => (
                Reason::Lease,
                format!(
                    "{process}, silent for {} s; the lease expires in {} s",
                    silent.as_secs(),
                    free_in.as_secs()
                ),
            ),
            Waiting::Lease { process, silent: None, free_in } => (
                Reason::Lease,
                format!("{process}, which has ended; the lease expires in {} s", free_in.as_secs()),
            ),
            Waiting::Row { id, holder: holder @ Holder::Session { .. } } => {
                (Reason::RowHeld, format!("row {id} held by {holder}"))
            }
            Waiting::Row { id, holder: holder @ Holder::Prepared { .. } } => {
                (Reason::PreparedTransaction, format!("row {id} held by {holder}"))
            }
            Waiting::Table(holder @ Holder::Session { .. }) => {
                (Reason::TableLocked, format!("table locked by {holder}"))
            }
            Waiting::Table(holder @ Holder::Prepared { .. }) => {
                (Reason::PreparedTransaction, format!("table locked by {holder}"))
            }
        };
        Why { reason, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_said_with_its_holder_and_since_when() {
        let seconds = Duration::from_secs;
        let session = Holder::Session {
            pid: 4711,
            user: Some("app".into()),
            address: Some("203.0.113.7".into()),
            state: Some("idle in transaction".into()),
            since: Some(seconds(75)),
        };
        let unseen = Holder::Session { pid: 9, user: None, address: None, state: None, since: None };
        let prepared = Holder::Prepared { gid: "tx1".into(), since: seconds(9) };
        let id = Uuid::nil();
        for (waiting, says) in [
            (
                Waiting::Row { id, holder: session },
                "row held: row 00000000-0000-0000-0000-000000000000 held by pid 4711 (app, 203.0.113.7), \
                 idle in transaction for 75 s",
            ),
            (Waiting::Table(unseen), "table locked: table locked by pid 9"),
            (
                Waiting::Table(prepared),
                "prepared transaction: table locked by prepared transaction tx1, for 9 s",
            ),
            (
                Waiting::Lease { process: "pod-1".into(), silent: Some(seconds(14)), free_in: seconds(16) },
                "waiting for the lease of: pod-1, silent for 14 s; the lease expires in 16 s",
            ),
        ] {
            assert_eq!(Why::from(&waiting).to_string(), says);
        }
    }
}
