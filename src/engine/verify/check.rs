//! One row after the other: opened as it comes in, judged once the ledger was asked about a statement's worth of them.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::report::VerifyReport;
use super::verifier::Verifier;
use crate::crypto::{OpenError, Tag};
use crate::rotation::Tid;
use crate::store::ledger::quarantine::{self, Content, Standing};
use crate::store::ledger::tags::{Batch, batches_of};
use crate::store::rows::Read;
use crate::store::{StoreError, Xid, index};

/// What was found so far.
#[derive(Default)]
pub(super) struct Walked {
    pub report: VerifyReport,
    /// Rows seen that were there when the verify began.
    pub old: i64,
    /// Rows that no batch of rekey's wrote last; their tags are found by id.
    pub foreign: Vec<Foreign>,
}

impl Walked {
    pub fn add(&mut self, other: Walked) {
        self.report.add(other.report);
        self.old += other.old;
        self.foreign.extend(other.foreign);
    }
}

/// Which rows are judged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Those that were there when the verify began: the others may have moved, and are read by id.
    Old,
    /// All.
    Any,
}

/// A row that no batch of rekey's wrote last, as far as its version tells.
pub(super) struct Foreign {
    pub id: Uuid,
    /// The tag of what it holds; none where it holds nothing that could be compared.
    now: Option<Tag>,
    /// Written in a transaction of rekey's all the same: by a trigger.
    ours: bool,
    /// Unchanged since the rotation began.
    before: bool,
}

impl Foreign {
    /// Compares it with the latest tag there is of it.
    pub fn settle(&self, tag: Option<Tag>, report: &mut VerifyReport) {
        match (self.now, tag) {
            (None, _) => {}
            (Some(now), Some(tag)) if now == tag => report.identical += 1,
            (Some(_), Some(_)) if self.ours => {
                report.other_bytes += 1;
                report.note("other_bytes", self.id);
            }
            (Some(_), Some(_)) => report.changed_since += 1,
            (Some(_), None) if self.before => report.already_on_key += 1,
            (Some(_), None) => report.inserted_since += 1,
        }
    }
}

/// Why the expected key does not open a row.
#[derive(Clone, Copy)]
enum Why {
    WrongKey,
    NoKey,
    /// There is no other key to try, and the row is as it was when both were tried: whether it is quarantined tells.
    Unknown,
    /// There is no other key to try, and the row was saved since.
    Saved,
}

/// What a row holds.
enum Holds {
    Nothing,
    /// A credential that the expected key opens, and its tag, where tags are compared.
    Opened(Option<Tag>),
    Unopened(Why, Option<Content>),
}

/// Judges rows for one worker.
pub(super) struct RowCheck<'a> {
    v: &'a Verifier,
    age: Age,
    plaintext: Zeroizing<Vec<u8>>,
    /// Rows of the statement under way.
    pending: Vec<(Uuid, Tid, Xid, Holds)>,
    /// What transactions are known to be: batches of rekey's, or not.
    known: HashMap<Xid, Option<Batch>>,
    walked: Walked,
}

/// Rows of batches that are kept from one statement to the next.
const KEPT: usize = 200_000;

