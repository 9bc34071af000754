//! What may run out: the disk, and random IVs.

use sqlx::PgConnection;

use super::finding::{About, Finding, Kind};
use super::sample::KeyProbe;
use crate::rotation::{Forecast, TableFacts};
use crate::store::error::StoreError;
use crate::store::statement::statements;
use crate::store::{report, schema};

pub(super) const DISK: About = About {
    name: "disk",
    may_be_allowed: true,
    meaning: "The disk may be too small for the growth, or its free space is unknown",
    remedy: "Free some space, or enlarge the disk",
};

pub(super) const IVS: About = About {
    name: "iv-limit",
    may_be_allowed: true,
    meaning: "The new key nears the limit of 2^32 encryptions with random IVs (NIST SP 800-38D)",
    remedy: "Generate a fresh key with `rekey keys generate encryption`",
};

statements! {
    fn data_folder() -> One<(Option<String>, i64)> during "ask where the data is":
        "SELECT CASE WHEN inet_server_addr() IS NULL AND pg_has_role('pg_read_all_settings', 'USAGE') \
         THEN current_setting('data_directory') END, pg_size_bytes(current_setting('max_wal_size'))";
}

/// Encryptions under one key with random 96-bit IVs: NIST SP 800-38D §8.3.
const IV_LIMIT: i64 = 1 << 32;

/// Compares the disk with the forecast, where it can be known: over a Unix-domain socket the server's disk is ours.
pub(super) async fn room(
    conn: &mut PgConnection,
    facts: &TableFacts,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let (folder, max_wal) = data_folder(conn).await?;
    let growth = Forecast::new(facts, None).growth_bytes;
    let needed = growth + max_wal.max(0) as u64;
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    let needs = format!(
        "{} (tables may grow by {}, max_wal_size is {})",
        mib(needed),
        mib(growth),
        mib(max_wal.max(0) as u64)
    );
    let free = folder.and_then(|folder| rustix::fs::statvfs(folder).ok()).map(|fs| fs.f_bavail * fs.f_frsize);
    findings.push(match free {
        None => Finding::note(
            Kind::Disk,
            format!("Can't check free disk space over this connection. Keep {needs} free"),
            "Run `df -h` on the server's data directory",
        ),
        Some(free) if free < needed => Finding::refuse(
            Kind::Disk,
            format!("The server's disk has {} free, but the rotation may need {needs}", mib(free)),
            "Free some space, or enlarge the disk",
        ),
        Some(_) => return Ok(()),
    });
    Ok(())
}

/// Estimates what was sealed under each key: as far as the ledger knows, what this rotation adds under its target,
/// and what the application wrote under the key that is being left.
pub(super) async fn ivs(
    conn: &mut PgConnection,
    facts: &TableFacts,
    keys: &KeyProbe<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let rows = facts.rows as i64;
    let (mut target, mut source) = (rows, rows);
    if schema::is_readable(conn).await? {
        target += report::sealed(conn, keys.target.fingerprint()).await?;
        source = source.max(report::written_by_application(conn).await?);
        source += report::sealed(conn, keys.source.fingerprint()).await?;
    }
    findings.extend(judge_ivs(target));
    findings.extend(judge_source(source));
    Ok(())
}

/// Leaving a key that is used up is the remedy, so that this stops nothing.
fn judge_source(sealed: i64) -> Option<Finding> {
    (sealed >= IV_LIMIT / 2).then(|| {
        Finding::warn(
            Kind::IvLimit,
            format!(
                "The current key has made about {sealed} encryptions; random IVs allow 2^32 (NIST SP \
                800-38D §8.3)"
            ),
            "Replace this key with `rekey run`, and never rotate back to it",
        )
    })
}

fn judge_ivs(sealed: i64) -> Option<Finding> {
    let message = format!(
        "After this rotation, the target key will have made about {sealed} encryptions; random IVs allow \
         2^32 (NIST SP 800-38D §8.3)"
    );
    let remedy = "Generate a fresh key with `rekey keys generate encryption`";
    if sealed > IV_LIMIT {
        Some(Finding::refuse(Kind::IvLimit, message, remedy))
    } else if sealed >= IV_LIMIT / 2 {
        Some(Finding::warn(Kind::IvLimit, message, remedy))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::preflight::Severity;

    #[test]
    fn random_ivs_run_out_at_two_to_the_thirty_two() {
        let severity = |sealed| judge_ivs(sealed).map(|f| f.severity);
        assert_eq!(severity((1 << 31) - 1), None);
        assert_eq!(severity(1 << 31), Some(Severity::Warn));
        assert_eq!(severity(1 << 32), Some(Severity::Warn));
        assert_eq!(severity((1 << 32) + 1), Some(Severity::Refuse));
        let left = |sealed| judge_source(sealed).map(|f| f.severity);
        assert_eq!(left((1 << 31) - 1), None);
        assert_eq!(left((1 << 32) + 1), Some(Severity::Warn));
    }
}
