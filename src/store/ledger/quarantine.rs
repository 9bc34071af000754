//! `rekey.quarantine`: rows that rekey cannot re-encrypt and leaves unchanged. An entry never excludes a row from a later pass.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::rotation::QuarantineReason;
use crate::store::Xid;
use crate::store::audit::{self, Actor};
use crate::store::encoding;
use crate::store::error::{Statement, StoreError};
use crate::store::statement::{row, statements};

/// A row to quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The row.
    pub id: Uuid,
    /// Why.
    pub reason: QuarantineReason,
    /// Bytes it holds.
    pub length: i32,
}

/// An entry as recorded.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The row.
    pub id: Uuid,
    /// Why.
    pub reason: QuarantineReason,
    /// Bytes it holds.
    pub length: Option<i32>,
    /// What it held then, as an acceptance names it. Older versions of rekey recorded none.
    pub content: Option<String>,
    /// When it was found, RFC 3339.
    pub found_at: String,
    /// Whether an operator accepted it, and the audit trail has the event.
    pub accepted: bool,
    /// When, RFC 3339.
    pub accepted_at: Option<String>,
    /// Who.
    pub accepted_by: Option<String>,
    /// Why.
    pub accept_reason: Option<String>,
    /// The ledger says that it is accepted, and the audit trail has no such event.
    pub without_event: bool,
}

/// True of an entry `q` whose acceptance is in the audit trail, for the same content. Acceptances of 0.1.0 name no content,
/// in the ledger and in their events alike; the server refuses to append such an event since.
macro_rules! evidenced {
    () => {
        "(q.accepted_at IS NOT NULL AND EXISTS (SELECT FROM rekey.events e WHERE e.rotation = q.rotation AND e.action = 'accept' \
         AND e.detail->>'id' = q.row_id::text AND e.detail->>'content' IS NOT DISTINCT FROM q.content))"
    };
}
pub(super) use evidenced;

row!(Entry {
    id,
    reason,
    length,
    content,
    found_at,
    accepted,
    accepted_at,
    accepted_by,
    accept_reason,
    without_event
});

macro_rules! columns {
    () => {
        concat!(
            "row_id AS id, q.reason, length, found_content AS content, to_char(found_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS found_at, ",
            evidenced!(),
            " AS accepted, to_char(accepted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS accepted_at, accepted_by, accept_reason, accepted_at IS NOT NULL AND NOT ",
            evidenced!(),
            " AS without_event"
        )
    };
}

/// [`Content`] of the row `t`, for an entry whose reason is in the table given. The server reads no value of more than 8 MiB,
/// which may be damaged as well: `octet_length` needs its pointer only.
macro_rules! content {
    ($entry:literal) => {
        concat!(
            "CASE WHEN ",
            $entry,
            ".reason = 'damaged' OR octet_length(t.encrypted_credentials) > 8388608 THEN 'xmin:' || t.xmin \
             ELSE 'sha256:' || encode(sha256(t.encrypted_credentials), 'hex') END"
        )
    };
}

