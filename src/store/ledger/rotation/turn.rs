//! Turning a rotation that others are working on: waits for what is in flight, and fences what comes later.

use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::advance;
use super::lock::{TURN_LIMIT, WAITING, lock_to_turn};
use crate::rotation::{Desired, State};
use crate::store::audit::{self, Actor};
use crate::store::error::{Statement, StoreError, with_answer_limit};
use crate::store::ledger::{chunk, pass};
use crate::store::statement::statements;

statements! {
    fn lock_swept_though_over() -> All<Uuid> during WAITING:
        "SELECT id FROM rekey.rotations r WHERE state IN ('finalized', 'rolled_back') AND EXISTS \
         (SELECT FROM rekey.passes p WHERE p.rotation = r.id AND p.outcome IS NULL) ORDER BY id FOR NO KEY UPDATE";

    // The deadline was the window's of the way out.
    fn want_it_turned(id: Uuid) during "start the rollback":
        "UPDATE rekey.rotations SET desired = 'running', deadline = NULL, verified_clean = NULL WHERE id = $1";

    fn change_desired(id: Uuid, desired: Desired) during "change what is wanted":
        "UPDATE rekey.rotations SET desired = $2, deadline = CASE WHEN $2 = 'running' AND deadline < clock_timestamp() \
         THEN NULL ELSE deadline END WHERE id = $1";
}

/// Cancels every open chunk, raising each epoch: waits for batches in flight, and fences what comes later. A batch that
/// read the state before it changed could otherwise commit after it (provoked in `tests/engine/rollback.rs`). Part of the
/// transaction that changes state or desired state.
async fn fence(conn: &mut PgConnection, id: Uuid) -> Result<(), StoreError> {
    // The frontier first: carving locks it, so that no chunk appears behind our back.
    pass::lock_open(conn, id).await?;
    // Until there is none: a batch that was waited for may have put rows off, into a chunk that this statement's snapshot
    // does not hold.
    loop {
        chunk::cancel_open(conn, id).await?;
        if !chunk::are_open(conn, id).await? {
            return Ok(());
        }
    }
}

/// Before another rotation begins: fences whoever still sweeps for one that is over, or rows would move both ways.
/// Under [`super::lock::lock`].
pub(super) async fn fence_what_is_over(conn: &mut PgConnection) -> Result<(), StoreError> {
    let fencing = async {
        for id in lock_swept_though_over(conn).await? {
            fence(conn, id).await?;
            pass::cancel_open(conn, id).await?;
        }
        Ok(())
    };
    with_answer_limit(TURN_LIMIT, fencing).await
}

/// Turns the rotation round: to `rolling_back`, with every batch of the old direction settled and fenced.
pub async fn turn_back(conn: &mut PgConnection, id: Uuid, actor: &Actor) -> Result<bool, StoreError> {
    with_answer_limit(TURN_LIMIT, turn(conn, id, actor)).await
}

async fn turn(conn: &mut PgConnection, id: Uuid, actor: &Actor) -> Result<bool, StoreError> {
    let mut tx = conn.begin().during("begin").await?;
    lock_to_turn(&mut tx, id).await?;
    // Chunks before the audit chain: finishing batches lock them in this order.
    fence(&mut tx, id).await?;
    let from: Vec<_> = State::ALL.iter().copied().filter(|state| state.may_roll_back()).collect();
    if !advance(&mut tx, id, &from, State::RollingBack, actor, json!({})).await? {
        return Ok(false);
    }
    pass::cancel_open(&mut tx, id).await?;
    want_it_turned(&mut tx, id).await?;
    tx.commit().during("start the rollback").await?;
    Ok(true)
}

/// Sets what the operator wants. Aborting fences the workers; anything else opens what an abort cancelled and, for
/// `running`, lifts a deadline that has passed. False where the rotation is over.
pub async fn set_desired(
    conn: &mut PgConnection,
    id: Uuid,
    desired: Desired,
    actor: &Actor,
) -> Result<bool, StoreError> {
    with_answer_limit(TURN_LIMIT, want(conn, id, desired, actor)).await
}

async fn want(
    conn: &mut PgConnection,
    id: Uuid,
    desired: Desired,
    actor: &Actor,
) -> Result<bool, StoreError> {
    let mut tx = conn.begin().during("begin").await?;
    let (was, active) = lock_to_turn(&mut tx, id).await?;
    if !active {
        return Ok(false);
    }
    change_desired(&mut tx, id, desired).await?;
    if desired == Desired::Aborted {
        fence(&mut tx, id).await?;
    } else if was == Desired::Aborted {
        chunk::open_cancelled(&mut tx, id).await?;
    }
    let action = match desired {
        Desired::Running => "resume",
        Desired::Paused => "pause",
        Desired::Aborted => "abort",
    };
    audit::append(&mut tx, Some(id), action, actor, json!({ "was": was })).await?;
    tx.commit().during("change what is wanted").await?;
    Ok(true)
}
