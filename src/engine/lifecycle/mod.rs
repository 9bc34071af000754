//! Promotion, the way back, and the end: everything that touches what the application reads.
//!
//! The state is written before the outside is touched, so that a crash between a secret's change and our commit is
//! found and finished by whichever command comes next. Every step may be repeated.

mod finalize;
mod pins;
mod promote;
mod target;
mod temporary;
mod unpromote;

pub use finalize::{End, Ending, finalize, is_settled, settle};
pub use pins::{clean_up, pin};
pub use promote::{Promotion, promote, reconcile};
pub use target::{Hand, Target, Yields};
pub use unpromote::unpromote;

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::error::{Error, Exit, Result};
use crate::store::connect::jitter;
use crate::store::locks::{self, Lock};

/// How long another process may take: the longest is a turn that waits for a frozen worker's transaction.
const PATIENCE: Duration = Duration::from_secs(100);

/// The right to touch the outside for this database's rotation: one process at a time. It holds on to its connection, with
/// which it ends.
pub struct Exclusive<'c> {
    conn: &'c mut PgConnection,
}

impl<'c> Exclusive<'c> {
    /// Takes it, or says that another process has it (8).
    pub async fn take(conn: &'c mut PgConnection) -> Result<Exclusive<'c>> {
        match locks::try_take(conn, Lock::Outside).await? {
            true => Ok(Exclusive { conn }),
            false => Err(Error::new(
                Exit::Busy,
                "another process is promoting, finalizing or rolling back this rotation",
            )
            .hint("Wait for it to end: run `rekey status`")),
        }
    }

    /// Takes it for a rollback, as soon as no other rollback has it: pods of one Job come here together. `None` where what
    /// it was wanted for is no longer to be done, as `needed` finds out meanwhile. Whoever promotes is not waited for (8).
    pub async fn among_rollbacks(
        conn: &'c mut PgConnection,
        needed: impl AsyncFn(&mut PgConnection) -> Result<bool>,
    ) -> Result<Option<Exclusive<'c>>> {
        let started = Instant::now();
        while !locks::try_take(conn, Lock::Rollbacks).await? {
            if started.elapsed() > PATIENCE {
                return Err(Error::new(
                    Exit::Busy,
                    "another process is starting a rollback of this rotation",
                )
                .hint("Wait for it to end: run `rekey status`"));
            }
            tokio::time::sleep(jitter(Duration::from_millis(200))).await;
            if !needed(conn).await? {
                return Ok(None);
            }
        }
        Exclusive::take(conn).await.map(Some)
    }

    /// The connection that holds the lock: who lost it (its session was ended, say) finds out with its next statement.
    pub fn conn(&mut self) -> &mut PgConnection {
        self.conn
    }

    /// Gives it back before the connection ends.
    pub async fn give_back(self) -> Result<()> {
        Ok(locks::give_back(self.conn).await?)
    }
}
