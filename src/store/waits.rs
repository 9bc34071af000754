//! Why workers stand still: whose lease it is, or which session or prepared transaction holds a row or the table.
//!
//! Queried about once a second, and only while a worker is stalled. `rotation::waiting` turns it into words.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::{Statement, StoreError};
use super::statement::{row, statements};
use crate::rotation::{Holder, Waiting};

const OP: &str = "find out what is waited for";
const LIMIT: Duration = Duration::from_secs(5);

/// Who holds a lock, and on which row.
struct Held {
    id: Option<Uuid>,
    pid: Option<i32>,
    usename: Option<String>,
    address: Option<String>,
    state: Option<String>,
    seconds: Option<f64>,
    gid: Option<String>,
    prepared_seconds: Option<f64>,
}

row!(Held { id, pid, usename, address, state, seconds, gid, prepared_seconds });

// Who holds the lock `l`.
macro_rules! held {
    ($id:literal, $locks:literal, $where:literal) => {
        concat!(
            "SELECT ",
            $id,
            " AS id, l.pid, a.usename::text, host(a.client_addr) AS address, a.state, \
             extract(epoch FROM clock_timestamp() - coalesce(a.state_change, a.xact_start))::float8 AS seconds, \
             x.gid, extract(epoch FROM clock_timestamp() - x.prepared)::float8 AS prepared_seconds FROM ",
            $locks,
            " LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid LEFT JOIN pg_catalog.pg_locks p \
             ON l.pid IS NULL AND p.pid IS NULL AND p.locktype = 'transactionid' \
             AND p.virtualtransaction = l.virtualtransaction \
             LEFT JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = p.transactionid WHERE l.granted AND ",
            $where,
            " LIMIT 1"
        )
    };
}

statements! {
    // Rows that are listed by name in a chunk of the rotation that is open: put off, or to be swept.
    fn listed(rotation: Uuid, rows: i32) -> Optional<Vec<Uuid>> within LIMIT during OP:
        "SELECT ids[1:$2] FROM rekey.chunks WHERE rotation = $1 AND state = 'open' AND kind = 'ids' LIMIT 1";

    // A row that one transaction holds bears its id.
    fn row_holder(ids: &[Uuid], ours: &[i32]) -> Optional<Held> within LIMIT during OP:
        held!(
            "t.id",
            "public.provider_connections t JOIN pg_catalog.pg_locks l ON l.locktype = 'transactionid' \
             AND l.transactionid = t.xmax",
            "t.id = ANY($1) AND coalesce(l.pid <> ALL($2), true)"
        );

    // One that several hold bears the id of the group they make, which no column tells apart from a transaction's: where
    // there is no such group, the server refuses.
    fn shared_row_holder(ids: &[Uuid], ours: &[i32]) -> Optional<Held> within LIMIT during OP:
        held!(
            "t.id",
            "public.provider_connections t CROSS JOIN LATERAL pg_catalog.pg_get_multixact_members(t.xmax) m \
             JOIN pg_catalog.pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = m.xid",
            "t.id = ANY($1) AND coalesce(l.pid <> ALL($2), true)"
        );

    // The modes are those that a batch, or its reader, cannot pass.
    fn table_holder(ours: &[i32]) -> Optional<Held> within LIMIT during OP:
        held!(
            "NULL::uuid",
            "pg_catalog.pg_locks l",
            "l.locktype = 'relation' AND l.relation = 'public.provider_connections'::pg_catalog.regclass \
             AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
             AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
             AND coalesce(l.pid <> ALL($1), true)"
        );

    // Of several, the one that was silent for the longest.
    fn lease_holder(rotation: Uuid, process: &str) -> Optional<(String, Option<f64>, f64)> within LIMIT during OP:
        "SELECT coalesce(c.owner, ''), extract(epoch FROM clock_timestamp() - p.seen_at)::float8, \
         extract(epoch FROM c.lease_until - clock_timestamp())::float8 FROM rekey.chunks c \
         LEFT JOIN rekey.processes p ON p.process = c.owner \
         WHERE c.rotation = $1 AND c.state = 'open' AND c.worker IS NOT NULL AND c.owner <> $2 \
         AND c.lease_until >= clock_timestamp() ORDER BY p.seen_at NULLS FIRST LIMIT 1";

    fn lease_holders(rotation: Uuid, process: &str) -> All<(String, Option<f64>, f64)> within LIMIT during OP:
        "SELECT coalesce(c.owner, ''), extract(epoch FROM clock_timestamp() - max(p.seen_at))::float8, \
         extract(epoch FROM max(c.lease_until) - clock_timestamp())::float8 FROM rekey.chunks c \
         LEFT JOIN rekey.processes p ON p.process = c.owner \
         WHERE c.rotation = $1 AND c.state = 'open' AND c.worker IS NOT NULL AND c.owner <> $2 \
         AND c.lease_until >= clock_timestamp() GROUP BY c.owner";
}

