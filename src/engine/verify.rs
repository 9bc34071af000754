//! Opens every row with the one key it should be on, and compares its bytes with the tag taken before it was moved.
//!
//! Reads by place, without the engine's bounds and in short statements, so that rekey's own batches come by in the order in
//! which they were written, whatever the ids are. What was written since it began is read by id at the end, and both are held
//! against a count over one snapshot: every row that existed before and did not change must have been seen. Rows that the
//! index of the primary key does not lead to are found wherever rekey did not write them, and by a count.

mod check;
mod hand;
mod met;
mod report;
mod verifier;
mod walk;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use tokio::task::JoinSet;
use uuid::Uuid;

pub use report::{CleanVerify, VerifyReport};
pub use verifier::Keys;

use super::Stop;
use crate::error::{Error, Exit};
use crate::store::counting::{self, MOST_YOUNG};
use crate::store::ledger::{chunk, pass};
use crate::store::{Connector, FullXid, index, with_answer_limit};
use check::Walked;
use hand::{Hand, until_done};
use met::Met;
use verifier::{Inputs, Verifier};

/// Blocks that a worker takes at a time, at most: their batches' tags are in memory together.
const PART: u32 = 2048;

/// A table that is rewritten under the walk is walked again so often.
const ATTEMPTS: usize = 3;

/// Verifies the whole table. That no row is left of those that were moved is an error, unless it `may_be_empty`.
pub async fn verify(
    connector: Connector,
    keys: Arc<Keys>,
    rotation: Uuid,
    workers: usize,
    may_be_empty: bool,
    stop: Stop,
) -> Result<VerifyReport, Error> {
    let started = Instant::now();
    let inputs = Arc::new(Inputs { connector, keys, rotation });
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
    let (connector, rotation) = (&inputs.connector, inputs.rotation);
    let mut hand = Hand::reach(connector, stop.clone()).await?;
    let first = until_done!(hand, "read the first horizon", |conn| pass::first_horizon(conn, rotation));
    let first_horizon = first.map(FullXid::short);
    let tagged = until_done!(hand, "count the proofs", |conn| chunk::count_tagged(conn, rotation));
    let began = until_done!(hand, "take the horizon", |conn| counting::begin(conn));
    let part = (began.blocks / (4 * workers.max(1) as u32)).clamp(16, PART);
    let (met, next) = (Met::default(), AtomicU32::new(0));
    let verifier = Arc::new(Verifier { inputs: inputs.clone(), first_horizon, began, met, next, part });
    let mut tasks = JoinSet::new();
    let limit = connector.answer_limit();
    for _ in 0..workers {
        tasks.spawn(with_answer_limit(limit, walk::work(verifier.clone(), stop.clone())));
    }
    let mut walked = Walked::default();
    while let Some(done) = tasks.join_next().await {
        walked.add(done.map_err(|e| Error::new(Exit::Internal, format!("a worker panicked: {e}")))??);
    }
    let v = &*verifier;
    let end = until_done!(hand, counting::OP, |conn| counting::end(conn, rotation, &v.began, MOST_YOUNG));
    if end.rewritten {
        return Ok(None);
    }
    let old_seen = walked.old;
    walked.add(until_done!(hand, "read connections", |conn| walk::young(v, conn, &end.young)));
    let mut report = until_done!(hand, "read proof tags", |conn| met::settle_all(v, conn, &walked));
    // What others deleted meanwhile was seen and is not there any more; the other way round nothing may be missing.
    report.unseen = (end.old - old_seen).max(0) + report.unseen.max(end.unknown);
    if report.unseen > 0 {
        report.index = Some(until_done!(hand, "name the index", |conn| index::name(conn)));
    }
    report.bytes_compared = inputs.keys.tags.is_some();
    report.both_keys = inputs.keys.other.is_some();
    report.clean =
        report.wrong_key == 0 && report.unreadable == 0 && report.other_bytes == 0 && report.unseen == 0;
    hand.let_go().await;
    Ok(Some((report, tagged)))
}
