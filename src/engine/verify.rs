//! Opens every row with the one key it should be on, and compares its bytes with the tag taken before it was moved.
//!
//! Reads without the engine's chunk bounds, in key order and short statements, and is held against `count(*)`:
//! every row that existed before and did not change must have been seen.

mod report;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use sqlx::PgConnection;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;
use zeroize::Zeroizing;

pub use report::{CleanVerify, VerifyReport};

use super::Stop;
use super::fault::Fault;
use super::row::read_whole;
use crate::crypto::{Cipher, OpenError, Tag, TagKey};
use crate::error::{Error, Exit};
use crate::store::counting::{self, Began};
use crate::store::ledger::chunk;
use crate::store::ledger::proof;
use crate::store::ledger::proof::Tagged;
use crate::store::ledger::quarantine::{self, Content, Standing};
use crate::store::rows::{self, MAX_ROW_BYTES, Stretch, next_key};
use crate::store::{Backend, Connector, FullXid, Purpose, StoreError, Xid, connect, with_answer_limit};

/// Rows one worker holds tags for at a time: at most, and at least where the table is small.
const PART_ROWS: std::ops::RangeInclusive<i64> = 20_000..=500_000;
const READ: i64 = 10_000;

/// What rows are opened with.
pub struct Keys {
    /// The key rows should be on. It alone decides.
    pub expected: Cipher,
    /// The other one, if it could be had: it tells a row on the wrong key from an unreadable one.
    pub other: Option<Cipher>,
    /// The tags' key, derived from the new key.
    pub tags: Option<TagKey>,
}

struct Verifier {
    connector: Connector,
    keys: Keys,
    rotation: Uuid,
    /// H of the first pass: untagged rows older than it were there before.
    first_horizon: Option<Xid>,
    /// Taken when the verify began.
    horizon: Xid,
    part_rows: i64,
    frontier: Mutex<(Option<Uuid>, bool)>,
}

/// Verifies the whole table. That no row is left of those that were moved is an error, unless it `may_be_empty`.
pub async fn verify(
    connector: Connector,
    keys: Keys,
    rotation: Uuid,
    first_horizon: Option<FullXid>,
    workers: usize,
    may_be_empty: bool,
    stop: Stop,
) -> Result<VerifyReport, Error> {
    let started = Instant::now();
    let mut conn = connector.connect(Purpose::ReadOnly).await?;
    let (began, tagged) = loop {
        match begin(&mut conn, rotation).await {
            Ok(begun) => break begun,
            Err(e) => connector.again(Purpose::ReadOnly, &mut conn, started, e).await?,
        }
    };
    let shared = Arc::new(Verifier {
        connector,
        keys,
        rotation,
        first_horizon: first_horizon.map(FullXid::short),
        horizon: began.horizon,
        part_rows: (tagged / (4 * workers as i64)).clamp(*PART_ROWS.start(), *PART_ROWS.end()),
        frontier: Mutex::new((None, false)),
    });
    let mut tasks = JoinSet::new();
    let limit = shared.connector.answer_limit();
    for _ in 0..workers {
        let (working, mut stop) = (work(shared.clone(), stop.clone()), stop.clone());
        tasks.spawn(with_answer_limit(limit, async move {
            tokio::select! {
                done = working => done,
                // What it found so far is not told.
                () = stop.wait() => Ok(Default::default()),
            }
        }));
    }
    let mut report = VerifyReport {
        bytes_compared: shared.keys.tags.is_some(),
        both_keys: shared.keys.other.is_some(),
        ..Default::default()
    };
    let mut old_seen = 0;
    while let Some(done) = tasks.join_next().await {
        let (part, old) =
            done.map_err(|e| Error::new(Exit::Internal, format!("a worker panicked: {e}")))??;
        report.add(part);
        old_seen += old;
    }
    if stop.is_set() {
        return Err(given_up());
    }
    if report.rows == 0 && tagged > 0 && !may_be_empty {
        return Err(Error::new(
            Exit::VerifyFailed,
            format!("no row is visible in provider_connections, and this rotation moved {tagged}"),
        )
        .hint(
            "look whether DATABASE_URL names the right database, and who emptied the table; promote goes on with \
             --allow empty-table",
        ));
    }
    // Rows that are as old as this verify were there all along: each must have been seen. What others write meanwhile
    // may make up for one that was not, but not for one that the index does not know.
    let mut since = None;
    let (unchanged, unindexed) = loop {
        match count(&shared.connector, &mut conn, &began, stop.clone()).await {
            Ok(Some(rows)) => break rows,
            Ok(None) => return Err(given_up()),
            // From the first failure on: the statement itself may take minutes.
            Err(e) => {
                let since = *since.get_or_insert_with(Instant::now);
                shared.connector.again(Purpose::ReadOnly, &mut conn, since, e).await?;
            }
        }
    };
    report.unseen = (unchanged - old_seen).max(unindexed).max(0);
    report.clean =
        report.wrong_key == 0 && report.unreadable == 0 && report.other_bytes == 0 && report.unseen == 0;
    report.seconds = started.elapsed().as_secs_f64();
    connect::close(conn).await;
    Ok(report)
}