statements! {
    /// All entries of a rotation.
    pub fn list(rotation: Uuid) -> All<Entry> during READ:
        concat!("SELECT ", columns!(), " FROM rekey.quarantine q WHERE rotation = $1 ORDER BY row_id");

    /// The next entries after `after`, a thousand in the order of their ids: there may be more than should be in memory
    /// together.
    pub fn page(rotation: Uuid, after: Option<Uuid>) -> All<Entry> during READ:
        concat!(
            "SELECT ", columns!(), " FROM rekey.quarantine q WHERE rotation = $1 AND ($2::uuid IS NULL OR row_id > $2) \
             ORDER BY row_id LIMIT 1000"
        );

    /// Which of these rows have an entry.
    pub fn listed_among(rotation: Uuid, ids: &[Uuid]) -> All<Uuid> during READ:
        "SELECT row_id FROM rekey.quarantine WHERE rotation = $1 AND row_id = ANY($2)";

    /// One entry of a rotation.
    pub fn find(rotation: Uuid, id: Uuid) -> Optional<Entry> during READ:
        concat!("SELECT ", columns!(), " FROM rekey.quarantine q WHERE rotation = $1 AND row_id = $2");

    fn standing_of(
        rotation: Uuid, ids: &[Uuid], contents: &[Option<String>]
    ) -> All<(Uuid, bool, QuarantineReason)> during "look rows up in the quarantine":
        concat!(
            "SELECT q.row_id, ", evidenced!(),
            " AND (CASE WHEN coalesce(q.content, q.found_content) IS NULL THEN q.length = (SELECT octet_length(t.encrypted_credentials) \
             FROM public.provider_connections t WHERE t.id = u.id) \
             ELSE coalesce(q.content, q.found_content) = coalesce(u.content, (SELECT ",
            content!("q"), " FROM public.provider_connections t WHERE t.id = u.id)) END) IS TRUE, q.reason \
             FROM unnest($2::uuid[], $3::text[]) u(id, content) JOIN rekey.quarantine q ON q.rotation = $1 AND q.row_id = u.id"
        );

    /// Entries that are not accepted, according to the audit trail.
    pub fn unaccepted(rotation: Uuid) -> One<i64> during "count the quarantine":
        concat!("SELECT count(*) FROM rekey.quarantine q WHERE rotation = $1 AND NOT ", evidenced!());

    // Acceptances of 0.1.0 name no content: they hold for what the row holds when it is first met again, if that is as long as
    // what was found.
    fn forget_outdated(rotation: Uuid, ids: &[Uuid], reasons: &[QuarantineReason]) during QUARANTINE:
        concat!("UPDATE rekey.quarantine q SET accepted_at = NULL, accepted_by = NULL, accept_reason = NULL, content = NULL \
         FROM unnest($2::uuid[], $3::text[]) f(id, reason) JOIN public.provider_connections t ON t.id = f.id \
         WHERE q.rotation = $1 AND q.row_id = f.id AND q.accepted_at IS NOT NULL \
         AND (coalesce(q.content, q.found_content) IS NULL AND q.length <> octet_length(t.encrypted_credentials) \
         OR coalesce(q.content, q.found_content) <> ", content!("f"), ")");

    fn insert(rotation: Uuid, ids: &[Uuid], reasons: &[QuarantineReason], lengths: &[i32]) -> All<Uuid> during QUARANTINE:
        concat!("INSERT INTO rekey.quarantine (rotation, row_id, reason, length, found_content) \
         SELECT $1, f.id, f.reason, f.length, (SELECT ", content!("f"), " \
         FROM public.provider_connections t WHERE t.id = f.id) \
         FROM unnest($2::uuid[], $3::text[], $4::int[]) f(id, reason, length) ON CONFLICT (rotation, row_id) \
         DO UPDATE SET reason = excluded.reason, length = excluded.length, found_content = excluded.found_content, \
         (accepted_at, accepted_by, accept_reason, content) = (SELECT quarantine.accepted_at, quarantine.accepted_by, \
         quarantine.accept_reason, quarantine.content \
         WHERE (excluded.reason = 'rejected') = (quarantine.reason = 'rejected')) \
         WHERE quarantine.reason <> excluded.reason OR quarantine.length <> excluded.length \
         OR quarantine.found_content IS DISTINCT FROM excluded.found_content RETURNING row_id");

    /// Notes what rows hold whose entries do not say it, because 0.1.0 wrote them: from then on that is what was accepted.
    pub fn note_contents(rotation: Uuid) during QUARANTINE:
        concat!("UPDATE rekey.quarantine q SET found_content = ", content!("q"), " \
         FROM public.provider_connections t WHERE q.rotation = $1 AND q.found_content IS NULL AND t.id = q.row_id \
         AND (q.accepted_at IS NULL OR q.length = octet_length(t.encrypted_credentials))");

    fn delete(rotation: Uuid, ids: &[Uuid]) during "release rows from quarantine":
        "DELETE FROM rekey.quarantine WHERE rotation = $1 AND row_id = ANY($2)";

    fn lock_content(rotation: Uuid, id: Uuid) -> Optional<Option<String>> during ACCEPT:
        concat!("SELECT (SELECT ", content!("q"), " FROM public.provider_connections t WHERE t.id = q.row_id) \
         FROM rekey.quarantine q WHERE q.rotation = $1 AND q.row_id = $2 FOR UPDATE OF q");

    fn set_accepted(rotation: Uuid, id: Uuid, operator: &str, reason: &str, content: &str) during ACCEPT:
        "UPDATE rekey.quarantine SET accepted_at = clock_timestamp(), accepted_by = $3, accept_reason = $4, content = $5 \
         WHERE rotation = $1 AND row_id = $2";
}

const READ: &str = "read the quarantine";
const QUARANTINE: &str = "quarantine rows";
const ACCEPT: &str = "accept the row";

/// What a row in quarantine holds, as an acceptance names it: the digest of the credential or, of one that the server cannot
/// read or that is longer than 8 MiB, the version of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content(String);

