//! What holds back the xmin horizon: waves depend on pruning, and no dead row is pruned that a session might still see.

use sqlx::PgConnection;

use super::finding::{About, Finding, Kind};
use crate::store::error::StoreError;
use crate::store::statement::statements;

pub(super) const MONITORING: About = About {
    name: "monitoring",
    may_be_allowed: true,
    meaning: "The role can't see what the throttle watches",
    remedy: "GRANT pg_monitor to the role",
};

pub(super) const OLD_SNAPSHOT: About = About {
    name: "old-snapshot",
    may_be_allowed: true,
    meaning: "Something holds back the xmin horizon, blocking pruning of dead rows",
    remedy: "End the old transaction",
};

/// Transactions older than this are reported; the application's own are expected to be shorter.
const SECONDS: f64 = 2.0;

statements! {
    fn holders() -> All<(String, Option<f64>, String)> during "look for what holds back the horizon":
        "SELECT 'prepared transaction ' || quote_literal(gid) || ' of ' || owner, extract(epoch FROM clock_timestamp() - prepared)::float8, \
         'COMMIT PREPARED or ROLLBACK PREPARED ' || quote_literal(gid) \
         FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() \
         UNION ALL SELECT 'replication slot ' || slot_name || ' (xmin ' || age(xmin) || ' transactions old)', NULL, \
         'let its consumer catch up, or SELECT pg_drop_replication_slot(' || quote_literal(slot_name) || ')' \
         FROM pg_catalog.pg_replication_slots WHERE xmin IS NOT NULL AND (NOT active OR age(xmin) > 100000)";

    fn blind_role() -> Optional<String> during "ask what may be seen of other sessions":
        "SELECT quote_ident(current_user) WHERE NOT pg_has_role('pg_read_all_stats', 'USAGE')";

    fn old_transactions(seconds: f64) -> All<(i32, String, String, f64, String)> during "look for old transactions":
        "SELECT pid, coalesce(usename::text, '?'), coalesce(state, '?'), extract(epoch FROM clock_timestamp() - xact_start)::float8, \
         coalesce(application_name, '') FROM pg_catalog.pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) \
         AND (datname = current_database() OR datname IS NULL) AND backend_type <> 'autovacuum worker' \
         AND xact_start < clock_timestamp() - make_interval(secs => $1) ORDER BY xact_start LIMIT 20";
}

pub(super) async fn held_back(
    conn: &mut PgConnection,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    findings.extend(sight(conn).await?);
    sessions(conn, findings).await?;
    for (what, age, remedy) in holders(conn).await? {
        let age = age.map_or_else(String::new, |age| format!(", {age:.0} s old,"));
        findings.push(Finding::warn(Kind::OldSnapshot, costs(&format!("{what}{age}")), remedy));
    }
    Ok(())
}

fn costs(who: &str) -> String {
    format!(
        "{who} holds back the xmin horizon, blocking pruning. Expect half the speed, twice the table size"
    )
}

/// Without this privilege other sessions' snapshots are hidden, and their absence below means nothing.
async fn sight(conn: &mut PgConnection) -> Result<Option<Finding>, StoreError> {
    let blind = blind_role(conn).await?;
    Ok(blind.map(|role| {
        Finding::note(
            Kind::Monitoring,
            format!(
                "Role {role} can't see other sessions' transactions, so rekey can't check what holds \
                back the xmin horizon"
            ),
            format!("GRANT pg_monitor TO {role}"),
        )
    }))
}

async fn sessions(conn: &mut PgConnection, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    for (pid, user, state, age, application) in old_transactions(conn, SECONDS).await? {
        let who =
            format!("Session {pid} of {user} ({application}), {state}, in a transaction for {age:.0} s,");
        findings.push(Finding::warn(
            Kind::OldSnapshot,
            costs(&who),
            format!("End its transaction, or run `SELECT pg_terminate_backend({pid})`"),
        ));
    }
    Ok(())
}