/// The beginning, now, and about how many rows have a tag.
async fn begin(conn: &mut PgConnection, rotation: Uuid) -> Result<(Began, i64), StoreError> {
    Ok((counting::begin(conn).await?, chunk::count_tagged(conn, rotation).await?))
}

fn given_up() -> Error {
    Error::new(Exit::Signalled, "stopped by a signal before every row was verified")
        .hint("run `rekey verify` again")
}

/// Rows older than the horizon, and rows that the index on their id does not lead to. `None` where that was given up.
async fn count(
    connector: &Connector,
    conn: &mut PgConnection,
    began: &Began,
    mut stop: Stop,
) -> Result<Option<(i64, i64)>, StoreError> {
    let backend = Backend::of(conn).await?;
    tokio::select! {
        done = backend.outlives(connector, counting::OP, counting::count(conn, began)) => done.map(Some),
        () = stop.wait() => {
            backend.cancel(connector).await;
            Ok(None)
        }
    }
}

async fn work(shared: Arc<Verifier>, stop: Stop) -> Result<(VerifyReport, i64), Error> {
    let mut conn = shared.connector.connect(Purpose::ReadOnly).await?;
    let (mut report, mut old) = (VerifyReport::default(), 0);
    loop {
        let (lo, hi) = {
            let mut frontier = shared.frontier.lock().await;
            if frontier.1 || stop.is_set() {
                break;
            }
            let (lo, since) = (frontier.0, Instant::now());
            let hi = loop {
                match next_key(&mut conn, lo, shared.part_rows).await {
                    Ok(hi) => break hi,
                    Err(e) => shared.connector.again(Purpose::ReadOnly, &mut conn, since, e).await?,
                }
            };
            *frontier = (hi, hi.is_none());
            (lo, hi)
        };
        let mut since = None;
        loop {
            match part(&shared, &mut conn, lo, hi, &stop).await {
                Ok((more, seen)) => {
                    report.add(more);
                    old += seen;
                    break;
                }
                Err(Fault::Store(e)) => {
                    let since = *since.get_or_insert_with(Instant::now);
                    shared.connector.again(Purpose::ReadOnly, &mut conn, since, e).await?;
                }
                Err(Fault::Fatal(e)) => return Err(e),
                Err(Fault::LeaseLost | Fault::Yield) => break,
            }
        }
    }
    connect::close(conn).await;
    Ok((report, old))
}

/// One range: its tags, then its rows, both in key order.
async fn part(
    shared: &Verifier,
    conn: &mut PgConnection,
    lo: Option<Uuid>,
    hi: Option<Uuid>,
    stop: &Stop,
) -> Result<(VerifyReport, i64), Fault> {
    let tags = match &shared.keys.tags {
        Some(_) => proof::tags_in(conn, shared.rotation, lo, hi).await?,
        None => Vec::new(),
    };
    let mut check = RowCheck {
        shared,
        seen: vec![false; tags.len()],
        tags,
        at: 0,
        plaintext: Zeroizing::new(Vec::new()),
        unopened: Vec::new(),
        differing: Vec::new(),
        report: VerifyReport::default(),
        old: 0,
    };
    let mut after = lo;
    let hi = hi.unwrap_or(Uuid::max());
    loop {
        if stop.is_set() {
            return Err(Fault::Yield);
        }
        let stretch = match after {
            None => Stretch::FromStart { hi, limit: READ },
            Some(lo) => Stretch::After { lo, hi, limit: READ },
        };
        let seen = read_whole(conn, &stretch, MAX_ROW_BYTES as usize, |row| {
            check.row(row);
            Ok::<(), Fault>(())
        })
        .await?;
        after = seen.last.map(|(id, _)| id).or(after);
        check.settle(conn).await?;
        if seen.rows < READ {
            break;
        }
    }
    check.report.deleted_since = check.seen.iter().filter(|seen| !**seen).count() as i64;
    Ok((check.report, check.old))
}

struct RowCheck<'a> {
    shared: &'a Verifier,
    tags: Vec<Tagged>,
    seen: Vec<bool>,
    /// Rows mostly come in key order: where the last one's tag was.
    at: usize,
    plaintext: Zeroizing<Vec<u8>>,
    /// Rows the expected key does not open, why, and what each holds; until the ledger has been asked about them.
    unopened: Vec<(Uuid, Why, Option<Content>)>,
    /// Rows whose tag differs, who wrote them, and the tag of what they hold; until the ledger has been asked about them.
    differing: Vec<(Uuid, Xid, Tag)>,
    report: VerifyReport,
    old: i64,
}

