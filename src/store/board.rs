//! What the page to watch a rotation on asks beyond `status`: the last events, and what goes on at the table.

use serde::Serialize;
use uuid::Uuid;

use super::statement::{row, statements};

/// An event without its details.
#[derive(Clone, Debug, Serialize)]
pub struct Recent {
    /// Place in the chain, from 1.
    pub seq: i64,
    /// RFC 3339.
    pub at: String,
    /// What happened.
    pub action: String,
    /// Who did it.
    pub operator: String,
    /// Why.
    pub reason: Option<String>,
}

/// Sessions at the application's table.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    /// That have written to it in a transaction which is open: rekey's workers, and the application.
    pub writing: i64,
    /// That wait for a lock on it, or for a transaction to end.
    pub waiting: i64,
    /// The furthest that a replica is behind, in seconds; none where there is none, or this role may not ask.
    pub lag_seconds: Option<f64>,
}

row!(Recent { seq, at, action, operator, reason });
row!(Traffic { writing, waiting, lag_seconds });

statements! {
    /// The last twenty, the newest first.
    pub fn recent(rotation: Uuid) -> All<Recent> during "read the last events":
        "SELECT seq, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS at, action, operator, reason \
         FROM rekey.events WHERE rotation = $1 ORDER BY seq DESC LIMIT 20";

    // pg_locks hides nothing from anybody.
    /// What goes on at the table.
    pub fn traffic() -> One<Traffic> during "look at the table's locks":
        "SELECT count(DISTINCT pid) FILTER (WHERE granted AND mode = 'RowExclusiveLock' AND relation = t.oid) AS writing, \
         count(DISTINCT pid) FILTER (WHERE NOT granted AND (relation = t.oid OR locktype = 'transactionid')) AS waiting, \
         (SELECT max(extract(epoch FROM replay_lag))::float8 FROM pg_catalog.pg_stat_replication) AS lag_seconds \
         FROM pg_catalog.pg_locks l RIGHT JOIN (SELECT to_regclass('public.provider_connections')::oid AS oid) t ON true";

    /// When each goal was last reached, in seconds since 1970.
    pub fn successes() -> All<(String, f64)> during "read when goals were reached":
        "SELECT action, max(extract(epoch FROM at))::float8 FROM rekey.events \
         WHERE action IN ('migrated', 'promoted', 'finalized', 'rolled_back') OR action = 'verify' AND detail->'clean' = 'true' \
         GROUP BY action ORDER BY action";
}
