//! The closing proof: one statement over one snapshot that shows no row is left on the source key.
//!
//! Rows older than H were seen by the pass, rows of our own batches are on the target key; what the statement
//! returns is exactly what anyone else wrote since. Each is opened. None on the source key is an exact statement
//! about that instant. Beside user triggers, which may write in our batches too, the statement returns our own rows as well.
//! Quarantined rows are looked at again as well: they may have been repaired, or be gone.

use std::collections::HashSet;

use futures::TryStreamExt;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::SharedJob;
use super::fault::Fault;
use super::reader::{Rewrapped, by_bytes, rewrap};
use crate::crypto::{IvSource, Rewrapper, Scratch};
use crate::fault_point::Side;
use crate::rotation::Counters;
use crate::store::ledger::chunk::{self, Checkpoint};
use crate::store::ledger::pass::{self, PassKind, Verdict};
use crate::store::ledger::quarantine::{self, Entry, Finding};
use crate::store::ledger::{Addressing, Lease, Pass};
use crate::store::rows::{self, INLINE_BYTES, MAX_ROW_BYTES, Stretch};
use crate::store::{During, Statement, StoreError, pass_point};

/// More stragglers than this are walked to, not listed.
const MAX_LISTED: usize = 10_000;

/// What a row must be to be looked at.
macro_rules! proof {
    ($but:literal) => {
        concat!(
            "SELECT * FROM (SELECT t.id, t.ctid, t.xmin, octet_length(t.encrypted_credentials), \
             CASE WHEN octet_length(t.encrypted_credentials) <= $2 THEN t.encrypted_credentials END \
             FROM public.provider_connections t WHERE t.encrypted_credentials IS NOT NULL",
            $but,
            " OFFSET 0) s WHERE age(s.xmin) <= age($1)"
        )
    };
}

/// The fence (OFFSET 0) keeps `age()` above the join: it is not parallel-safe, and below it would keep the scan on one core.
/// A proof row vouches only for what the very transaction that wrote it wrote: in a ledger that was restored from a dump
/// its recorded id is another database's, and may be an application's here.
const PROOF: &str = proof!(
    " AND NOT EXISTS (SELECT FROM rekey.proofs p WHERE p.rotation = $3 AND p.direction = $4 AND p.xid::xid = t.xmin \
     AND p.xmin = t.xmin)"
);

/// Where a trigger of somebody's has a say, our transactions may have written other rows than ours, and other bytes:
/// every row they touched is opened as well.
const PROOF_BESIDE_TRIGGERS: &str = proof!("");
const HAS_TRIGGERS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = \
     'public.provider_connections'::regclass AND NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 16 <> 0 \
     AND (cardinality(tgattr::int2[]) = 0 OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = tgrelid \
     AND a.attname = 'encrypted_credentials' AND a.attnum = ANY (tgattr::int2[]))))";

/// The proof may be long, and should not be: next to nothing comes back, so sharing the scan costs nothing.
const PROOF_SETTINGS: &str =
    "SET LOCAL statement_timeout = 0; SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0";

/// Sorts rows by what is to be done about them.
#[derive(Default)]
struct Sorted {
    stragglers: Vec<Uuid>,
    bad: Vec<Finding>,
    /// Rows on the target key; not kept by the proof itself, which may meet any number of them.
    fine: Option<Vec<Uuid>>,
    too_many: bool,
}