/// Leases of another process.
#[derive(Clone, Debug)]
pub struct Leased {
    /// Its name in the ledger.
    pub process: String,
    /// Since it was heard of; none where it signed off, or never reported.
    pub silent: Option<Duration>,
    /// Until the last of them expires.
    pub free_in: Duration,
}

/// Leases that processes other than `process` hold.
pub async fn leases(
    conn: &mut PgConnection,
    rotation: Uuid,
    process: &str,
) -> Result<Vec<Leased>, StoreError> {
    let holders = lease_holders(conn, rotation, process).await?;
    let leased = |(process, seen, free_in): (String, Option<f64>, f64)| Leased {
        process,
        silent: seen.map(seconds),
        free_in: seconds(free_in),
    };
    Ok(holders.into_iter().map(leased).collect())
}

/// Whether somebody else holds a lock of the table that a batch cannot pass. `ours` are the backends whose locks are rekey's own.
pub async fn is_table_locked(conn: &mut PgConnection, ours: &[i32]) -> Result<bool, StoreError> {
    Ok(table_holder(conn, ours).await?.is_some())
}

/// Rows looked at.
const ROWS: i32 = 20;

/// What the workers of `process` wait for: the table; rows that they have `met` and that others hold, or else any that are
/// listed; or another process's lease. `ours` are the backends whose locks are rekey's own.
pub async fn look(
    conn: &mut PgConnection,
    rotation: Uuid,
    process: &str,
    met: Vec<Uuid>,
    ours: &[i32],
) -> Result<Option<Waiting>, StoreError> {
    // First: where it is locked, its rows cannot be looked at.
    if let Some(holder) = table_holder(conn, ours).await?.and_then(Held::holder) {
        return Ok(Some(Waiting::Table(holder)));
    }
    let rows = match met.is_empty() {
        false => met,
        true => listed(conn, rotation, ROWS).await?.unwrap_or_default(),
    };
    if !rows.is_empty() {
        let mut held = row_holder(conn, &rows, ours).await?;
        if held.is_none() {
            let mut savepoint = conn.begin().during(OP).await?;
            held = match shared_row_holder(&mut savepoint, &rows, ours).await {
                Ok(held) => {
                    savepoint.commit().during(OP).await?;
                    held
                }
                Err(_) => {
                    savepoint.rollback().during(OP).await?;
                    None
                }
            };
        }
        if let Some((id, holder)) = held.and_then(|held| Some((held.id?, held.holder()?))) {
            return Ok(Some(Waiting::Row { id, holder }));
        }
    }
    let leased = lease_holder(conn, rotation, process).await?;
    Ok(leased.map(|(process, silent, free_in)| Waiting::Lease {
        process,
        silent: silent.map(seconds),
        free_in: seconds(free_in),
    }))
}

impl Held {
    fn holder(self) -> Option<Holder> {
        if let Some(gid) = self.gid {
            let since = self.prepared_seconds.map(seconds).unwrap_or_default();
            return Some(Holder::Prepared { gid, since });
        }
        let (user, address, state, since) =
            (self.usename, self.address, self.state, self.seconds.map(seconds));
        Some(Holder::Session { pid: self.pid?, user, address, state, since })
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}
