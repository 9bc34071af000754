//! Advisory locks that one process at a time holds, for as long as its connection lives.

use sqlx::PgConnection;

use super::error::StoreError;
use super::ledger::standing::{PROMOTIONS, ROLLBACKS};
use super::statement::statements;

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// What the application reads: promote, finalize, and the outside half of a rollback.
    Outside,
    /// Rollbacks among themselves; taken before the other one.
    Rollbacks,
}

impl Lock {
    const fn key(self) -> i64 {
        match self {
            Lock::Outside => PROMOTIONS,
            Lock::Rollbacks => ROLLBACKS,
        }
    }
}

statements! {
    fn take(key: i64) -> One<bool> during "take the lock for promotions":
        "SELECT pg_try_advisory_lock($1)";

    fn release(outside: i64, rollbacks: i64) during "give back the lock for promotions":
        "SELECT pg_advisory_unlock($1), pg_advisory_unlock($2)";
}

/// Takes a lock unless another session has it.
pub async fn try_take(conn: &mut PgConnection, lock: Lock) -> Result<bool, StoreError> {
    take(conn, lock.key()).await
}

/// Gives back whatever this session has taken.
pub async fn give_back(conn: &mut PgConnection) -> Result<(), StoreError> {
    release(conn, Lock::Outside.key(), Lock::Rollbacks.key()).await
}
