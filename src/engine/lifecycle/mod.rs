//! Promotion, the way back, and the end: everything that touches what the application reads.
//!
//! The state is written before the outside is touched, so that a crash between a secret's change and our commit is
//! found and finished by whichever command comes next. Every step may be repeated.

mod finalize;
mod last_copy;
mod pins;
mod promote;
mod target;
mod temporary;
mod unpromote;

pub use finalize::{End, Ending, finalize, is_settled, settle};
pub use last_copy::Kept;
pub use pins::{clean_up, end_pending, pin};
pub use promote::{Promotion, promote, reconcile};
pub use target::{Hand, Target, Yields};
pub use unpromote::unpromote;

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::error::{Error, Exit, Result};
use crate::store::StoreError;
use crate::store::connect::jitter;
use crate::store::locks::{self, Holder, Lock};

/// How long another process may take: the longest is a turn that waits for a frozen worker's transaction.
const PATIENCE: Duration = Duration::from_secs(100);

/// The right to touch the outside for this database's rotation: one process at a time. It holds on to its connection, with
/// which it ends.
pub struct Exclusive<'c> {
    conn: &'c mut PgConnection,
}

impl<'c> Exclusive<'c> {
    /// Takes it, or says which other process has it (8). `signed` is this process and its operator, for others to read.
    pub async fn take(conn: &'c mut PgConnection, signed: (&str, &str)) -> Result<Exclusive<'c>> {
        match locks::try_take(conn, Lock::Outside).await? {
            true => {
                locks::sign_as(conn, signed.0, signed.1).await?;
                Ok(Exclusive { conn })
            }
            false => Err(held(conn, Lock::Outside).await?),
        }
    }

    /// Takes it for a rollback, as soon as no other rollback has it: pods of one Job come here together. `None` where what
    /// it was wanted for is no longer to be done, as `needed` finds out meanwhile. Whoever promotes is not waited for (8).
    pub async fn among_rollbacks(
        conn: &'c mut PgConnection,
        signed: (&str, &str),
        needed: impl AsyncFn(&mut PgConnection) -> Result<bool>,
    ) -> Result<Option<Exclusive<'c>>> {
        let started = Instant::now();
        while !locks::try_take(conn, Lock::Rollbacks).await? {
            if started.elapsed() > PATIENCE {
                return Err(held(conn, Lock::Rollbacks).await?);
            }
            tokio::time::sleep(jitter(Duration::from_millis(200))).await;
            if !needed(conn).await? {
                return Ok(None);
            }
        }
        Exclusive::take(conn, signed).await.map(Some)
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

/// Says which other process promotes, finalizes or rolls back (8), if there is one.
pub async fn busy(conn: &mut PgConnection) -> Result<Option<Error>> {
    for lock in [Lock::Outside, Lock::Rollbacks] {
        if let Some(holder) = locks::held_by(conn, lock).await? {
            return Ok(Some(held_by(&holder)));
        }
    }
    Ok(None)
}

/// Says who holds a lock that was not to be had, and what ends that.
async fn held(conn: &mut PgConnection, lock: Lock) -> Result<Error, StoreError> {
    Ok(match locks::held_by(conn, lock).await? {
        Some(holder) => held_by(&holder),
        None => Error::new(Exit::Busy, "another process held the lock of this rotation until just now")
            .hint("Run the same command again"),
    })
}

fn held_by(holder: &Holder) -> Error {
    let ends = format!("`SELECT pg_terminate_backend({})`", holder.pid());
    if holder.is_rekey() {
        let message =
            format!("another process is promoting, finalizing or rolling back this rotation: {holder}");
        return Error::new(Exit::Busy, message).hint(format!(
            "Wait for it to end (`rekey status`), or stop it; if its host is gone, {ends} ends its session"
        ));
    }
    Error::new(Exit::Busy, format!("a session that is not rekey's holds rekey's advisory lock: {holder}"))
        .hint(format!("Let that program end, or end its session: {ends}"))
}
