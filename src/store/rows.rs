//! The application's rows: reading them in short statements, and the one UPDATE that moves them.
//!
//! No transaction is held open while reading: an open snapshot stops the pruning that waves live on.

use std::collections::HashSet;
use std::time::Duration;

use futures::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, Transaction};
use uuid::Uuid;

use super::connect::Connector;
use super::error::{During, Statement, StoreError, answered, bounded, pass_point};
use super::ledger::Lease;
use super::pg_types::Xid;
use super::statement::{Column, column, script};
use crate::crypto::Tag;
use crate::fault_point::Side;
use crate::rotation::{Tid, Wavable};

/// Values longer than this are not read with their neighbours but by id, a few at a time.
pub const INLINE_BYTES: i32 = 8 << 10;
/// Values longer than this are not credentials; such a row is quarantined unread, so that memory stays bounded.
pub const MAX_ROW_BYTES: i32 = 8 << 20;
/// Rows of one reading statement.
pub const READ_ROWS: i64 = 3000;

/// One row as read. `length` is `None` for a NULL credential; `envelope` is `None` when it is longer than the
/// statement carries.
pub struct Read<'a> {
    /// Primary key.
    pub id: Uuid,
    /// Its place in the heap when it was read.
    pub tid: Tid,
    /// The version that was read.
    pub xmin: Xid,
    /// Bytes of credential.
    pub length: Option<i32>,
    /// The credential.
    pub envelope: Option<&'a [u8]>,
    /// The server cannot read the value itself: a part of it that lay out of line is gone, say.
    pub damaged: bool,
}

impl Read<'_> {
    /// Bytes of a credential that the statement left out because it is longer than `carried`, and that can be read by
    /// itself.
    pub fn left_out(&self, carried: i32) -> Option<usize> {
        let length = self.length.filter(|_| self.envelope.is_none() && !self.damaged)?;
        (carried < length && length <= MAX_ROW_BYTES).then_some(length as usize)
    }
}

/// A row ready to be written: the version that was decrypted, and what replaces it.
pub struct Write {
    /// Primary key.
    pub id: Uuid,
    /// Where it was read; deals it into a wave.
    pub tid: Tid,
    /// The version that was decrypted.
    pub xmin: Xid,
    /// The IV that was decrypted: xmin alone is reused after a crash that lost asynchronous commits.
    pub iv: [u8; 12],
    /// The new ciphertext.
    pub envelope: Vec<u8>,
    /// Proof tag of the plaintext.
    pub tag: Tag,
}

impl Wavable for Write {
    fn tid(&self) -> Tid {
        self.tid
    }
    fn size(&self) -> usize {
        self.envelope.len()
    }
}

/// The five columns that [`decode`] reads, of the table as `t`; values longer than `$max` bytes are left out.
macro_rules! read_columns {
    ($max:literal) => {
        concat!(
            "t.id, t.ctid, t.xmin, octet_length(t.encrypted_credentials), \
             CASE WHEN octet_length(t.encrypted_credentials) <= ",
            $max,
            " THEN t.encrypted_credentials END"
        )
    };
}
pub(super) use read_columns;

// $1: the longest value to be carried.
macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", read_columns!("$1"), " FROM public.provider_connections t WHERE ", $rest)
    };
}

/// The next stretch of a chunk to read.
#[derive(Clone, Debug)]
pub enum Stretch {
    /// Keys from the open start, up to `hi` inclusive.
    FromStart { hi: Uuid, limit: i64 },
    /// Keys after `lo`, up to `hi` inclusive.
    After { lo: Uuid, hi: Uuid, limit: i64 },
    /// Places in the heap after `after`, in blocks before `hi`; in the order of their places.
    Places { after: Tid, hi: u32, limit: i64 },
    /// These rows; values longer than `max` bytes are left out.
    Ids { ids: Vec<Uuid>, max: i32 },
}

impl Stretch {
    /// The longest value that the statement carries.
    pub fn max(&self) -> i32 {
        if let Stretch::Ids { max, .. } = self { *max } else { INLINE_BYTES }
    }

    /// The most rows it has; none for rows that are named.
    pub fn limit(&self) -> Option<i64> {
        match self {
            Stretch::FromStart { limit, .. }
            | Stretch::After { limit, .. }
            | Stretch::Places { limit, .. } => Some(*limit),
            Stretch::Ids { .. } => None,
        }
    }