/// Why the expected key does not open a row.
#[derive(Clone, Copy)]
enum Why {
    WrongKey,
    NoKey,
    /// There is no other key to try, and the row is as it was when both were tried: whether it is quarantined tells.
    Unknown,
    /// There is no other key to try, and somebody has saved the row since.
    Saved,
}

impl RowCheck<'_> {
    fn tag(&mut self, id: &[u8; 16]) -> Option<Tag> {
        let at = match self.tags.get(self.at) {
            Some((next, _)) if next == id => self.at,
            _ => self.tags.binary_search_by(|(t, _)| t.cmp(id)).ok()?,
        };
        self.at = at + 1;
        self.seen[at] = true;
        Some(self.tags[at].1)
    }

    /// Nobody has written the row since the rotation began.
    fn was_there_before(&self, row: &rows::Read<'_>) -> bool {
        self.shared.first_horizon.is_some_and(|horizon| row.xmin.precedes(horizon))
    }

    fn row(&mut self, row: rows::Read<'_>) {
        let shared = self.shared;
        self.report.rows += 1;
        self.old += i64::from(row.xmin.precedes(shared.horizon));
        let tag = self.tag(row.id.as_bytes());
        if row.length.is_none() {
            self.report.null += 1;
            return;
        }
        let Some(envelope) = row.envelope else {
            // One that is too large is digested by the server.
            let content = row.damaged.then(|| Content::version(row.xmin));
            return self.unopened.push((row.id, Why::NoKey, content));
        };
        match shared.keys.expected.open_into(envelope, &mut self.plaintext) {
            Ok(()) => {}
            Err(OpenError::NotThisKey) => {
                let why = match &shared.keys.other {
                    Some(other) if other.open_into(envelope, &mut self.plaintext).is_ok() => Why::WrongKey,
                    Some(_) => Why::NoKey,
                    None if self.was_there_before(&row) => Why::Unknown,
                    None => Why::Saved,
                };
                return self.unopened.push((row.id, why, Some(Content::of(envelope))));
            }
            Err(OpenError::Empty | OpenError::TooShort { .. }) => {
                return self.unopened.push((row.id, Why::NoKey, Some(Content::of(envelope))));
            }
        }
        let Some(tags) = &shared.keys.tags else { return };
        match tag {
            Some(tag) => match tags.tag(row.id.as_bytes(), &self.plaintext) {
                now if now == tag => self.report.identical += 1,
                now => self.differing.push((row.id, row.xmin, now)),
            },
            None if self.was_there_before(&row) => self.report.already_on_key += 1,
            None => self.report.inserted_since += 1,
        }
    }

    /// Asks the ledger about the rows that were not plainly in order, a stretch at a time: neither our transactions
    /// nor the quarantine are ever in memory as a whole.
    async fn settle(&mut self, conn: &mut PgConnection) -> Result<(), StoreError> {
        let rotation = self.shared.rotation;
        let unopened = std::mem::take(&mut self.unopened);
        if !unopened.is_empty() {
            let rows = unopened.iter().map(|(id, _, content)| (*id, content.clone()));
            let quarantined = quarantine::among(conn, rotation, rows).await?;
            for (id, why, _) in unopened {
                match (quarantined.get(&id), why) {
                    // What was accepted is that no key opens it: a credential that somebody saved since is not.
                    (Some(Standing::AcceptedAsItIs), _)
                    | (Some(Standing::Accepted), Why::NoKey | Why::Unknown) => {
                        self.report.accepted += 1;
                    }
                    (_, Why::NoKey) | (Some(Standing::Open), Why::Unknown) | (Some(_), Why::Saved) => {
                        self.report.unreadable += 1;
                        self.report.note("unreadable", id);
                    }
                    (_, Why::WrongKey) | (None, Why::Unknown | Why::Saved) => {
                        self.report.wrong_key += 1;
                        self.report.note("wrong_key", id);
                    }
                }
            }
        }
        let mut differing = std::mem::take(&mut self.differing);
        differing.sort_unstable_by_key(|(_, xmin, _)| xmin.0);
        // A few batches at a time: their tags are in memory together.
        for part in differing.chunk_by(|a, b| a.1.0 == b.1.0).collect::<Vec<_>>().chunks(256) {
            let xmins: HashSet<Xid> = part.iter().map(|rows| rows[0].1).collect();
            let written = proof::tags_of(conn, rotation, None, &xmins).await?;
            let ours: HashSet<Xid> = written.keys().map(|(xmin, _)| *xmin).collect();
            for (id, xmin, now) in part.iter().flat_map(|rows| rows.iter()) {
                if written.get(&(*xmin, *id)) == Some(now) {
                    // Moved again since this part's tags were read: somebody saved it, and a sweep or a rollback came by.
                    self.report.identical += 1;
                } else if ours.contains(xmin) {
                    self.report.other_bytes += 1;
                    self.report.note("other_bytes", *id);
                } else {
                    self.report.changed_since += 1;
                }
            }
        }
        Ok(())
    }
}
