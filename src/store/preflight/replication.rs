//! Replicas, slots and the WAL archive: what a burst of WAL may break.

use sqlx::PgConnection;

use super::For;
use super::finding::{About, Finding, Kind};
use crate::rotation::throttle::Limits;
use crate::store::error::StoreError;
use crate::store::statement::{row, statements};

pub(super) const LAG: About = About {
    name: "replica-lag",
    may_be_allowed: true,
    meaning: "A replica lags",
    remedy: "Wait until it has caught up",
};

pub(super) const SLOTS: About = About {
    name: "slots",
    may_be_allowed: true,
    meaning: "A replication slot retains WAL and has no consumer",
    remedy: "Start its consumer, or drop the slot",
};

pub(super) const ARCHIVE: About = About {
    name: "wal-archive",
    may_be_allowed: true,
    meaning: "WAL archiving fails",
    remedy: "Fix archive_command; the server's log shows the error",
};

struct Replica {
    name: String,
    state: Option<String>,
    bytes: Option<i64>,
    seconds: Option<f64>,
    visible: bool,
    role: String,
}

row!(Replica { name, state, bytes, seconds, visible, role });

statements! {
    fn attached() -> All<Replica> during "look for replicas":
        "SELECT coalesce(nullif(application_name, ''), 'pid ' || pid) AS name, state, \
         CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), replay_lsn) \
         ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) END::int8 AS bytes, \
         extract(epoch FROM replay_lag)::float8 AS seconds, pg_has_role('pg_read_all_stats', 'USAGE') AS visible, \
         quote_ident(current_user) AS role FROM pg_catalog.pg_stat_replication ORDER BY 1";

    fn unread() -> All<(String, String, Option<i64>, String)> during "look for replication slots":
        "SELECT slot_name::text, coalesce(wal_status, '?'), CASE WHEN pg_is_in_recovery() THEN \
         pg_wal_lsn_diff(pg_last_wal_replay_lsn(), restart_lsn) ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END::int8, \
         current_setting('max_slot_wal_keep_size') FROM pg_catalog.pg_replication_slots \
         WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 1";

    fn failing() -> Optional<String> during "look at the WAL archive":
        "SELECT coalesce(last_failed_wal, '?') FROM pg_catalog.pg_stat_archiver \
         WHERE current_setting('archive_mode') <> 'off' AND last_failed_time > coalesce(last_archived_time, '-infinity')";
}

/// Lag beyond which a replica is not ready for a burst.
const LAG_BYTES: i64 = 64 << 20;

fn mib(bytes: i64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

pub(super) async fn replicas(
    conn: &mut PgConnection,
    purpose: For,
    limits: &Limits,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let attached = attached(conn).await?;
    if let Some(Replica { role, .. }) = attached.iter().find(|replica| !replica.visible) {
        let message =
            format!("{} replicas are attached, and role {role} can't see their lag", attached.len());
        let remedy = format!("GRANT pg_monitor TO {role}");
        findings.push(match purpose {
            _ if !limits.watches_replicas() => Finding::note(Kind::Monitoring, message, remedy),
            For::Run => Finding::refuse(Kind::Monitoring, message, remedy),
            For::Reading | For::Rollback => Finding::warn(Kind::Monitoring, message, remedy),
        });
        return Ok(());
    }
    for Replica { name, state, bytes, seconds, .. } in attached {
        let state = state.unwrap_or_default();
        let (bytes, seconds) = (bytes.unwrap_or(0), seconds.unwrap_or(0.0));
        let message = format!("Replica {name} is {state} and lags by {}, {seconds:.1} s", mib(bytes));
        findings.push(if bytes > LAG_BYTES || seconds > 10.0 || state == "catchup" {
            Finding::warn(Kind::ReplicaLag, message, "Wait until it has caught up")
        } else {
            Finding::note(Kind::ReplicaLag, message, "Do nothing; watch it during the run")
        });
    }
    Ok(())
}

pub(super) async fn slots(conn: &mut PgConnection, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    for (name, status, bytes, keep) in unread(conn).await? {
        let bound = match keep.as_str() {
            "-1" => "without limit".to_owned(),
            keep => format!("up to {keep}"),
        };
        findings.push(Finding::warn(
            Kind::Slots,
            format!(
                "Replication slot {name} ({status}) has no consumer and retains {} of WAL, {bound}",
                mib(bytes.unwrap_or(0))
            ),
            format!(
                "Start its consumer, or drop it with `SELECT pg_drop_replication_slot('{}')`",
                name.replace('\'', "''")
            ),
        ));
    }
    Ok(())
}

pub(super) async fn wal_archive(
    conn: &mut PgConnection,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    if let Some(file) = failing(conn).await? {
        findings.push(Finding::warn(
            Kind::WalArchive,
            format!("WAL archiving has failed since {file}; the rotation's WAL will accumulate in pg_wal"),
            "Fix archive_command before the rotation; the server's log shows the error",
        ));
    }
    Ok(())
}