    fn query(&self, max: i32) -> Query<'_> {
        match self {
            Stretch::FromStart { hi, limit } => {
                sqlx::query(select!("id <= $2 ORDER BY id LIMIT $3")).bind(max).bind(hi).bind(limit)
            }
            Stretch::After { lo, hi, limit } => {
                sqlx::query(select!("id > $2 AND id <= $3 ORDER BY id LIMIT $4"))
                    .bind(max)
                    .bind(lo)
                    .bind(hi)
                    .bind(limit)
            }
            // No ORDER BY: a TID range scan has its order without being asked, and the planner would not know. It is
            // checked as rows come in.
            Stretch::Places { after, hi, limit } => sqlx::query(select!("ctid > $2 AND ctid < $3 LIMIT $4"))
                .bind(max)
                .bind(after)
                .bind(Tid { block: *hi, offset: 0 })
                .bind(limit),
            Stretch::Ids { ids, .. } => sqlx::query(select!("id = ANY($2)")).bind(max).bind(ids),
        }
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// How far a stretch was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Rows it has: fewer than its limit, and nothing is left behind it.
    pub rows: i64,
    /// The last of them, and its place.
    pub last: Option<(Uuid, Tid)>,
}

impl Seen {
    /// Notes a row of a statement over `stretch`.
    fn note(&mut self, stretch: &Stretch, row: &Read<'_>) -> Result<(), StoreError> {
        let out_of_order =
            matches!(stretch, Stretch::Places { .. }) && self.last.is_some_and(|(_, at)| at >= row.tid);
        if out_of_order {
            // What is read next begins behind the last place: a row would be missed.
            let what = "rows came in another order than that of their places".into();
            return Err(StoreError::Sql { op: READ, source: sqlx::Error::Protocol(what) });
        }
        *self = Seen { rows: self.rows + 1, last: Some((row.id, row.tid)) };
        Ok(())
    }
}

impl super::statement::Row for Read<'static> {
    type Of<'r> = Read<'r>;

    fn columns() -> Vec<Column> {
        vec![
            column::<Uuid>(None),
            column::<Tid>(None),
            column::<Xid>(None),
            column::<Option<i32>>(None),
            column::<Option<Vec<u8>>>(None),
        ]
    }

    fn decode(row: &PgRow) -> Result<Read<'_>, sqlx::Error> {
        decode(row)
    }
}

