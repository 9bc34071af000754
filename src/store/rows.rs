//! The application's rows: reading them in short statements, and the one UPDATE that moves them.
//!
//! No transaction is held open while reading: an open snapshot stops the pruning that waves live on.

mod stretch;

pub use stretch::Stretch;

use std::collections::HashSet;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::error::StoreError;
use super::ledger::Lease;
use super::pg_types::Xid;
use super::statement::{Column, Query, Row, binds, script, statements};
use crate::crypto::Tag;
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
    /// Bytes it takes where it is stored, with its header if it is stored in the row; see [`Read::on_page`].
    pub stored: Option<i32>,
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

    /// Bytes that the credential takes on its heap page. A value that was not compressed is as long as what is stored of
    /// it only out of line, where it has no header; in the row is a pointer of 18 bytes then (src/include/varatt.h).
    pub fn on_page(&self) -> u16 {
        const POINTER: u16 = 18;
        match self.stored {
            Some(stored) if self.length != Some(stored) => u16::try_from(stored).unwrap_or(POINTER),
            _ => POINTER,
        }
    }
}

/// A row ready to be written: the version that was decrypted, and what replaces it.
pub struct Write {
    /// Primary key.
    pub id: Uuid,
    /// Where it was read; deals it into a wave.
    pub tid: Tid,
    /// Bytes of its credential on its page; deals it too.
    pub on_page: u16,
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
    fn on_page(&self) -> usize {
        usize::from(self.on_page)
    }
}

/// The columns of [`Read`], of the table as `t`; values longer than `$max` bytes are left out.
macro_rules! read_columns {
    ($max:literal) => {
        concat!(
            "t.id, t.ctid, t.xmin, octet_length(t.encrypted_credentials), pg_column_size(t.encrypted_credentials), \
             CASE WHEN octet_length(t.encrypted_credentials) <= ",
            $max,
            " THEN t.encrypted_credentials END"
        )
    };
}
pub(super) use read_columns;

impl Row for Read<'static> {
    type Of<'r> = Read<'r>;
    fn columns() -> Vec<Column> {
        <(Uuid, Tid, Xid, Option<i32>, Option<i32>, Option<Vec<u8>>)>::columns()
    }
    fn decode(row: &PgRow) -> Result<Read<'_>, sqlx::Error> {
        Ok(Read {
            id: row.try_get(0)?,
            tid: row.try_get(1)?,
            xmin: row.try_get(2)?,
            length: row.try_get(3)?,
            stored: row.try_get(4)?,
            envelope: row.try_get(5)?,
            damaged: false,
        })
    }
}

// $1: the longest value to be carried.
macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", read_columns!("$1"), " FROM public.provider_connections t WHERE ", $rest)
    };
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