impl<'a> RowCheck<'a> {
    pub fn new(v: &'a Verifier, age: Age) -> RowCheck<'a> {
        let plaintext = Zeroizing::new(Vec::new());
        RowCheck { v, age, plaintext, pending: Vec::new(), known: HashMap::new(), walked: Walked::default() }
    }

    /// What was found.
    pub fn done(self) -> Walked {
        self.walked
    }

    /// Whether the row is unchanged since the rotation began.
    fn was_there_before(&self, xmin: Xid) -> bool {
        self.v.first_horizon.is_some_and(|horizon| xmin.precedes(horizon))
    }

    /// Opens a row.
    pub fn row(&mut self, row: Read<'_>) {
        let holds = self.open(&row);
        self.pending.push((row.id, row.tid, row.xmin, holds));
    }

    fn open(&mut self, row: &Read<'_>) -> Holds {
        if row.length.is_none() {
            return Holds::Nothing;
        }
        let keys = &self.v.inputs.keys;
        let Some(envelope) = row.envelope else {
            // Of one that is too large, the server says the version.
            return Holds::Unopened(Why::NoKey, row.damaged.then(|| Content::version(row.xmin)));
        };
        match keys.expected.open_into(envelope, &mut self.plaintext) {
            Ok(()) => {}
            Err(OpenError::NotThisKey) => {
                let why = match &keys.other {
                    Some(other) if other.open_into(envelope, &mut self.plaintext).is_ok() => Why::WrongKey,
                    Some(_) => Why::NoKey,
                    None if self.was_there_before(row.xmin) => Why::Unknown,
                    None => Why::Saved,
                };
                return Holds::Unopened(why, Some(Content::of(envelope)));
            }
            Err(OpenError::Empty | OpenError::TooShort { .. }) => {
                return Holds::Unopened(Why::NoKey, Some(Content::of(envelope)));
            }
        }
        Holds::Opened(keys.tags.as_ref().map(|tags| tags.tag(row.id.as_bytes(), &self.plaintext)))
    }

    /// Asks the ledger who wrote the rows of a statement, and judges them: neither rekey's transactions nor the quarantine
    /// are ever in memory as a whole.
    pub async fn settle(&mut self, conn: &mut PgConnection) -> Result<(), StoreError> {
        self.learn(conn).await?;
        let (mut unopened, mut others) = (Vec::new(), Vec::new());
        {
            let (v, mut met) = (self.v, self.v.met.lock());
            for (id, at, xmin, holds) in std::mem::take(&mut self.pending) {
                let batch = self.known.get(&xmin).and_then(Option::as_ref);
                let old = xmin.precedes(v.began.horizon) || batch.is_some() && v.began.saw(xmin);
                if self.age == Age::Old && !old {
                    continue;
                }
                // What rekey wrote it found by id.
                if self.age == Age::Old && batch.is_none() {
                    others.push(at);
                }
                self.walked.report.rows += 1;
                self.walked.old += i64::from(old);
                let tag = batch.and_then(|batch| {
                    let (at, tag) = *batch.rows.get(&id)?;
                    met.meet(batch.number, at, batch.rows.len());
                    Some(tag)
                });
                let before = self.was_there_before(xmin);
                let now = match holds {
                    Holds::Opened(Some(now)) => Some(now),
                    Holds::Opened(None) => continue,
                    Holds::Nothing => {
                        self.walked.report.null += 1;
                        continue;
                    }
                    Holds::Unopened(why, content) => {
                        unopened.push((id, why, content));
                        continue;
                    }
                };
                let row = Foreign { id, now, ours: batch.is_some(), before };
                match tag {
                    Some(tag) => row.settle(Some(tag), &mut self.walked.report),
                    None if before => row.settle(None, &mut self.walked.report),
                    None => self.walked.foreign.push(row),
                }
            }
        }
        if !others.is_empty() {
            self.unknown(index::unknown(conn, &others).await?);
        }
        self.look_up_unopened(conn, unopened).await
    }

    /// Notes rows that the index on the id does not lead to.
    pub fn unknown(&mut self, rows: Vec<Uuid>) {
        let report = &mut self.walked.report;
        report.unseen += rows.len() as i64;
        rows.into_iter().for_each(|id| report.note("unseen", id));
    }

    /// Reads the batches that wrote these rows, unless they are known.
    async fn learn(&mut self, conn: &mut PgConnection) -> Result<(), StoreError> {
        let wrote: HashSet<Xid> = self.pending.iter().map(|(_, _, xmin, _)| *xmin).collect();
        let kept: usize = self.known.values().map(|batch| batch.as_ref().map_or(1, |b| b.rows.len())).sum();
        if kept > KEPT {
            self.known.retain(|xmin, _| wrote.contains(xmin));
        }
        let asked: HashSet<Xid> = wrote
            .into_iter()
            .filter(|xmin| !self.known.contains_key(xmin) && !self.was_there_before(*xmin))
            .collect();
        // A few at a time: each is some 30 kB.
        for part in asked.iter().copied().collect::<Vec<_>>().chunks(256) {
            let part: HashSet<Xid> = part.iter().copied().collect();
            let found = batches_of(conn, self.v.inputs.rotation, &part).await?;
            self.known.extend(part.into_iter().map(|xmin| (xmin, None)));
            self.known.extend(found.into_iter().map(|(xmin, batch)| (xmin, Some(batch))));
        }
        Ok(())
    }

    /// Asks whether rows that the expected key does not open are quarantined, and how.
    async fn look_up_unopened(
        &mut self,
        conn: &mut PgConnection,
        unopened: Vec<(Uuid, Why, Option<Content>)>,
    ) -> Result<(), StoreError> {
        if unopened.is_empty() {
            return Ok(());
        }
        let rows = unopened.iter().map(|(id, _, content)| (*id, content.clone()));
        let quarantined = quarantine::among(conn, self.v.inputs.rotation, rows).await?;
        let report = &mut self.walked.report;
        for (id, why, _) in unopened {
            match (quarantined.get(&id), why) {
                // The acceptance covers undecryptable contents, not a credential that was saved since.
                (Some(Standing::AcceptedAsItIs), _)
                | (Some(Standing::Accepted), Why::NoKey | Why::Unknown) => {
                    report.accepted += 1;
                }
                (_, Why::NoKey) | (Some(Standing::Open), Why::Unknown) | (Some(_), Why::Saved) => {
                    report.unreadable += 1;
                    report.note("unreadable", id);
                }
                (_, Why::WrongKey) | (None, Why::Unknown | Why::Saved) => {
                    report.wrong_key += 1;
                    report.note("wrong_key", id);
                }
            }
        }
        Ok(())
    }
}
