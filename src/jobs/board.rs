//! What the page to watch a rotation on shows: its status, its quarantine, its last events, and how the server bears it. Read
//! again and again, whatever this process does; and what of it Prometheus is told.

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Session;
use super::keys::status::CRYPTOPERIOD_DAYS;
use super::report::{Throughput, Verdict};
use super::status::{Heading, Status, Watch};
use crate::error::Result;
use crate::store::board::{self, Recent, Traffic};
use crate::store::ledger::quarantine::{self, Entry};
use crate::store::{StoreError, report, schema};
use crate::telemetry::metrics::{KeyAge, Ledger};

/// Rows in quarantine that the page names.
const NAMED: usize = 100;

/// One look.
#[derive(Serialize)]
pub struct Board {
    /// By the database's clock, RFC 3339.
    pub at: String,
    /// What the rotation has come to so far.
    pub verdict: Verdict,
    /// What `status` says.
    pub status: Status,
    /// Rows that no key opens, the first hundred.
    pub quarantine: Vec<Entry>,
    /// The last events of the rotation, the newest first. Without details: those may name rows.
    pub events: Vec<Recent>,
    /// What goes on at the table.
    pub traffic: Option<Traffic>,
    /// How fast it was, and why it was not faster.
    pub throughput: Throughput,
}

/// Looks again and again, on a connection of its own.
pub struct Looking<'a> {
    session: &'a Session,
    watch: Option<Watch<'a>>,
}

impl Looking<'_> {
    /// Nothing is contacted yet.
    pub fn of(session: &Session) -> Looking<'_> {
        Looking { session, watch: None }
    }

    /// One look. After one that failed the next connects anew.
    pub async fn look(&mut self) -> Result<Board> {
        let looked = self.attempt().await;
        if looked.is_err() {
            self.watch = None;
        }
        looked
    }

    /// The next look connects anew: this one was given up.
    pub fn forget(&mut self) {
        self.watch = None;
    }

    async fn attempt(&mut self) -> Result<Board> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => none.insert(Watch::open(self.session).await?),
        };
        let status = watch.look().await?;
        let conn = watch.connection();
        let at = report::now(conn).await?;
        let rotation = status.rotation.as_ref().map(|heading| heading.rotation.id);
        let (mut quarantine, mut events, mut verdict) = (Vec::new(), Vec::new(), Verdict::of_nothing());
        let mut throughput = Throughput::default();
        if let Some(Heading { rotation: r, .. }) = &status.rotation {
            verdict = super::report::verdict_now(self.session, conn, r).await?;
        }
        if let Some(rotation) = rotation {
            quarantine = quarantine::page(conn, rotation, None).await?;
            quarantine.truncate(NAMED);
            events = board::recent(conn, rotation).await?;
            throughput = Throughput::read(conn, rotation).await?;
        }
        let traffic = match status.server.has_table {
            true => Some(board::traffic(conn).await?),
            false => None,
        };
        self.session.metrics.stands(stands(conn, &status, rotation).await?);
        Ok(Board { at, verdict, status, quarantine, events, traffic, throughput })
    }
}

async fn stands(
    conn: &mut PgConnection,
    status: &Status,
    rotation: Option<Uuid>,
) -> Result<Ledger, StoreError> {
    let mut ledger =
        Ledger { state: status.rotation.as_ref().map(|r| r.rotation.state), ..Ledger::default() };
    if rotation.is_none() || !schema::exists(conn).await? {
        return Ok(ledger);
    }
    for (action, at) in board::successes(conn).await? {
        let command = match action.as_str() {
            "migrated" => "run",
            "verify" => "verify",
            "promoted" => "promote",
            "finalized" => "finalize",
            "rolled_back" => "rollback",
            _ => continue,
        };
        ledger.successes.push((command, at));
    }
    if let Some(key) = &status.current_key
        && let Some(since) = report::first_seen(conn, key.fingerprint).await?
    {
        let now = crate::store::ledger::rotation::clock(conn).await?;
        let since = key.promoted.as_ref().map_or(since, |promoted| now - promoted.seconds_ago);
        ledger.key = Some(KeyAge {
            fingerprint: key.fingerprint.to_string(),
            age_seconds: now - since,
            due: since + (CRYPTOPERIOD_DAYS * 24 * 3600) as f64,
        });
    }
    Ok(ledger)
}
