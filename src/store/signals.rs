//! What the throttle watches, read in one go. A plain role sees all of it but how far replicas lag.
//!
//! Reads only; what follows from it is decided in `rotation::throttle`.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgConnection;

use super::connect::Server;
use super::error::StoreError;
use super::statement::{row, statements};
use crate::rotation::throttle::{Archive, Replica, Signals, Slot};

/// The longest one look may take, each of its statements.
const LIMIT: Duration = Duration::from_secs(5);
const OP: &str = "read the throttle's signals";

/// feature_not_supported.
const UNSUPPORTED: &str = "0A000";

struct ServerNow {
    clock: f64,
    wal_file: String,
    segment_bytes: i64,
    archives: bool,
    archived: Option<String>,
    failing: bool,
}

row!(ServerNow { clock, wal_file, segment_bytes, archives, archived, failing });

struct ReplicaNow {
    application_name: String,
    behind_bytes: Option<i64>,
    behind_seconds: Option<f64>,
    visible: bool,
    role: String,
}

row!(ReplicaNow { application_name, behind_bytes, behind_seconds, visible, role });

statements! {
    /// The backend at the other end.
    pub fn backend_pid() -> One<i32> within LIMIT during "ask for the backend's id":
        "SELECT pg_backend_pid()";

    /// Bytes of WAL since the cluster was made.
    pub fn wal_position() -> One<i64> within LIMIT during "read the WAL position":
        "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";

    fn end_of_wal() within LIMIT during OP: "SELECT pg_current_wal_lsn()";

    fn server() -> One<ServerNow> within LIMIT during OP:
        "SELECT extract(epoch FROM clock_timestamp())::float8 AS clock, pg_walfile_name(pg_current_wal_lsn()) AS wal_file, \
         (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size') AS segment_bytes, \
         current_setting('archive_mode') <> 'off' AS archives, a.last_archived_wal AS archived, \
         coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false) AS failing \
         FROM pg_catalog.pg_stat_archiver a";

    fn server_without_wal() -> One<ServerNow> within LIMIT during OP:
        "SELECT extract(epoch FROM clock_timestamp())::float8 AS clock, '' AS wal_file, 0::int8 AS segment_bytes, \
         false AS archives, NULL::text AS archived, false AS failing";

    // A base backup streams WAL too, and an initial table synchronisation: they come and go.
    fn all_replicas() -> All<ReplicaNow> within LIMIT during OP:
        "SELECT application_name, \
         pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(replay_lsn, flush_lsn, write_lsn, sent_lsn))::int8 AS behind_bytes, \
         extract(epoch FROM replay_lag)::float8 AS behind_seconds, pg_has_role('pg_read_all_stats', 'USAGE') AS visible, \
         quote_ident(current_user) AS role \
         FROM pg_catalog.pg_stat_replication WHERE NOT pg_has_role('pg_read_all_stats', 'USAGE') \
         OR state IN ('streaming', 'catchup') AND application_name <> 'pg_basebackup' \
         AND application_name !~ '^pg_[0-9]+_sync_[0-9]+_'";

    fn all_slots() -> All<(String, i64, i64, bool)> within LIMIT during OP:
        "SELECT slot_name::text, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::int8, \
         coalesce(age(xmin), 0)::int8, active FROM pg_catalog.pg_replication_slots \
         WHERE restart_lsn IS NOT NULL OR xmin IS NOT NULL";

    // pg_locks hides nothing from anybody, unlike pg_stat_activity. Whoever waits for a transaction waits for the session that
    // holds its lock. Who blocks whom is asked, which is dear and stops all locking for a moment, only of those that wait for
    // the table itself, and only while one of ours has a lock on it.
    fn blocked_by(pids: &[i32]) -> One<i64> within LIMIT during OP:
        "WITH locks AS MATERIALIZED (SELECT pid, locktype, transactionid, relation, granted FROM pg_catalog.pg_locks \
         WHERE locktype = 'transactionid' OR relation = 'public.provider_connections'::pg_catalog.regclass), \
         ours AS (SELECT locktype, transactionid FROM locks WHERE granted AND pid = ANY($1)) \
         SELECT count(DISTINCT l.pid)::int8 FROM locks l WHERE NOT l.granted AND l.pid <> ALL($1) AND CASE l.locktype \
         WHEN 'transactionid' THEN l.transactionid IN (SELECT transactionid FROM ours WHERE locktype = 'transactionid') \
         ELSE EXISTS (SELECT FROM ours WHERE locktype <> 'transactionid') AND pg_blocking_pids(l.pid) && $1 END";

    fn checkpoints() -> One<i64> within LIMIT since 17 during OP:
        "SELECT num_requested FROM pg_catalog.pg_stat_checkpointer";

    fn checkpoints_before_17() -> One<i64> within LIMIT before 17 during OP:
        "SELECT checkpoints_req FROM pg_catalog.pg_stat_bgwriter";
}

