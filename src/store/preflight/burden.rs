//! Limits of the throttle that are reached already, by something that does not mend itself: the run would wait at once.

use sqlx::PgConnection;

use super::For;
use super::finding::{Finding, Kind};
use crate::rotation::throttle::Limits;
use crate::store::connect::Server;
use crate::store::error::StoreError;
use crate::store::signals::Watch;

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
    let signals = Watch::of(conn, server).await?.look(conn, &[]).await?;
    let mut found = |kind, message: String, remedy: String| {
        findings.push(match purpose {
            For::Run | For::Reading => Finding::refuse(kind, message, remedy),
            For::Rollback => Finding::warn(kind, message, remedy),
        });
    };
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    for slot in signals.slots.iter().filter(|slot| !slot.active) {
        let drop = format!("SELECT pg_drop_replication_slot('{}')", slot.name.replace('\'', "''"));
        if limits.slot_bytes.is_some_and(|limit| slot.retained_bytes >= limit) {
            found(
                Kind::Slots,
                format!(
                    "slot {} keeps {}, more than --max-slot-wal: a run would only wait",
                    slot.name,
                    mib(slot.retained_bytes)
                ),
                format!("start its consumer, or {drop}, or raise --max-slot-wal"),
            );
        }
        if limits.slot_xmin_age.is_some_and(|limit| slot.xmin_age >= limit) {
            found(
                Kind::Slots,
                format!(
                    "the xmin of slot {} is {} transactions old, more than --max-slot-xmin-age: a run would only wait",
                    slot.name, slot.xmin_age
                ),
                format!("start its consumer, or {drop}, or raise --max-slot-xmin-age"),
            );
        }
    }
    let (_, backlog) = signals.archive_backlog(None);
    let failing = signals.archive.as_ref().is_some_and(|archive| archive.failing);
    if failing && limits.archive_bytes.is_some_and(|limit| backlog >= limit) {
        found(
            Kind::WalArchive,
            format!(
                "archiving WAL fails and {} wait, more than --max-archive-backlog: a run would only wait",
                mib(backlog)
            ),
            "mend archive_command, or raise --max-archive-backlog".to_owned(),
        );
    }
    Ok(())
}
