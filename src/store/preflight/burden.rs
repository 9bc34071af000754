//! Throttle limits that are already exceeded and will not recover on their own: the run would stall.

use std::time::Duration;

use sqlx::PgConnection;

use super::For;
use super::finding::{Finding, Kind};
use crate::rotation::throttle::{Limits, Replica, Signals};
use crate::store::connect::Server;
use crate::store::error::StoreError;
use crate::store::signals::Watch;

/// Long enough for a standby that keeps up to get nearer.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// Replicas at their limit.
fn lagging(signals: &Signals, limits: &Limits) -> Vec<Replica> {
    let at_limit = |replica: &&Replica| limits.watches(replica) && limits.lag(replica) >= 1.0;
    signals.replicas.iter().filter(at_limit).cloned().collect()
}

/// The same replica, as far behind as it was, or further.
fn is_no_nearer(then: &Replica, now: &Replica) -> bool {
    then.name == now.name
        && now.behind_bytes >= then.behind_bytes
        && now.behind.as_secs_f64() >= then.behind.as_secs_f64() * 0.9
}

pub(super) async fn reached(
    conn: &mut PgConnection,
    server: Server,
    purpose: For,
    limits: &Limits,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    if server.in_recovery {
        return Ok(());
    }
    let watch = Watch::of(conn, server).await?;
    let signals = watch.look(conn, &[]).await?;
    let behind = lagging(&signals, limits);
    // A second look tells one that catches up from one that applies late on purpose, or not at all.
    let stuck = if behind.is_empty() {
        Vec::new()
    } else {
        tokio::time::sleep(SECOND_LOOK).await;
        let again = watch.look(conn, &[]).await?;
        lagging(&again, limits)
            .into_iter()
            .filter(|now| behind.iter().any(|then| is_no_nearer(then, now)))
            .collect()
    };
    let mut found = |kind, message: String, remedy: String| {
        findings.push(match purpose {
            For::Run | For::Reading => Finding::refuse(kind, message, remedy),
            For::Rollback => Finding::warn(kind, message, remedy),
        });
    };
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    for replica in stuck {
        found(
            Kind::ReplicaLag,
            format!("Replica {} and is not catching up; a run would stall", limits.tell_lag(&replica)),
            format!(
                "Fix its replay or raise `--max-replica-lag`. If it delays WAL on purpose \
                 (recovery_min_apply_delay) or will never catch up, ignore it with `--ignore-replica {}`",
                replica.name
            ),
        );
    }
    for slot in signals.slots.iter().filter(|slot| !slot.active) {
        let drop = format!("SELECT pg_drop_replication_slot('{}')", slot.name.replace('\'', "''"));
        if limits.slot_bytes.is_some_and(|limit| slot.retained_bytes >= limit) {
            found(
                Kind::Slots,
                format!(
                    "Inactive slot {} retains {} of WAL, above `--max-slot-wal`; a run would stall",
                    slot.name,
                    mib(slot.retained_bytes)
                ),
                format!("Start its consumer, drop it with `{drop}`, or raise `--max-slot-wal`"),
            );
        }
        if limits.slot_xmin_age.is_some_and(|limit| slot.xmin_age >= limit) {
            found(
                Kind::Slots,
                format!(
                    "The xmin of inactive slot {} is {} transactions old, above `--max-slot-xmin-age`; a run \
                     would stall",
                    slot.name, slot.xmin_age
                ),
                format!("Start its consumer, drop it with `{drop}`, or raise `--max-slot-xmin-age`"),
            );
        }
    }
    let (_, backlog) = signals.archive_backlog(None);
    let failing = signals.archive.as_ref().is_some_and(|archive| archive.failing);
    if failing && limits.archive_bytes.is_some_and(|limit| backlog >= limit) {
        found(
            Kind::WalArchive,
            format!(
                "WAL archiving fails and {} of WAL waits, above `--max-archive-backlog`; a run would stall",
                mib(backlog)
            ),
            "Fix archive_command, or raise `--max-archive-backlog`".to_owned(),
        );
    }
    Ok(())
}