statements! {
    fn read_from_start(max: i32, hi: Uuid, limit: i64) -> Query<Read<'static>> during READ:
        select!("id <= $2 ORDER BY id LIMIT $3");

    fn read_after(max: i32, lo: Uuid, hi: Uuid, limit: i64) -> Query<Read<'static>> during READ:
        select!("id > $2 AND id <= $3 ORDER BY id LIMIT $4");

    // No ORDER BY: a TID range scan has its order without being asked, and the planner would not know. It is checked as
    // rows come in.
    fn read_places(max: i32, after: Tid, before: Tid, limit: i64) -> Query<Read<'static>> during READ:
        select!("ctid > $2 AND ctid < $3 LIMIT $4");

    fn read_ids(max: i32, ids: &[Uuid]) -> Query<Read<'static>> during READ:
        select!("id = ANY($2)");

    fn read_at(max: i32, places: &[Tid]) -> Query<Read<'static>> during READ:
        select!("ctid = ANY($2)");

    // A trigger that runs before the row is written; those behind foreign keys are internal, and run after. Bits of tgtype:
    // 1 for each row, 2 before, 16 on UPDATE (src/include/catalog/pg_trigger.h). Created by anybody meanwhile, it waits.
    fn update(news: &News<'_>) -> Query<()> during "write a batch":
        concat!(
            update!(),
            " AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'public.provider_connections'::pg_catalog.regclass \
             AND NOT tgisinternal AND tgtype & 19 = 19)"
        );

    fn update_and_look(news: &News<'_>) -> Query<i64> during "write a batch":
        concat!(
            "WITH written AS (", update!(), " RETURNING ", as_sent!(), " AS as_sent) SELECT count(*) FROM written WHERE as_sent"
        );

    fn lock_free(ids: &[Uuid]) -> Query<Uuid> during "write contested rows":
        "SELECT id FROM public.provider_connections WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED";

    fn update_each(news: &News<'_>) -> Query<(Uuid, bool)> during "write contested rows":
        concat!(update!(), " RETURNING u.id, ", as_sent!());

    fn first_key(skipped: i64) -> Optional<Uuid> during "divide the table":
        "SELECT id FROM public.provider_connections ORDER BY id OFFSET $1 LIMIT 1";

    fn key_after(skipped: i64, lo: Uuid) -> Optional<Uuid> during "divide the table":
        "SELECT id FROM public.provider_connections WHERE id > $2 ORDER BY id OFFSET $1 LIMIT 1";

    /// Which of these rows no longer exist, or hold no credential.
    pub fn gone(ids: &[Uuid]) -> All<Uuid> during "look for deleted connections":
        "SELECT u.id FROM unnest($1::uuid[]) u(id) WHERE NOT EXISTS \
         (SELECT FROM public.provider_connections t WHERE t.id = u.id AND t.encrypted_credentials IS NOT NULL)";
}

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
            return Err(StoreError::OutOfOrder);
        }
        *self = Seen { rows: self.rows + 1, last: Some((row.id, row.tid)) };
        Ok(())
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
        rest.push((row.id, row.tid, row.xmin, row.length, row.stored));
        // One that is deleted before its turn comes was there all the same.
        seen.note(stretch, &row)
    });
    bare.await.map_err(Failed::into)?;
    for (id, tid, xmin, length, stored) in rest.into_iter().filter(|row| !handed_on.contains(&row.0)) {
        let alone = stretch.some(&[(id, tid)], stretch.max());
        match hand_on(conn, alone.query(alone.max()), &mut each).await {
            Err(Failed::Server(error)) if error.is_damage() => {
                each(Read { id, tid, xmin, length, stored, envelope: None, damaged: true })?;
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

impl<E> From<StoreError> for Failed<E> {
    fn from(error: StoreError) -> Self {
        Failed::Server(error)
    }
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
    query: Query<Read<'static>>,
    mut each: impl FnMut(Read<'_>) -> Result<(), E>,
) -> Result<(), Failed<E>> {
    query.each(conn, |row| each(row).map_err(Failed::Row)).await
}

/// Writes rows that still hold the very version that was decrypted; returns how many did and now hold what was sent.
/// Where that is not all of them, roll back. The transaction's checkpoint, under the same lease, decides whether they stay.
pub async fn write(conn: &mut PgConnection, _right: &Lease, rows: &[Write]) -> Result<u64, StoreError> {
    overwrite(conn, rows, "write a batch").await
}

/// The same for contested rows: writes only rows that no other session holds.
pub async fn write_free(
    conn: &mut PgConnection,
    _right: &Lease,
    rows: &[&Write],
) -> Result<FreeWrites, StoreError> {
    overwrite_free(conn, rows, "write contested rows").await
}

/// What now stands there is looked at only where a trigger could have changed it: it costs a row of 3 KB as much as
/// writing it.
pub(super) async fn overwrite(
    conn: &mut PgConnection,
    rows: &[Write],
    op: &'static str,
) -> Result<u64, StoreError> {
    let news = News::of(rows.iter());
    let written = update(&news).named(op).affected(conn).await?;
    if written > 0 || rows.is_empty() {
        return Ok(written);
    }
    update_and_look(&news).named(op).one(conn).await.map(i64::cast_unsigned)
}

/// What became of rows that may have been contested.
#[derive(Debug, Default)]
pub struct FreeWrites {
    /// Rows that no other session holds.
    pub free: Vec<Uuid>,
    /// Of these, written.
    pub written: Vec<Uuid>,
    /// Updated, and yet they do not hold what was sent: a trigger changes it. Roll back.
    pub altered: Vec<Uuid>,
}

pub(super) async fn overwrite_free(
    conn: &mut PgConnection,
    rows: &[&Write],
    op: &'static str,
) -> Result<FreeWrites, StoreError> {
    let wanted: Vec<Uuid> = rows.iter().map(|r| r.id).collect();
    let free = lock_free(&wanted).named(op).all(conn).await?;
    if free.is_empty() {
        return Ok(FreeWrites::default());
    }
    let is_free: HashSet<Uuid> = free.iter().copied().collect();
    let news = News::of(rows.iter().copied().filter(|r| is_free.contains(&r.id)));
    let (written, altered): (Vec<_>, Vec<_>) =
        update_each(&news).named(op).all(conn).await?.into_iter().partition(|(_, as_sent)| *as_sent);
    let ids = |rows: Vec<(Uuid, bool)>| rows.into_iter().map(|(id, _)| id).collect();
    Ok(FreeWrites { free, written: ids(written), altered: ids(altered) })
}

/// What replaces which versions, column by column.
#[derive(Default)]
struct News<'a> {
    ids: Vec<Uuid>,
    envelopes: Vec<&'a [u8]>,
    xmins: Vec<Xid>,
    ivs: Vec<&'a [u8]>,
}

impl<'a> News<'a> {
    fn of(rows: impl Iterator<Item = &'a Write>) -> Self {
        let mut news = News::default();
        for row in rows {
            news.ids.push(row.id);
            news.envelopes.push(&row.envelope);
            news.xmins.push(row.xmin);
            news.ivs.push(&row.iv);
        }
        news
    }
}

binds!(News<'_> { ids, envelopes, xmins, ivs });

/// The id that ends the next `rows` keys; `None` when fewer are left. An OFFSET of one chunk from the frontier: it
/// reads only the index entries the chunk will read anyway.
pub async fn next_key(
    conn: &mut PgConnection,
    lo: Option<Uuid>,
    rows: i64,
) -> Result<Option<Uuid>, StoreError> {
    match lo {
        None => first_key(conn, rows - 1).await,
        Some(lo) => key_after(conn, rows - 1, lo).await,
    }
}

/// Ends a transaction that has failed, and was not told so yet.
pub async fn roll_back(conn: &mut PgConnection, limit: Duration) -> Result<(), StoreError> {
    script(conn, "roll back", limit, "ROLLBACK").await
}
