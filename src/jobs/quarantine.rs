//! `quarantine list`, `retry` and `accept`: rows that rekey cannot re-encrypt and leaves unchanged.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::key_pair::{self, Held, NamedKeys};
use super::preflight::{primary_only, same_database};
use super::settled::{Ended, Settled, settle};
use super::work::{self, WorkRequest};
use super::{Session, access, standing};
use crate::crypto::Cipher;
use crate::engine::Stop;
use crate::error::{Error, Exit, Result};
use crate::rotation::permits::JustDone;
use crate::rotation::{Command, KeyRole, QuarantineReason, Step};
use crate::secrets::KeySource;
use crate::store::ledger::quarantine::{self, Acceptance, Content, Entry};
use crate::store::ledger::{Rotation, chunk, rotation};
use crate::store::rows::{self, MAX_ROW_BYTES, Stretch};
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

/// What an acceptance is asked for.
pub struct AcceptRequest {
    /// The row.
    pub id: Uuid,
    /// Why: of this row, by its own operator.
    pub reason: String,
    /// Where the keys are: a row that either opens is not accepted.
    pub keys: NamedKeys,
}

/// A row that may be accepted, as it was looked at.
pub struct Candidate {
    /// Its entry.
    pub entry: Entry,
    /// Its rotation.
    pub rotation: Rotation,
    /// The database, without its password.
    pub database: String,
    /// What it held.
    content: Option<Content>,
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

/// Looks at a row before it is accepted: refuses what is not quarantined, what has changed since it was listed, and what one
/// of the keys opens. A row that the server rejects opens, and cannot be moved all the same.
pub async fn look(session: &Session, request: &AcceptRequest) -> Result<Candidate> {
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    primary_only(&connector, &mut conn, "quarantine accept").await?;
    let rotation = standing::permitted(session, &mut conn, Command::QuarantineAccept).await?;
    let id = request.id;
    let Some(entry) = quarantine::find(&mut conn, rotation.id, id).await? else {
        return Err(not_quarantined(id));
    };
    let pair = key_pair::for_rotation(session, &request.keys, &rotation).await?;
    let (mut now, mut opened) = (None, None);
    rows::read(&mut conn, &Stretch::Ids { ids: vec![id], max: MAX_ROW_BYTES }, |row| {
        now = match row.envelope {
            Some(envelope) => {
                let opens = |held: &Held| {
                    let mut plaintext = Zeroizing::new(Vec::new());
                    Cipher::new(&held.key).open_into(envelope, &mut plaintext).is_ok()
                };
                opened = [(&pair.old, KeyRole::Old), (&pair.new, KeyRole::New)]
                    .into_iter()
                    .find_map(|(held, role)| opens(held).then_some(role));
                Some(Content::of(envelope))
            }
            None if row.damaged => Some(Content::version(row.xmin)),
            // Too large to be read: the server tells, when it is accepted, whether it is what was listed.
            None if row.length.is_some() => entry.content.as_deref().map(Content::recorded),
            None => return Err(changed(id)),
        };
        Ok::<_, Error>(())
    })
    .await?;
    access::record(session, &mut conn, rotation.id, "quarantine accept", access::both(&pair)).await?;
    drop(pair);
    if let (Some(role), false) = (opened, entry.reason == QuarantineReason::Rejected) {
        return Err(Error::new(
            Exit::State,
            format!("connection {id} opens with the {role} key: it is not lost"),
        )
        .hint("Run `rekey quarantine retry`, which re-encrypts it"));
    }
    let listed = entry.content.as_deref().map(Content::recorded);
    if listed.is_some() && listed != now {
        return Err(changed(id));
    }
    let database = connector.describe().to_owned();
    connect::close(conn).await;
    Ok(Candidate { entry, rotation, database, content: now })
}

/// Accepts a row that cannot be repaired, for what it held when it was looked at: verify, promote, finalize and rollback then
/// tolerate it.
pub async fn accept(session: &Session, candidate: &Candidate, reason: &str) -> Result<Accepted> {
    let (id, rotation) = (candidate.entry.id, candidate.rotation.id);
    let mut conn = session.connector()?.connect(Purpose::Control).await?;
    let r = standing::permitted(session, &mut conn, Command::QuarantineAccept).await?;
    let seen = candidate.content.clone();
    match quarantine::accept(&mut conn, rotation, id, seen, reason, &session.actor).await? {
        Acceptance::Recorded => {}
        Acceptance::NotQuarantined => return Err(not_quarantined(id)),
        Acceptance::Changed => return Err(changed(id)),
    }
    let next = standing::next_steps(session, &mut conn, Some(&r), JustDone::Nothing).await?;
    let (seq, hash) = audit::head(&mut conn).await?;
    Ok(Accepted { id, next, event_head: format!("{seq}:{hash}") })
}

fn not_quarantined(id: Uuid) -> Error {
    Error::new(Exit::Usage, format!("connection {id} is not quarantined")).hint("Run `rekey quarantine list`")
}

fn changed(id: Uuid) -> Error {
    let message = format!("connection {id} has changed since it was listed, or holds no credential");
    Error::new(Exit::State, message).hint("Run `rekey quarantine retry` to look at the row again")
}
