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
use crate::store::{Statement, StoreError, schema};

/// How long another process may take: the longest is a turn that waits for a frozen worker's transaction.
const PATIENCE: Duration = Duration::from_secs(100);

/// The right to touch the outside for this database's rotation: one process at a time. Ends with its connection.
pub struct Exclusive(());

impl Exclusive {
    /// Takes it, or says that another process has it (8).
    pub async fn take(conn: &mut PgConnection) -> Result<Exclusive> {
        let got: Result<bool, StoreError> = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(schema::LOCK + 2)
            .fetch_one(conn)
            .during("take the lock for promotions")
            .await;
        match got? {
            true => Ok(Exclusive(())),
            false => Err(Error::new(
                Exit::Busy,
                "another process is promoting, finalizing or rolling back this rotation",
            )
            .hint("wait for it to end; rekey status")),
        }
    }

    /// Takes it as soon as it is free. `None` where what it was wanted for is no longer to be done, as `needed` finds
    /// out while another process has it: pods of one Job come here together.
    pub async fn when_free(
        conn: &mut PgConnection,
        needed: impl AsyncFn(&mut PgConnection) -> Result<bool>,
    ) -> Result<Option<Exclusive>> {
        let started = Instant::now();
        loop {
            match Exclusive::take(conn).await {
                Ok(alone) => return Ok(Some(alone)),
                Err(e) if e.exit != Exit::Busy || started.elapsed() > PATIENCE => return Err(e),
                Err(_) => {}
            }
            tokio::time::sleep(jitter(Duration::from_millis(200))).await;
            if !needed(conn).await? {
                return Ok(None);
            }
        }
    }

    /// Gives it back before the connection ends.
    pub async fn give_back(self, conn: &mut PgConnection) -> Result<()> {
        sqlx::query("SELECT pg_advisory_unlock($1)")
            .bind(schema::LOCK + 2)
            .execute(conn)
            .during("give back the lock for promotions")
            .await?;
        Ok(())
    }
}
