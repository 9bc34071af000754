//! What the throttle watches, read in one go. A plain role sees all of it but how far replicas lag.
//!
//! Reads only; what follows from it is decided in `rotation::throttle`.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::connect::Server;
use super::error::{StoreError, bounded};
use crate::rotation::throttle::{Archive, Replica, Signals, Slot};

/// The longest one look may take, each of its statements.
const LIMIT: Duration = Duration::from_secs(5);
const OP: &str = "read the throttle's signals";

const SERVER: &str = "SELECT extract(epoch FROM clock_timestamp())::float8, pg_walfile_name(pg_current_wal_lsn()), \
     (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'), \
     current_setting('archive_mode') <> 'off', a.last_archived_wal, \
     coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false) FROM pg_catalog.pg_stat_archiver a";

const SERVER_WITHOUT_WAL: &str =
    "SELECT extract(epoch FROM clock_timestamp())::float8, '', 0::int8, false, NULL::text, false";

/// feature_not_supported.
const UNSUPPORTED: &str = "0A000";

/// A base backup streams WAL too, and an initial table synchronisation: they come and go.
const REPLICAS: &str = "SELECT application_name, \
     pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(replay_lsn, flush_lsn, write_lsn, sent_lsn))::int8, \
     extract(epoch FROM replay_lag)::float8, pg_has_role('pg_read_all_stats', 'USAGE'), quote_ident(current_user) \
     FROM pg_catalog.pg_stat_replication WHERE NOT pg_has_role('pg_read_all_stats', 'USAGE') \
     OR state IN ('streaming', 'catchup') AND application_name <> 'pg_basebackup' \
     AND application_name !~ '^pg_[0-9]+_sync_[0-9]+_'";

const SLOTS: &str = "SELECT slot_name::text, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::int8, \
     coalesce(age(xmin), 0)::int8, active FROM pg_catalog.pg_replication_slots WHERE restart_lsn IS NOT NULL OR xmin IS NOT NULL";

/// pg_locks hides nothing from anybody, unlike pg_stat_activity.
const BLOCKED: &str = "SELECT count(DISTINCT l.pid)::int8 FROM pg_catalog.pg_locks l \
     WHERE NOT l.granted AND l.pid <> ALL($1) AND pg_blocking_pids(l.pid) && $1";

const CHECKPOINTS_17: &str = "SELECT num_requested FROM pg_catalog.pg_stat_checkpointer";
const CHECKPOINTS: &str = "SELECT checkpoints_req FROM pg_catalog.pg_stat_bgwriter";

/// The backend at the other end.
pub async fn backend_pid(conn: &mut PgConnection) -> Result<i32, StoreError> {
    bounded("ask for the backend's id", LIMIT, sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn))
        .await
}

/// Bytes of WAL since the cluster was made.
pub async fn wal_position(conn: &mut PgConnection) -> Result<i64, StoreError> {
    let position = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint");
    bounded("read the WAL position", LIMIT, position.fetch_one(conn)).await
}

/// What to ask a server.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    checkpoints: &'static str,
    /// It has WAL to speak of: servers whose storage replicates itself refuse to say where theirs ends.
    wal: bool,
}

impl Watch {
    /// For the server at the other end.
    pub async fn of(conn: &mut PgConnection, server: Server) -> Result<Watch, StoreError> {
        let end = bounded(OP, LIMIT, sqlx::query("SELECT pg_current_wal_lsn()").execute(conn)).await;
        let wal = match end {
            Ok(_) => true,
            Err(error) if error.sqlstate().as_deref() == Some(UNSUPPORTED) => false,
            Err(error) => return Err(error),
        };
        Ok(Watch { checkpoints: if server.version >= 170_000 { CHECKPOINTS_17 } else { CHECKPOINTS }, wal })
    }

    /// Takes one look. `ours` are the backends whose locks are ours.
    pub async fn look(self, conn: &mut PgConnection, ours: &[i32]) -> Result<Signals, StoreError> {
        let server = if self.wal { SERVER } else { SERVER_WITHOUT_WAL };
        let row = bounded(OP, LIMIT, sqlx::query(server).fetch_one(&mut *conn)).await?;
        let segment_bytes = u64::try_from(row.get::<i64, _>(2)).unwrap_or(16 << 20).max(1);
        let (timeline, segment) = file_name(row.get(1), segment_bytes).unwrap_or_default();
        let archived: Option<&str> = row.get(4);
        let archive = row.get::<bool, _>(3).then(|| Archive {
            archived_up_to: archived
                .and_then(|name| file_name(name, segment_bytes))
                .map(|(_, segment)| segment),
            failing: row.get(5),
        });
        let (replicas, unreadable) = if self.wal { replicas(conn).await? } else { (Vec::new(), None) };
        let blocked: i64 = if ours.is_empty() {
            0
        } else {
            bounded(OP, LIMIT, sqlx::query_scalar(BLOCKED).bind(ours).fetch_one(&mut *conn)).await?
        };
        Ok(Signals {
            clock: Timestamp::from_millisecond((row.get::<f64, _>(0) * 1000.0) as i64).unwrap_or_default(),
            timeline,
            segment,
            segment_bytes,
            archive,
            replicas,
            unreadable,
            slots: if self.wal { slots(conn).await? } else { Vec::new() },
            blocked: u32::try_from(blocked).unwrap_or(u32::MAX),
            checkpoints_requested: bounded(OP, LIMIT, sqlx::query_scalar(self.checkpoints).fetch_one(conn))
                .await?,
        })
    }
}

async fn replicas(conn: &mut PgConnection) -> Result<(Vec<Replica>, Option<String>), StoreError> {
    let rows = bounded(OP, LIMIT, sqlx::query(REPLICAS).fetch_all(conn)).await?;
    if let Some(hidden) = rows.iter().find(|row| !row.get::<bool, _>(3)) {
        let role: String = hidden.get(4);
        let what = format!(
            "role {role} may not see how far {} replicas lag; GRANT pg_monitor TO {role}, or --allow monitoring",
            rows.len()
        );
        return Ok((Vec::new(), Some(what)));
    }
    let replicas = rows.iter().map(|row| Replica {
        name: row.get(0),
        behind_bytes: row.get::<Option<i64>, _>(1).unwrap_or(i64::MAX).max(0) as u64,
        behind: Duration::try_from_secs_f64(row.get::<Option<f64>, _>(2).unwrap_or(0.0)).unwrap_or_default(),
    });
    Ok((replicas.collect(), None))
}

async fn slots(conn: &mut PgConnection) -> Result<Vec<Slot>, StoreError> {
    let rows = bounded(OP, LIMIT, sqlx::query(SLOTS).fetch_all(conn)).await?;
    let slots = rows.iter().map(|row| Slot {
        name: row.get(0),
        retained_bytes: row.get::<i64, _>(1).max(0) as u64,
        xmin_age: row.get::<i64, _>(2).max(0) as u64,
        active: row.get(3),
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