/// As [`read`], in a transaction of the caller's, which a damaged value ends.
pub async fn read_once<E: From<StoreError>>(
    conn: &mut PgConnection,
    stretch: &Stretch,
    mut each: impl FnMut(Read<'_>) -> Result<(), E>,
) -> Result<Seen, E> {
    let mut seen = Seen::default();
    let whole = hand_on(conn, stretch.query(stretch.max()), |row| {
        seen.note(stretch, &row)?;
        each(row)
    });
    whole.await.map(|()| seen).map_err(Failed::into)
}

/// Reads one stretch, handing each row on as it arrives.
pub async fn read<E: From<StoreError>>(
    conn: &mut PgConnection,
    stretch: &Stretch,
    mut each: impl FnMut(Read<'_>) -> Result<(), E>,
) -> Result<Seen, E> {
    let (mut handed_on, mut seen) = (HashSet::new(), Seen::default());
    let whole = hand_on(conn, stretch.query(stretch.max()), |row| {
        seen.note(stretch, &row)?;
        handed_on.insert(row.id);
        each(row)
    });
    match whole.await {
        Err(Failed::Server(error)) if error.is_damage() => {
            tracing::warn!(%error, "a value is damaged; reading its neighbours one by one");
        }
        done => return done.map(|()| seen).map_err(Failed::into),
    }
    // The rest of the stretch without values, and each by itself: what cannot be read then is the damaged one.
    let (mut rest, mut seen) = (Vec::new(), Seen::default());
    let bare = hand_on(conn, stretch.query(-1), |row| {
        rest.push((row.id, row.tid, row.xmin, row.length));
        // One that is deleted before its turn comes was there all the same.
        seen.note(stretch, &row)
    });
    bare.await.map_err(Failed::into)?;
    for (id, tid, xmin, length) in rest.into_iter().filter(|row| !handed_on.contains(&row.0)) {
        let alone = Stretch::Ids { ids: vec![id], max: stretch.max() };
        match hand_on(conn, alone.query(alone.max()), &mut each).await {
            Err(Failed::Server(error)) if error.is_damage() => {
                each(Read { id, tid, xmin, length, envelope: None, damaged: true })?;
            }
            done => done.map_err(Failed::into)?,
        }
    }
    Ok(seen)
}

const READ: &str = "read connections";

/// Why reading ended: the server, or whoever was handed a row.
enum Failed<E> {
    Server(StoreError),
    Row(E),
}

impl<E: From<StoreError>> Failed<E> {
    fn into(self) -> E {
        match self {
            Failed::Server(error) => error.into(),
            Failed::Row(error) => error,
        }
    }
}

async fn hand_on<E>(
    conn: &mut PgConnection,
    query: Query<'_>,
    mut each: impl FnMut(Read<'_>) -> Result<(), E>,
) -> Result<(), Failed<E>> {
    let server = Failed::Server;
    pass_point(Side::Before, READ).during(READ).map_err(server)?;
    let mut rows = query.fetch(conn);
    while let Some(row) = answered(READ, rows.try_next()).await.map_err(server)? {
        each(decode(&row).during(READ).map_err(server)?).map_err(Failed::Row)?;
    }
    pass_point(Side::After, READ).during(READ).map_err(server)
}

/// Decodes the columns of `read_columns`.
pub(super) fn decode(row: &PgRow) -> Result<Read<'_>, sqlx::Error> {
    Ok(Read {
        id: row.try_get(0)?,
        tid: row.try_get(1)?,
        xmin: row.try_get(2)?,
        length: row.try_get(3)?,
        envelope: row.try_get(4)?,
        damaged: false,
    })
}

macro_rules! update {
    () => {
        // By id, not by ctid: a TID scan never prunes the page, and waves live on pruning (HOT 92 % → 0 %, measured).
        "UPDATE public.provider_connections t SET encrypted_credentials = u.c \
         FROM unnest($1::uuid[], $2::bytea[], $3::xid[], $4::bytea[]) u(id, c, x, iv) \
         WHERE t.id = u.id AND t.xmin = u.x AND substr(t.encrypted_credentials, 1, 12) = u.iv"
    };
}

// What now stands there. A trigger may have kept the old value, and the row counts as updated all the same.
macro_rules! as_sent {
    () => {
        "t.id = u.id AND coalesce(t.encrypted_credentials = u.c, false)"
    };
}

// A trigger that runs before the row is written; those behind foreign keys are internal, and run after. Bits of
// tgtype: 1 for each row, 2 before, 16 on UPDATE (src/include/catalog/pg_trigger.h). Created by anybody meanwhile, it waits for us.
macro_rules! nobody_interferes {
    () => {
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'public.provider_connections'::pg_catalog.regclass \
         AND NOT tgisinternal AND tgtype & 19 = 19)"
    };
}

/// Writes rows that still hold the very version that was decrypted; returns how many did and now hold what was sent.
/// Where that is not all of them, roll back. The transaction's checkpoint, under the same lease, decides whether they stay.
pub async fn write(conn: &mut PgConnection, _right: &Lease, rows: &[Write]) -> Result<u64, sqlx::Error> {
    overwrite(conn, rows).await
}

/// The same for rows that may be contested: takes only what nobody holds.
pub async fn write_free(
    conn: &mut PgConnection,
    _right: &Lease,
    rows: &[&Write],
) -> Result<FreeWrites, sqlx::Error> {
    overwrite_free(conn, rows).await
}

/// A transaction over the application's rows that needs no lease: it can only be rolled back.
pub struct Rehearsal<'c> {
    tx: Transaction<'c, Postgres>,
    limit: Duration,
}

impl<'c> Rehearsal<'c> {
    /// Begins one, with the limits of a batch.
    pub async fn begin(conn: &'c mut PgConnection, connector: &Connector) -> Result<Self, StoreError> {
        let limit = connector.answer_limit();
        let begin = conn.begin_with(AssertSqlSafe(connector.begin_batch()));
        Ok(Rehearsal { tx: bounded("begin a rehearsal", limit, begin).await?, limit })
    }

    /// As [`write`].
    pub async fn write(&mut self, rows: &[Write]) -> Result<u64, StoreError> {
        bounded("rehearse a batch", self.limit, overwrite(&mut self.tx, rows)).await
    }

    /// As [`write_free`].
    pub async fn write_free(&mut self, rows: &[&Write]) -> Result<FreeWrites, StoreError> {
        bounded("rehearse a batch", self.limit, overwrite_free(&mut self.tx, rows)).await
    }

    /// Leaves nothing but dead row versions.
    pub async fn roll_back(self) -> Result<(), StoreError> {
        bounded("roll the rehearsal back", self.limit, self.tx.rollback()).await
    }
}

