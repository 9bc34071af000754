//! `quarantine list`, `retry` and `accept`: rows that rekey cannot re-encrypt and leaves unchanged.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::key_pair::{self, NamedKeys};
use super::preflight::{primary_only, same_database};
use super::settled::{Ended, Settled, settle};
use super::work::{self, WorkRequest};
use super::{Session, access, standing};
use crate::engine::Stop;
use crate::error::{Error, Exit, Result};
use crate::rotation::permits::JustDone;
use crate::rotation::{Command, Step};
use crate::secrets::KeySource;
use crate::store::ledger::quarantine::{self, Acceptance, Entry};
use crate::store::ledger::{Rotation, chunk, rotation};
use crate::store::{Purpose, audit, connect, facts};

/// The entries of the latest rotation, a page at a time: there may be very many.
pub struct Listing {
    conn: PgConnection,
    rotation: Option<Rotation>,
    after: Option<Uuid>,
}

impl Listing {
    /// Before the first page.
    pub async fn open(session: &Session) -> Result<Listing> {
        let mut conn = session.connector()?.connect(Purpose::Control).await?;
        let rotation = rotation::latest(&mut conn).await?;
        Ok(Listing { conn, rotation, after: None })
    }

    /// The next entries; empty after the last.
    pub async fn page(&mut self) -> Result<Vec<Entry>> {
        let Some(rotation) = &self.rotation else { return Ok(Vec::new()) };
        let entries = quarantine::page(&mut self.conn, rotation.id, self.after).await?;
        self.after = entries.last().map(|last| last.id).or(self.after);
        Ok(entries)
    }

    /// What to do next, now that they are listed, and the head of the audit chain.
    pub async fn close(mut self, session: &Session) -> Result<(Vec<Step>, Option<String>)> {
        let rotation = self.rotation.as_ref();
        let next = standing::next_steps(session, &mut self.conn, rotation, JustDone::Listed).await?;
        Ok((next, audit::head_line(&mut self.conn).await))
    }
}

/// What a retry is asked for.
pub struct RetryRequest {
    /// A still older key that rows may be on: they move to the target too.
    pub also_key: Option<KeySource>,
    /// Where the keys are.
    pub keys: NamedKeys,
    /// Work settings.
    pub work: WorkRequest,
}

/// Tries the rows again. The closing proof looks at every quarantined row: retrying is sweeping once more.
pub async fn retry(session: &Session, request: &RetryRequest, stop: Stop) -> Result<Settled> {
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    primary_only(&connector, &mut conn, "quarantine retry").await?;
    let command = Command::QuarantineRetry { deadline: request.work.deadline.is_some() };
    let r = standing::permitted(session, &mut conn, command).await?;
    same_database(session, &mut conn, r.id, "quarantine retry", &request.work.allowed).await?;
    let direction = r.direction();
    let pair = key_pair::for_rotation(session, &request.keys, &r).await?;
    let mut accessed = access::both(&pair);
    let also = access::also(session, request.also_key.as_ref(), &mut accessed).await?;
    request.work.store_deadline(session, &mut conn, r.id).await?;
    let facts = facts::table(&mut conn).await?;
    let settings = request.work.settings(session, &facts);
    let before = chunk::totals(&mut conn, r.id, direction).await?;
    let rewrapper = work::rewrapper(&pair, r.id, direction, also.as_ref())?;
    drop((pair, also));
    access::record(session, &mut conn, r.id, "quarantine retry", accessed).await?;
    let detail = json!({ "rows": before.quarantined });
    audit::append(&mut conn, Some(r.id), "quarantine_retry", &session.actor, detail).await?;
    connect::close(conn).await;
    let how = (settings, request.work.limits(direction));
    let (end, took) = work::drive(session, &r, direction, rewrapper, how, stop).await?;
    let mut conn = work::connect_to_tell(&connector, &end).await?;
    settle(session, &mut conn, r.id, Ended { direction, end, took, before, cache: None }).await
}

/// What an acceptance reports.
pub struct Accepted {
    /// The row.
    pub id: Uuid,
    /// What to do next.
    pub next: Vec<Step>,
    /// The head of the audit chain.
    pub event_head: String,
}

/// Accepts a row that cannot be repaired: verify, promote, finalize and rollback then tolerate it.
pub async fn accept(session: &Session, id: Uuid, reason: &str) -> Result<Accepted> {
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    primary_only(&connector, &mut conn, "quarantine accept").await?;
    let r = standing::permitted(session, &mut conn, Command::QuarantineAccept).await?;
    match quarantine::accept(&mut conn, r.id, id, None, reason, &session.actor).await? {
        Acceptance::Recorded => {}
        Acceptance::NotQuarantined => {
            return Err(Error::new(Exit::Usage, format!("row {id} is not quarantined"))
                .hint("Run `rekey quarantine list`"));
        }
        Acceptance::Changed => {
            return Err(Error::new(Exit::State, format!("row {id} has changed, or has no credential"))
                .hint("Run `rekey quarantine retry` to check the row again"));
        }
    }
    let next = standing::next_steps(session, &mut conn, Some(&r), JustDone::Nothing).await?;
    let (seq, hash) = audit::head(&mut conn).await?;
    Ok(Accepted { id, next, event_head: format!("{seq}:{hash}") })
}
