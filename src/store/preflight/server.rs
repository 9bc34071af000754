//! The server and the way to it: version, recovery, durability, defaults, encryption.

use sqlx::PgConnection;

use super::For;
use super::finding::{About, Finding, Kind};
use crate::store::connect::Server;
use crate::store::error::StoreError;
use crate::store::statement::statements;

pub(super) const VERSION: About = About {
    name: "server-version",
    may_be_allowed: false,
    meaning: "rekey supports PostgreSQL 15 to 18, and this server is older or newer",
    remedy: "Upgrade the server, or use a release of rekey that supports it",
};

pub(super) const RECOVERY: About = About {
    name: "in-recovery",
    may_be_allowed: false,
    meaning: "The server is a standby and accepts no writes",
    remedy: "Name the primary in DATABASE_URL",
};

pub(super) const POOLING: About = About {
    name: "pooling",
    may_be_allowed: false,
    meaning: "rekey is connected to the server through a pooler in transaction mode",
    remedy: "Name the server itself in DATABASE_URL, or a pool in session mode",
};

pub(super) const TLS: About = About {
    name: "tls",
    may_be_allowed: true,
    meaning: "The connection is not encrypted and leaves this machine",
    remedy: "Add sslmode=verify-full and sslrootcert to DATABASE_URL",
};

pub(super) const DURABILITY: About = About {
    name: "durability",
    may_be_allowed: true,
    meaning: "fsync or full_page_writes is off",
    remedy: "Turn the setting on and reload the server",
};

pub(super) const SYNC_STANDBY: About = About {
    name: "sync-standby",
    may_be_allowed: true,
    meaning: "Commits wait for synchronous standbys",
    remedy: "Expect a lower rate; an unreachable standby blocks every commit",
};

pub(super) const ISOLATION: About = About {
    name: "isolation",
    may_be_allowed: true,
    meaning: "The role or database has another default isolation level or is read-only",
    remedy: "Do nothing; rekey sets what it needs for its own sessions",
};

statements! {
    // reset_val: what a session starts with, not what rekey's has set.
    fn telling_settings() -> All<(String, String)> during "read the server's settings":
        "SELECT name, CASE WHEN name LIKE 'default%' THEN reset_val ELSE setting END FROM pg_catalog.pg_settings \
         WHERE name IN ('fsync', 'full_page_writes', 'synchronous_standby_names', 'default_transaction_isolation', \
         'default_transaction_read_only') ORDER BY name";

    fn exposed_to() -> Optional<String> during "ask how the connection is encrypted":
        "SELECT host(inet_server_addr()) FROM pg_catalog.pg_stat_ssl \
         WHERE pid = pg_backend_pid() AND NOT ssl AND inet_client_addr() IS NOT NULL \
         AND inet_client_addr() <> inet_server_addr() \
         AND NOT inet_client_addr() <<= '127.0.0.0/8' AND inet_client_addr() <> '::1'";
}

/// Major versions that rekey's tests run on.
const SUPPORTED: std::ops::RangeInclusive<i32> = 15..=18;

/// Whether the version will do. A newer server most likely does; an older one lacks catalogues that are asked.
pub(super) fn version(server: Server, purpose: For, findings: &mut Vec<Finding>) -> bool {
    let (major, minor) = (server.version / 10_000, server.version % 10_000);
    let (oldest, newest) = (SUPPORTED.start(), SUPPORTED.end());
    let message = format!("This is PostgreSQL {major}.{minor}; rekey is tested on {oldest} to {newest}");
    if major > *newest {
        findings.push(Finding::warn(
            Kind::ServerVersion,
            message,
            "Use a newer release of rekey, or rehearse the whole rotation in staging first",
        ));
    } else if major < *oldest {
        let remedy = format!("Upgrade the server to PostgreSQL {oldest} or later");
        findings.push(match purpose {
            For::Rollback => Finding::warn(Kind::ServerVersion, message, remedy),
            For::Run | For::Reading => Finding::refuse(Kind::ServerVersion, message, remedy),
        });
    }
    major >= *oldest
}

pub(super) fn recovery(server: Server, purpose: For, findings: &mut Vec<Finding>) {
    if !server.in_recovery {
        return;
    }
    let message = "This server is in recovery, and a standby accepts no writes";
    let remedy = "Name the primary in DATABASE_URL";
    findings.push(match purpose {
        For::Reading => {
            Finding::note(Kind::InRecovery, message, "For `rekey run`, name the primary in DATABASE_URL")
        }
        For::Run | For::Rollback => Finding::refuse(Kind::InRecovery, message, remedy),
    });
}

/// Settings of the server, and defaults of this role and database.
pub(super) async fn settings(conn: &mut PgConnection, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    for (name, value) in telling_settings(conn).await? {
        match (name.as_str(), value.as_str()) {
            ("fsync" | "full_page_writes", "off") => findings.push(Finding::warn(
                Kind::Durability,
                format!(
                    "{name} is off, so a crash of the machine can corrupt credentials, checkpoints and \
                    proofs"
                ),
                format!("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"),
            )),
            ("synchronous_standby_names", names) if !names.is_empty() => findings.push(Finding::note(
                Kind::SyncStandby,
                format!("synchronous_standby_names is '{names}', so each batch waits for a standby"),
                "Expect a lower rate; an unreachable standby blocks every commit",
            )),
            ("default_transaction_isolation", isolation) if isolation != "read committed" => {
                findings.push(Finding::note(
                    Kind::Isolation,
                    format!("Sessions start with isolation level '{isolation}'"),
                    "Do nothing; rekey sets read committed for its own sessions",
                ));
            }
            ("default_transaction_read_only", "on") => findings.push(Finding::note(
                Kind::Isolation,
                "Sessions start read-only",
                "Ask why this server is read-only. `rekey run` would still write",
            )),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the connection could be intercepted.
pub(super) async fn connection(
    conn: &mut PgConnection,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    if let Some(address) = exposed_to(conn).await? {
        findings.push(Finding::warn(
            Kind::Tls,
            format!(
                "The connection to {address} is not encrypted, so ciphertexts and the database password \
                can be intercepted"
            ),
            "Add sslmode=verify-full and sslrootcert=… to DATABASE_URL",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::preflight::Severity;

    #[test]
    fn versions_that_were_tested_are_no_finding() {
        let found = |version, purpose| {
            let mut findings = Vec::new();
            let deadlock_timeout = std::time::Duration::from_secs(1);
            let server = Server { version, in_recovery: false, deadlock_timeout };
            let will_do = super::version(server, purpose, &mut findings);
            (will_do, findings.first().map(|f| f.severity))
        };
        assert_eq!(found(150_000, For::Run), (true, None));
        assert_eq!(found(180_004, For::Reading), (true, None));
        assert_eq!(found(190_000, For::Run), (true, Some(Severity::Warn)));
        assert_eq!(found(140_020, For::Run), (false, Some(Severity::Refuse)));
        assert_eq!(found(140_020, For::Rollback), (false, Some(Severity::Warn)));
    }
}