/// What now stands there is looked at only where a trigger could have changed it: it costs a row of 3 KB as much as
/// writing it.
async fn overwrite(conn: &mut PgConnection, rows: &[Write]) -> Result<u64, sqlx::Error> {
    let plain = concat!(update!(), nobody_interferes!());
    let (ids, envelopes, xmins, ivs) = columns(rows.iter());
    let update = sqlx::query(plain).bind(&ids).bind(&envelopes).bind(&xmins).bind(&ivs);
    let written = update.execute(&mut *conn).await?.rows_affected();
    if written > 0 || rows.is_empty() {
        return Ok(written);
    }
    let looked_at = concat!(
        "WITH written AS (",
        update!(),
        " RETURNING ",
        as_sent!(),
        " AS as_sent) SELECT count(*) FROM written WHERE as_sent"
    );
    let update = sqlx::query_scalar(looked_at).bind(ids).bind(envelopes).bind(xmins).bind(ivs);
    let written: i64 = update.fetch_one(conn).await?;
    Ok(written.cast_unsigned())
}

/// Ends a transaction that has failed, and was not told so yet.
pub async fn roll_back(conn: &mut PgConnection, limit: Duration) -> Result<(), StoreError> {
    script(conn, "roll back", limit, "ROLLBACK").await
}

/// What became of rows that may have been contested.
#[derive(Debug, Default)]
pub struct FreeWrites {
    /// Held by nobody else.
    pub free: Vec<Uuid>,
    /// Of these, written.
    pub written: Vec<Uuid>,
    /// Updated, and yet they do not hold what was sent: a trigger changes it. Roll back.
    pub altered: Vec<Uuid>,
}

async fn overwrite_free(conn: &mut PgConnection, rows: &[&Write]) -> Result<FreeWrites, sqlx::Error> {
    let wanted: Vec<Uuid> = rows.iter().map(|r| r.id).collect();
    let free: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM public.provider_connections WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind(&wanted)
    .fetch_all(&mut *conn)
    .await?;
    let is_free: HashSet<Uuid> = free.iter().copied().collect();
    let (ids, envelopes, xmins, ivs) = columns(rows.iter().copied().filter(|r| is_free.contains(&r.id)));
    let update = concat!(update!(), " RETURNING u.id, ", as_sent!());
    let update = sqlx::query_as::<_, (Uuid, bool)>(update).bind(ids).bind(envelopes).bind(xmins).bind(ivs);
    let (written, altered): (Vec<_>, Vec<_>) =
        update.fetch_all(conn).await?.into_iter().partition(|(_, as_sent)| *as_sent);
    let ids = |rows: Vec<(Uuid, bool)>| rows.into_iter().map(|(id, _)| id).collect();
    Ok(FreeWrites { free, written: ids(written), altered: ids(altered) })
}

type Columns<'a> = (Vec<Uuid>, Vec<&'a [u8]>, Vec<Xid>, Vec<&'a [u8]>);

fn columns<'a>(rows: impl Iterator<Item = &'a Write>) -> Columns<'a> {
    let mut c: Columns<'a> = Default::default();
    for row in rows {
        c.0.push(row.id);
        c.1.push(&row.envelope);
        c.2.push(row.xmin);
        c.3.push(&row.iv);
    }
    c
}

/// The id that ends the next `rows` keys; `None` when fewer are left. An OFFSET of one chunk from the frontier: it
/// reads only the index entries the chunk will read anyway.
pub async fn next_key(
    conn: &mut PgConnection,
    lo: Option<Uuid>,
    rows: i64,
) -> Result<Option<Uuid>, sqlx::Error> {
    let next = match lo {
        None => {
            sqlx::query_scalar("SELECT id FROM public.provider_connections ORDER BY id OFFSET $1 LIMIT 1")
        }
        Some(_) => sqlx::query_scalar(
            "SELECT id FROM public.provider_connections WHERE id > $2 ORDER BY id OFFSET $1 LIMIT 1",
        ),
    };
    let next = next.bind(rows - 1);
    match lo {
        None => next.fetch_optional(conn).await,
        Some(lo) => next.bind(lo).fetch_optional(conn).await,
    }
}

/// Which of these rows no longer exist, or hold no credential.
pub async fn gone(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    sqlx::query_scalar(
        "SELECT u.id FROM unnest($1::uuid[]) u(id) WHERE NOT EXISTS \
         (SELECT FROM public.provider_connections t WHERE t.id = u.id AND t.encrypted_credentials IS NOT NULL)",
    )
    .bind(ids)
    .fetch_all(conn)
    .during("look for deleted connections")
    .await
}
