//! The server and the way to it: version, recovery, durability, defaults, encryption.

use sqlx::{PgConnection, Row};

use super::For;
use super::finding::{Finding, Kind};
use crate::store::connect::Server;
use crate::store::error::{Statement, StoreError};

/// TID range scans and `xid8` arithmetic: older servers cannot run the engine's statements.
const OLDEST: i32 = 140_000;

/// Whether the version will do.
pub(super) fn version(server: Server, findings: &mut Vec<Finding>) -> bool {
    if server.version >= OLDEST {
        return true;
    }
    let (major, minor) = (server.version / 10_000, server.version % 10_000);
    findings.push(Finding::refuse(
        Kind::ServerVersion,
        format!("this is PostgreSQL {major}.{minor}"),
        "upgrade the server to PostgreSQL 14 or later",
    ));
    false
}

pub(super) fn recovery(server: Server, purpose: For, findings: &mut Vec<Finding>) {
    if !server.in_recovery {
        return;
    }
    let message = "this server is in recovery: a standby takes no writes";
    let remedy = "name the primary in DATABASE_URL";
    findings.push(match purpose {
        For::Reading => {
            Finding::note(Kind::InRecovery, message, "for rekey run, name the primary in DATABASE_URL")
        }
        For::Run | For::Rollback => Finding::refuse(Kind::InRecovery, message, remedy),
    });
}

/// Settings of the server, and defaults of this role and database.
pub(super) async fn settings(conn: &mut PgConnection, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    // reset_val: what a session starts with, not what ours has set.
    let rows = sqlx::query(
        "SELECT name, CASE WHEN name LIKE 'default%' THEN reset_val ELSE setting END FROM pg_catalog.pg_settings \
         WHERE name IN ('fsync', 'full_page_writes', 'synchronous_standby_names', 'default_transaction_isolation', \
         'default_transaction_read_only') ORDER BY name",
    )
    .fetch_all(conn)
    .during("read the server's settings")
    .await?;
    for row in rows {
        let (name, value): (String, String) = (row.get(0), row.get(1));
        match (name.as_str(), value.as_str()) {
            ("fsync" | "full_page_writes", "off") => findings.push(Finding::warn(
                Kind::Durability,
                format!("{name} is off: a crash of the machine can corrupt credentials, checkpoints and proofs alike"),
                format!("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"),
            )),
            ("synchronous_standby_names", names) if !names.is_empty() => findings.push(Finding::note(
                Kind::SyncStandby,
                format!("synchronous_standby_names is '{names}': each batch waits for a standby"),
                "expect a lower rate; a standby that is away stops every commit",
            )),
            ("default_transaction_isolation", isolation) if isolation != "read committed" => {
                findings.push(Finding::note(
                    Kind::Isolation,
                    format!("sessions start in isolation '{isolation}'"),
                    "rekey sets read committed for its own sessions; nothing to do",
                ));
            }
            ("default_transaction_read_only", "on") => findings.push(Finding::note(
                Kind::Isolation,
                "sessions start read-only",
                "rekey run writes all the same; ask whoever made this server read-only",
            )),
            _ => {}
        }
    }
    Ok(())
}

/// Whether somebody between here and there could read along.
pub(super) async fn connection(
    conn: &mut PgConnection,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let exposed: Option<String> = sqlx::query_scalar(
        "SELECT host(inet_server_addr()) FROM pg_catalog.pg_stat_ssl \
         WHERE pid = pg_backend_pid() AND NOT ssl AND inet_client_addr() IS NOT NULL \
         AND inet_client_addr() <> inet_server_addr() \
         AND NOT inet_client_addr() <<= '127.0.0.0/8' AND inet_client_addr() <> '::1'",
    )
    .fetch_optional(conn)
    .during("ask how the connection is encrypted")
    .await?;
    if let Some(address) = exposed {
        findings.push(Finding::warn(
            Kind::Tls,
            format!("the connection to {address} is not encrypted: ciphertexts and the database password can be read on the way"),
            "add sslmode=verify-full and sslrootcert=… to DATABASE_URL",
        ));
    }
    Ok(())
}
