//! The locks under which a rotation is created, turned, and its passes opened and concluded. Nothing is changed here.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::rotation::{Desired, Direction, State};
use crate::store::error::{StoreError, with_answer_limit};
use crate::store::schema;
use crate::store::statement::statements;

pub(super) const WAITING: &str = "wait for another process of this rotation";

/// How long a command that turns the rotation waits for the workers: the server gives up after 90 s.
pub(super) const TURN_LIMIT: Duration = Duration::from_secs(95);

statements! {
    fn take_lock(lock: i64) during WAITING:
        "SELECT pg_advisory_xact_lock($1)";

    // This transaction waits for locks as long as a frozen process can hold them.
    fn wait_patiently() during WAITING:
        "SELECT set_config('lock_timeout', '0', true), set_config('statement_timeout', '90s', true)";

    fn lock_wanted(id: Uuid) -> One<(Desired, bool)> during WAITING:
        "SELECT desired, state NOT IN ('finalized', 'rolled_back') FROM rekey.rotations WHERE id = $1 FOR NO KEY UPDATE";

    fn lock_state(id: Uuid) -> One<State> during WAITING:
        "SELECT state FROM rekey.rotations WHERE id = $1 FOR NO KEY UPDATE";

    // There is one active rotation at most, which is the newest whatever the clocks say.
    fn is_newest(id: Uuid) -> One<bool> during "look for a newer rotation":
        "SELECT NOT EXISTS (SELECT FROM rekey.rotations r JOIN rekey.rotations newer ON newer.created_at > r.created_at \
         WHERE r.id = $1 AND r.state IN ('finalized', 'rolled_back'))";

    pub(in crate::store::ledger) fn lock_row(id: Uuid) during "lock the rotation":
        "SELECT FROM rekey.rotations WHERE id = $1 FOR NO KEY UPDATE";

    // For transactions that lock nothing of the application's, and record what took long to find.
    pub(in crate::store::ledger) fn be_patient() during "lock the rotation":
        "SET LOCAL lock_timeout = '10s'";
}

/// Takes the lock under which rotations, passes and their next steps are created, until the transaction ends.
pub async fn lock(conn: &mut PgConnection) -> Result<(), StoreError> {
    wait_patiently(conn).await?;
    with_answer_limit(TURN_LIMIT, take_lock(conn, schema::LOCK + 1)).await
}

/// Locks the rotation's row to turn it. A process that froze in the midst of a batch, or of its last step, holds its
/// chunk, or this row, until the server ends its idle transaction: that is waited for. Returns what is wanted, and whether
/// the rotation is active.
pub(super) async fn lock_to_turn(conn: &mut PgConnection, id: Uuid) -> Result<(Desired, bool), StoreError> {
    wait_patiently(conn).await?;
    lock_wanted(conn, id).await
}

/// Whether rows may be moved that way for this rotation, and stay so until the transaction ends. Under [`lock`].
pub async fn is_workable(
    conn: &mut PgConnection,
    id: Uuid,
    direction: Direction,
) -> Result<bool, StoreError> {
    let state = lock_state(conn, id).await?;
    Ok(is_newest(conn, id).await? && State::workable(direction).contains(&state))
}
