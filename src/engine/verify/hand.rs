//! One connection of a verify's: what is asked on it is asked again where that may help, and given up, at the server too,
//! once a verify is to end.

use std::time::Instant;

use sqlx::PgConnection;

use super::verifier::given_up;
use crate::engine::Stop;
use crate::engine::fault::Fault;
use crate::error::Error;
use crate::store::{Backend, Connector, Purpose, connect};

/// Reads by place and by id; the planner is kept to these ways.
const PURPOSE: Purpose = Purpose::ReadByPlace;

/// A connection, and what ends its work.
pub(super) struct Hand<'a> {
    connector: &'a Connector,
    conn: PgConnection,
    stop: Stop,
    /// The first failure of what is being asked: the statement itself may take minutes.
    failing: Option<Instant>,
}

/// Does `$work` on a hand's connection, named `$conn` in it, until it is done. A macro, because futures that a closure makes
/// of what it borrows cannot be sent to another thread.
macro_rules! until_done {
    ($hand:expr, $op:expr, |$conn:ident| $work:expr) => {
        loop {
            let (guard, $conn) = $hand.ready().await?;
            match guard.watch($op, $work).await {
                Ok(done) => {
                    $hand.done();
                    break done;
                }
                Err(fault) => $hand.again(fault).await?,
            }
        }
    };
}
pub(super) use until_done;

impl<'a> Hand<'a> {
    /// Connects.
    pub async fn reach(connector: &'a Connector, mut stop: Stop) -> Result<Hand<'a>, Error> {
        let conn = tokio::select! {
            conn = connector.connect(PURPOSE) => conn?,
            () = stop.wait() => return Err(given_up()),
        };
        Ok(Hand { connector, conn, stop, failing: None })
    }

    /// The connection, and what looks after it.
    pub async fn ready(&mut self) -> Result<(Guard<'a>, &mut PgConnection), Error> {
        let backend = loop {
            match Backend::of(&mut self.conn).await {
                Ok(backend) => break backend,
                Err(error) => self.again(error.into()).await?,
            }
        };
        Ok((Guard { connector: self.connector, backend, stop: self.stop.clone() }, &mut self.conn))
    }

    pub fn done(&mut self) {
        self.failing = None;
    }

    /// After a fault: returns once the same may be asked again.
    pub async fn again(&mut self, fault: Fault) -> Result<(), Error> {
        let error = match fault {
            Fault::Store(error) => error,
            Fault::Fatal(error) => return Err(error),
            Fault::LeaseLost | Fault::Yield => return Err(given_up()),
        };
        let since = *self.failing.get_or_insert_with(Instant::now);
        tokio::select! {
            ready = self.connector.again(PURPOSE, &mut self.conn, since, error) => Ok(ready?),
            () = self.stop.wait() => Err(given_up()),
        }
    }

    /// Closes it.
    pub async fn let_go(self) {
        connect::close(self.conn).await;
    }
}

/// Looks after what a backend is doing.
pub(super) struct Guard<'a> {
    connector: &'a Connector,
    backend: Backend,
    stop: Stop,
}

impl Guard<'_> {
    /// Yields, and cancels it at the server, once it is to be given up: its connection is of no use any more.
    pub async fn watch<T, E: Into<Fault>>(
        mut self,
        op: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Fault> {
        let working = async { work.await.map_err(Into::into) };
        tokio::select! {
            done = self.backend.outlives(self.connector, op, working) => done,
            () = self.stop.wait() => {
                self.backend.cancel(self.connector).await;
                Err(Fault::Yield)
            }
        }
    }
}
