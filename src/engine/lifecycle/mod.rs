//! Promotion, the way back, and the end: everything that touches what the application reads.
//!
//! The state is written before the outside is touched, so that a crash between a secret's change and our commit is
//! found and finished by whichever command comes next. Every step may be repeated.

mod finalize;
mod pins;
mod promote;
mod target;
mod unpromote;

pub use finalize::{Ending, finalize, is_settled, settle};
pub use pins::{clean_up, pin};
pub use promote::{Promotion, promote, reconcile};
pub use target::{Target, Yields};
pub use unpromote::unpromote;

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::error::{Error, Exit, Result};
use crate::store::connect::jitter;
use crate::store::ledger::standing::{PROMOTIONS, ROLLBACKS};
use crate::store::{Statement, StoreError};

async fn try_lock(conn: &mut PgConnection, lock: i64) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(lock)
        .fetch_one(conn)
        .during("take the lock for promotions")
        .await
}

/// How long another process may take: the longest is a turn that waits for a frozen worker's transaction.
const PATIENCE: Duration = Duration::from_secs(100);

/// The right to touch the outside for this database's rotation: one process at a time. Ends with its connection.
pub struct Exclusive(());

impl Exclusive {
    /// Takes it, or says that another process has it (8).
    pub async fn take(conn: &mut PgConnection) -> Result<Exclusive> {
        match try_lock(conn, PROMOTIONS).await? {
            true => Ok(Exclusive(())),
            false => Err(Error::new(
                Exit::Busy,
                "another process is promoting, finalizing or rolling back this rotation",
            )
            .hint("wait for it to end; rekey status")),
        }
    }

    /// Takes it for a rollback, as soon as no other rollback has it: pods of one Job come here together. `None` where what
    /// it was wanted for is no longer to be done, as `needed` finds out meanwhile. Whoever promotes is not waited for (8).
    pub async fn among_rollbacks(
        conn: &mut PgConnection,
        needed: impl AsyncFn(&mut PgConnection) -> Result<bool>,
    ) -> Result<Option<Exclusive>> {
        let started = Instant::now();
        while !try_lock(conn, ROLLBACKS).await? {
            if started.elapsed() > PATIENCE {
                return Err(Error::new(Exit::Busy, "another process is turning this rotation round")
                    .hint("wait for it to end; rekey status"));
            }
            tokio::time::sleep(jitter(Duration::from_millis(200))).await;
            if !needed(conn).await? {
                return Ok(None);
            }
        }
        Exclusive::take(conn).await.map(Some)
    }

    /// Gives it back before the connection ends.
    pub async fn give_back(self, conn: &mut PgConnection) -> Result<()> {
        sqlx::query("SELECT pg_advisory_unlock($1), pg_advisory_unlock($2)")
            .bind(PROMOTIONS)
            .bind(ROLLBACKS)
            .execute(conn)
            .during("give back the lock for promotions")
            .await?;
        Ok(())
    }
}
