//! Opens every row with the one key it should be on, and compares its bytes with the tag taken before it was moved.
//!
//! Reads by place, without the engine's bounds and in short statements, so that rekey's own batches come by in the order in
//! which they were written, whatever the ids are. What was written since it began is read by id at the end, and both are held
//! against a count over one snapshot: every row that existed before and did not change must have been seen.

mod check;
mod met;
mod report;
mod verifier;
mod walk;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use sqlx::PgConnection;
use tokio::task::JoinSet;
use uuid::Uuid;

pub use report::{CleanVerify, VerifyReport};
pub use verifier::Keys;

use super::Stop;
use crate::error::{Error, Exit};
use crate::store::counting::{self, Began, Ended};
use crate::store::ledger::chunk;
use crate::store::{Backend, Connector, FullXid, Purpose, StoreError, connect, with_answer_limit};
use check::Walked;
use met::Met;
use verifier::{Inputs, Verifier, given_up};

/// Blocks that a worker takes at a time, at most: their batches' tags are in memory together.
const PART: u32 = 2048;

/// A table that is rewritten under the walk is walked again so often.
const ATTEMPTS: usize = 3;

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
    let first_horizon = first_horizon.map(FullXid::short);
    let inputs = Arc::new(Inputs { connector, keys, rotation, first_horizon });
    for _ in 0..ATTEMPTS {
        let Some((mut report, tagged)) = attempt(&inputs, workers, &stop).await? else {
            tracing::warn!(
                "The table was rewritten during the verify (VACUUM FULL, CLUSTER); reading it again"
            );
            continue;
        };
        if report.rows == 0 && tagged > 0 && !may_be_empty {
            return Err(Error::new(
                Exit::VerifyFailed,
                format!("provider_connections has no visible row, but this rotation re-encrypted {tagged}"),
            )
            .hint(
                "Check that DATABASE_URL names the right database, and why the table is empty. To promote \
                 anyway, add `--allow empty-table`",
            ));
        }
        report.seconds = started.elapsed().as_secs_f64();
        return Ok(report);
    }
    Err(Error::new(Exit::Unavailable, "the table was rewritten each time rekey read it")
        .hint("Run `rekey verify` again after VACUUM FULL, CLUSTER or similar has ended"))
}

/// One walk over the table, and about how many rows have a tag. `None` where the table was rewritten meanwhile.
async fn attempt(
    inputs: &Arc<Inputs>,
    workers: usize,
    stop: &Stop,
) -> Result<Option<(VerifyReport, i64)>, Error> {
    let connector = &inputs.connector;
    let mut conn = connector.connect(Purpose::ReadOnly).await?;
    let since = Instant::now();
    let (began, tagged) = loop {
        match begin(&mut conn, inputs.rotation).await {
            Ok(begun) => break begun,
            Err(e) => connector.again(Purpose::ReadOnly, &mut conn, since, e).await?,
        }
    };
    let part = (began.blocks / (4 * workers.max(1) as u32)).clamp(16, PART);
    let (met, next) = (Met::default(), AtomicU32::new(0));
    let verifier = Arc::new(Verifier { inputs: inputs.clone(), began, met, next, part });
    let mut tasks = JoinSet::new();
    let limit = connector.answer_limit();
    for _ in 0..workers {
        let (working, mut stop) = (walk::work(verifier.clone()), stop.clone());
        tasks.spawn(with_answer_limit(limit, async move {
            tokio::select! {
                done = working => done,
                // What it found so far is not told.
                () = stop.wait() => Ok(Walked::default()),
            }
        }));
    }
    let mut walked = Walked::default();
    while let Some(done) = tasks.join_next().await {
        walked.add(done.map_err(|e| Error::new(Exit::Internal, format!("a worker panicked: {e}")))??);
    }
    if stop.is_set() {
        return Err(given_up());
    }
    let mut since = None;
    let end = loop {
        match end(&verifier, &mut conn, stop.clone()).await {
            Ok(Some(end)) => break end,
            Ok(None) => return Err(given_up()),
            // From the first failure on: the statement itself may take minutes.
            Err(e) => {
                let since = *since.get_or_insert_with(Instant::now);
                connector.again(Purpose::ReadOnly, &mut conn, since, e).await?;
            }
        }
    };
    if end.rewritten {
        return Ok(None);
    }
    let mut since = None;
    let (young, unindexed) = loop {
        match walk::young(&verifier, &mut conn, &end.young).await {
            Ok(young) => break young,
            Err(e) => {
                let since = *since.get_or_insert_with(Instant::now);
                connector.again(Purpose::ReadOnly, &mut conn, since, walk::retried(e)?).await?;
            }
        }
    };
    let old_seen = walked.old;
    walked.add(young);
    let mut since = None;
    let mut report = loop {
        match met::settle_all(&verifier, &mut conn, &walked).await {
            Ok(report) => break report,
            Err(e) => {
                let since = *since.get_or_insert_with(Instant::now);
                connector.again(Purpose::ReadOnly, &mut conn, since, e).await?;
            }
        }
    };
    // What others deleted meanwhile was seen and is not there any more; the other way round nothing may be missing.
    report.unseen = (end.old - old_seen).max(0) + unindexed;
    report.bytes_compared = inputs.keys.tags.is_some();
    report.both_keys = inputs.keys.other.is_some();
    report.clean =
        report.wrong_key == 0 && report.unreadable == 0 && report.other_bytes == 0 && report.unseen == 0;
    connect::close(conn).await;
    Ok(Some((report, tagged)))
}

/// The beginning, now, and about how many rows have a tag.
async fn begin(conn: &mut PgConnection, rotation: Uuid) -> Result<(Began, i64), StoreError> {
    let tagged = chunk::count_tagged(conn, rotation).await?;
    Ok((counting::begin(conn).await?, tagged))
}

/// Counts at the end; `None` where that was given up, and cancelled at the server.
async fn end(v: &Verifier, conn: &mut PgConnection, mut stop: Stop) -> Result<Option<Ended>, StoreError> {
    let (connector, backend) = (&v.inputs.connector, Backend::of(conn).await?);
    let counting = counting::end(conn, v.inputs.rotation, &v.began);
    tokio::select! {
        done = backend.outlives(connector, counting::OP, counting) => done.map(Some),
        () = stop.wait() => {
            backend.cancel(connector).await;
            Ok(None)
        }
    }
}