/// What to ask a server.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// `server_version_num`.
    version: i32,
    /// It has WAL to speak of: servers whose storage replicates itself refuse to say where theirs ends.
    wal: bool,
}

impl Watch {
    /// For the server at the other end.
    pub async fn of(conn: &mut PgConnection, server: Server) -> Result<Watch, StoreError> {
        let wal = match end_of_wal(conn).await {
            Ok(()) => true,
            Err(error) if error.sqlstate().as_deref() == Some(UNSUPPORTED) => false,
            Err(error) => return Err(error),
        };
        Ok(Watch { version: server.version, wal })
    }

    /// Takes one look. `ours` are the backends whose locks are ours.
    pub async fn look(self, conn: &mut PgConnection, ours: &[i32]) -> Result<Signals, StoreError> {
        let server = if self.wal { server(conn).await? } else { server_without_wal(conn).await? };
        let segment_bytes = u64::try_from(server.segment_bytes).unwrap_or(16 << 20).max(1);
        let (timeline, segment) = file_name(&server.wal_file, segment_bytes).unwrap_or_default();
        let archive = server.archives.then(|| Archive {
            archived_up_to: server
                .archived
                .and_then(|name| file_name(&name, segment_bytes))
                .map(|(_, segment)| segment),
            failing: server.failing,
        });
        let (replicas, unreadable) = if self.wal { replicas(conn).await? } else { (Vec::new(), None) };
        let blocked = if ours.is_empty() { 0 } else { blocked_by(conn, ours).await? };
        Ok(Signals {
            clock: Timestamp::from_millisecond((server.clock * 1000.0) as i64).unwrap_or_default(),
            timeline,
            segment,
            segment_bytes,
            archive,
            replicas,
            unreadable,
            slots: if self.wal { slots(conn).await? } else { Vec::new() },
            blocked: u32::try_from(blocked).unwrap_or(u32::MAX),
            checkpoints_requested: match self.version {
                ..170_000 => checkpoints_before_17(conn).await?,
                170_000.. => checkpoints(conn).await?,
            },
        })
    }
}

async fn replicas(conn: &mut PgConnection) -> Result<(Vec<Replica>, Option<String>), StoreError> {
    let rows = all_replicas(conn).await?;
    if let Some(ReplicaNow { role, .. }) = rows.iter().find(|row| !row.visible) {
        let what = format!(
            "role {role} can't see the lag of {} replicas; run `GRANT pg_monitor TO {role}` or add `--allow \
             monitoring`",
            rows.len()
        );
        return Ok((Vec::new(), Some(what)));
    }
    let replicas = rows.into_iter().map(|row| Replica {
        name: row.application_name,
        behind_bytes: row.behind_bytes.unwrap_or(i64::MAX).max(0) as u64,
        behind: Duration::try_from_secs_f64(row.behind_seconds.unwrap_or(0.0)).unwrap_or_default(),
    });
    Ok((replicas.collect(), None))
}

async fn slots(conn: &mut PgConnection) -> Result<Vec<Slot>, StoreError> {
    let slots = all_slots(conn).await?.into_iter().map(|(name, retained_bytes, xmin_age, active)| Slot {
        name,
        retained_bytes: retained_bytes.max(0) as u64,
        xmin_age: xmin_age.max(0) as u64,
        active,
    });
    Ok(slots.collect())
}

/// Timeline and number of a WAL segment, from the 24 hexadecimal digits its file's name begins with.
fn file_name(name: &str, segment_bytes: u64) -> Option<(u32, u64)> {
    let number = |from, to| u64::from_str_radix(name.get(from..to)?, 16).ok();
    let (timeline, high, low) = (number(0, 8)?, number(8, 16)?, number(16, 24)?);
    Some((timeline as u32, high * ((1 << 32) / segment_bytes).max(1) + low))
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn segments_are_numbered_through() {
        let at = |name| file_name(name, 16 << 20);
        assert_eq!(at("0000000200000001000000FF"), Some((2, 511)));
        assert_eq!(at("000000020000000200000000.00000028.backup"), Some((2, 512)));
        assert_eq!(at("00000002.history"), None);
        assert_eq!(file_name("000000010000000100000003", 1 << 30), Some((1, 7)));
    }
}