impl Content {
    /// Of a credential that was read.
    pub fn of(envelope: &[u8]) -> Content {
        Content(format!(
            "sha256:{}",
            Sha256::digest(envelope).iter().map(|b| format!("{b:02x}")).collect::<String>()
        ))
    }

    /// Of a row whose credential cannot be read.
    pub fn version(xmin: Xid) -> Content {
        Content(format!("xmin:{}", xmin.0))
    }

    /// As an entry recorded it.
    pub fn recorded(text: &str) -> Content {
        Content(text.to_owned())
    }
}

/// What verify has to know of a row in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not accepted.
    Open,
    /// Accepted, because no key decrypts it.
    Accepted,
    /// Accepted, because the server rejects any other value for it.
    AcceptedAsItIs,
}

/// Which of these rows are quarantined, and how they stand there. An acceptance holds for the content it was given for:
/// what the row holds now is given where it was read, and is digested by the server where it was too large for that.
pub async fn among(
    conn: &mut PgConnection,
    rotation: Uuid,
    rows: impl IntoIterator<Item = (Uuid, Option<Content>)>,
) -> Result<HashMap<Uuid, Standing>, StoreError> {
    let (ids, contents): (Vec<Uuid>, Vec<Option<String>>) =
        rows.into_iter().map(|(id, content)| (id, content.map(|c| c.0))).unzip();
    let found = standing_of(conn, rotation, &ids, &contents).await?;
    let standing = |accepted, reason| match (accepted, reason) {
        (false, _) => Standing::Open,
        (true, QuarantineReason::Rejected) => Standing::AcceptedAsItIs,
        (true, _) => Standing::Accepted,
    };
    Ok(found.into_iter().map(|(id, accepted, reason)| (id, standing(accepted, reason))).collect())
}

/// Adds entries, in the caller's transaction. One that is there keeps its acceptance as long as the row holds what was
/// accepted, unless that was of a row no key opens and the server rejects a credential by now that one does, or the
/// other way round.
pub async fn add(
    conn: &mut PgConnection,
    rotation: Uuid,
    rows: &[BadRow],
    actor: &Actor,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    // A row may have been met twice: it moved while it was read, or the closing proof met it in both of its places.
    let last: BTreeMap<Uuid, &BadRow> = rows.iter().map(|f| (f.id, f)).collect();
    let (ids, reasons, lengths): (Vec<Uuid>, Vec<QuarantineReason>, Vec<i32>) = (
        last.keys().copied().collect(),
        last.values().map(|f| f.reason).collect(),
        last.values().map(|f| f.length).collect(),
    );
    forget_outdated(conn, rotation, &ids, &reasons).await?;
    let new = insert(conn, rotation, &ids, &reasons, &lengths).await?;
    if !new.is_empty() {
        let shown: Vec<_> = new.iter().take(100).collect();
        audit::append(conn, Some(rotation), "quarantine", actor, json!({ "rows": new.len(), "ids": shown }))
            .await?;
    }
    Ok(())
}

/// Removes entries of rows that are fine now, or gone.
pub async fn remove(conn: &mut PgConnection, rotation: Uuid, ids: &[Uuid]) -> Result<(), StoreError> {
    match ids {
        [] => Ok(()),
        ids => delete(conn, rotation, ids).await,
    }
}

/// What became of a wish to accept a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is accepted, and the audit trail has it.
    Recorded,
    /// The row is not in quarantine.
    NotQuarantined,
    /// The row does not hold what the caller looked at, or no credential at all.
    Changed,
}

/// Accepts an unrepairable row, for the content that the caller has read; if it is unreadable, for the
/// content that is there.
pub async fn accept(
    conn: &mut PgConnection,
    rotation: Uuid,
    id: Uuid,
    looked_at: Option<Content>,
    reason: &str,
    actor: &Actor,
) -> Result<Acceptance, StoreError> {
    let mut tx = conn.begin().during("begin").await?;
    let Some(content) = lock_content(&mut tx, rotation, id).await? else {
        return Ok(Acceptance::NotQuarantined);
    };
    let Some(content) = content.map(Content).filter(|now| looked_at.is_none_or(|seen| seen == *now)) else {
        return Ok(Acceptance::Changed);
    };
    let operator = encoding::fit(&mut tx, &actor.operator).await?;
    let remark = encoding::fit(&mut tx, reason).await?;
    set_accepted(&mut tx, rotation, id, &operator, &remark, &content.0).await?;
    let detail = json!({ "id": id, "reason": reason, "content": content.0 });
    audit::append(&mut tx, Some(rotation), "accept", actor, detail).await?;
    tx.commit().during(ACCEPT).await?;
    Ok(Acceptance::Recorded)
}