/// Carries out the closing proof under the lease of its chunk, and concludes the pass.
pub async fn prove(job: &SharedJob, conn: &mut PgConnection, lease: &Lease) -> Result<(), Fault> {
    let pass = &lease.pass;
    let (mut scratch, mut ivs) = (Scratch::default(), IvSource::new());
    let mut sorted = Sorted::default();

    let next_horizon: String = sqlx::query_scalar("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        .fetch_one(&mut *conn)
        .during("take the horizon")
        .await?;
    let next_horizon: u64 = next_horizon.parse().unwrap_or(pass.horizon);

    // Where a value is damaged, once more without any: they are read by themselves then.
    let mut large = Vec::new();
    let mut max = INLINE_BYTES;
    let filenode = loop {
        let proven = statement(conn, pass, max, |row| {
            if row.envelope.is_none() && row.length.is_some_and(|l| l > max && l <= MAX_ROW_BYTES) {
                large.push((row.id, row.length.unwrap_or_default() as usize));
                Ok(())
            } else {
                sorted.sort(&job.rewrapper, &mut scratch, &mut ivs, row)
            }
        });
        match proven.await {
            Err(Fault::Store(error)) if error.is_damage() && max == INLINE_BYTES => {
                (sorted, max) = (Sorted::default(), -1);
                large.clear();
            }
            filenode => break filenode?,
        }
    };

    // What the server rejected is tried once by each run: this proof must not send it round in circles.
    let tried = pass.kind == PassKind::Full || pass.sweeps > 0;
    let written_since: HashSet<Uuid> =
        sorted.stragglers.iter().copied().chain(large.iter().map(|(id, _)| *id)).collect();
    for group in by_bytes(large, MAX_ROW_BYTES as usize) {
        let stretch = Stretch::Ids { ids: group, max: MAX_ROW_BYTES };
        rows::read(conn, &stretch, |row| sorted.sort(&job.rewrapper, &mut scratch, &mut ivs, row)).await?;
    }
    let mut settled = Vec::new();
    let mut after = None;
    loop {
        let page = quarantine::page(conn, pass.rotation, after).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        let suspects: Vec<Uuid> = page.iter().map(|e| e.id).collect();
        settled.extend(rows::gone(conn, &suspects).await?);
        let mut again = Sorted { fine: Some(Vec::new()), ..Sorted::default() };
        let sizes = page.iter().map(|e| (e.id, e.length.unwrap_or_default().max(512) as usize)).collect();
        for group in by_bytes(sizes, MAX_ROW_BYTES as usize) {
            let stretch = Stretch::Ids { ids: group, max: MAX_ROW_BYTES };
            rows::read(conn, &stretch, |row| again.sort(&job.rewrapper, &mut scratch, &mut ivs, row)).await?;
        }
        let spent = |e: &Entry| tried && e.reason == "rejected" && !written_since.contains(&e.id);
        settled.extend(sorted.take_up(&page, again, spent));
    }

    let by_blocks = pass.addressing == Addressing::Blocks && pass.kind == PassKind::Full;
    let rewritten = by_blocks && filenode != pass.filenode;
    let verdict = if !pass::horizon_is_usable(conn, pass).await? {
        tracing::warn!("the horizon of this pass is too old, or of another server: walking the table again");
        Verdict::WalkAgain(job.settings.walk)
    } else if rewritten {
        tracing::warn!(
            "the table was rewritten (VACUUM FULL, CLUSTER, a restore) under this pass: walking it again"
        );
        Verdict::WalkAgain(job.settings.walk)
    } else if sorted.stragglers.is_empty() {
        Verdict::Clean
    } else if pass.sweeps >= job.settings.max_sweeps {
        Verdict::Unsettled
    } else if sorted.too_many {
        Verdict::WalkAgain(job.settings.walk)
    } else {
        sorted.stragglers.sort_unstable();
        sorted.stragglers.dedup();
        Verdict::Stragglers(sorted.stragglers)
    };
    conclude(job, conn, lease, next_horizon, &verdict, &sorted.bad, &settled).await
}

/// Rotation, pass, chunk, audit chain: locked in this order, as fencing does.
async fn conclude(
    job: &SharedJob,
    conn: &mut PgConnection,
    lease: &Lease,
    next_horizon: u64,
    verdict: &Verdict,
    bad: &[Finding],
    settled: &[Uuid],
) -> Result<(), Fault> {
    const OP: &str = "conclude the pass";
    let pass = &lease.pass;
    let mut tx = conn.begin().during(OP).await?;
    // Nothing of the application's is locked here, and what was found took long to find.
    sqlx::query("SET LOCAL lock_timeout = '10s'").execute(&mut *tx).during(OP).await?;
    sqlx::query("SELECT FROM rekey.rotations WHERE id = $1 FOR NO KEY UPDATE")
        .bind(pass.rotation)
        .execute(&mut *tx)
        .during(OP)
        .await?;
    sqlx::query("SELECT FROM rekey.passes WHERE rotation = $1 AND pass = $2 FOR NO KEY UPDATE")
        .bind(pass.rotation)
        .bind(pass.number)
        .execute(&mut *tx)
        .during(OP)
        .await?;
    let done = Checkpoint { add: Counters::default(), ids: &[], tags: &[], done: true };
    if chunk::checkpoint(&mut tx, lease, &done).during(OP).await?.is_none() {
        tx.rollback().during("roll back").await?;
        return Err(Fault::LeaseLost);
    }
    quarantine::remove(&mut tx, pass.rotation, settled).await?;
    quarantine::add(&mut tx, pass.rotation, bad, &job.actor).await?;
    pass::conclude(&mut tx, pass, next_horizon, verdict, &job.actor).await?;
    tx.commit().during(OP).await.map_err(StoreError::into)
}

/// Carries out the statement, handing each row on that it returns; values longer than `max` bytes are left out. Returns
/// the file that the heap is in.
async fn statement(
    conn: &mut PgConnection,
    pass: &Pass,
    max: i32,
    mut each: impl FnMut(rows::Read<'_>) -> Result<(), Fault>,
) -> Result<i64, Fault> {
    const OP: &str = "prove that none is left";
    let mut tx = conn.begin().during("begin the closing proof").await?;
    sqlx::raw_sql(PROOF_SETTINGS).execute(&mut *tx).during("begin the closing proof").await?;
    let triggers: bool =
        sqlx::query_scalar(HAS_TRIGGERS).fetch_one(&mut *tx).during("look for triggers").await?;
    {
        let proof = sqlx::query(if triggers { PROOF_BESIDE_TRIGGERS } else { PROOF });
        let proof = proof.bind(pass.horizon_xid()).bind(max);
        let proof = if triggers { proof } else { proof.bind(pass.rotation).bind(pass.direction.as_str()) };
        let mut found = proof.fetch(&mut *tx);
        pass_point(Side::Before, OP).during(OP)?;
        while let Some(row) = found.try_next().await.during(OP)? {
            each(rows::decode(&row).during(OP)?)?;
        }
        pass_point(Side::After, OP).during(OP)?;
    }
    // The statement's lock on the table is still held: the heap has not been rewritten since.
    let filenode: i64 =
        sqlx::query_scalar("SELECT pg_relation_filenode('public.provider_connections')::bigint")
            .fetch_one(&mut *tx)
            .during("look at the heap")
            .await?;
    tx.commit().during("end the closing proof").await?;
    Ok(filenode)
}

impl Sorted {
    fn sort(
        &mut self,
        keys: &Rewrapper,
        scratch: &mut Scratch,
        ivs: &mut IvSource,
        row: rows::Read<'_>,
    ) -> Result<(), Fault> {
        match rewrap(keys, scratch, ivs, row)? {
            Rewrapped::Move(write) if self.stragglers.len() < MAX_LISTED => self.stragglers.push(write.id),
            Rewrapped::Move(_) => self.too_many = true,
            Rewrapped::OnTarget { id, .. } => self.fine.iter_mut().for_each(|fine| fine.push(id)),
            Rewrapped::Null { .. } => {}
            Rewrapped::Bad(finding) => self.bad.push(finding),
        }
        Ok(())
    }

    /// Takes over what one page of the quarantine turned out to be, and returns the rows that are fine now. Entries
    /// that are `spent` are not tried again, those that have not changed not recorded again.
    fn take_up(&mut self, page: &[Entry], again: Sorted, spent: impl Fn(&Entry) -> bool) -> Vec<Uuid> {
        let entry = |id: &Uuid| page.binary_search_by_key(id, |e| e.id).ok().map(|at| &page[at]);
        for id in again.stragglers {
            match entry(&id) {
                Some(e) if spent(e) => {}
                _ if self.stragglers.len() < MAX_LISTED => self.stragglers.push(id),
                _ => self.too_many = true,
            }
        }
        let news =
            |f: &Finding| entry(&f.id).is_none_or(|e| e.reason != f.reason || e.length != Some(f.length));
        self.bad.extend(again.bad.into_iter().filter(news));
        again.fine.unwrap_or_default()
    }
}
