//! One server process that serves a connection of rekey, and whether it is still running.
//!
//! A statement that may take as long as it must has no limit to notice a host by that vanished without a word: TCP keeps
//! such a connection for ever. So another connection asks.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::connect::{Connector, Purpose, close};
use super::error::{Class, StoreError, TOO_MANY_CONNECTIONS};
use super::statement::statements;

const EVERY: Duration = Duration::from_secs(15);
/// After this long without a response, the server has lost rekey's statement.
const SILENCE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(10);
/// Whoever gives a statement up is in a hurry.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

statements! {
    fn at_the_other_end() -> One<(i32, Option<String>)> within LIMIT during "ask for the backend":
        "SELECT pid, backend_start::text FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid()";

    fn is_there(pid: i32, started: Option<&str>) -> One<bool> within LIMIT during "ask for the backend":
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity \
         WHERE pid = $1 AND backend_start::text IS NOT DISTINCT FROM $2)";

    fn cancel(pid: i32, started: Option<&str>) within CANCEL_LIMIT during "cancel a statement":
        "SELECT pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity \
         WHERE pid = $1 AND backend_start::text IS NOT DISTINCT FROM $2";
}

/// A server process, by its id and start: after a failover another one may have the same id.
pub struct Backend {
    pid: i32,
    started: Option<String>,
}

impl Backend {
    /// The one at the other end.
    pub async fn of(conn: &mut PgConnection) -> Result<Backend, StoreError> {
        let (pid, started) = at_the_other_end(conn).await?;
        Ok(Backend { pid, started })
    }

    /// Does `work`, which this backend carries out, unless the backend turns out to be gone.
    pub async fn outlives<T, E: From<StoreError>>(
        &self,
        connector: &Connector,
        op: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            done = work => done,
            () = self.gone(connector) => Err(StoreError::Timeout { op, limit: SILENCE }.into()),
        }
    }

    /// Has the server give up what it does for this backend's connection, which is of no use any more afterwards. Best
    /// effort: where it cannot be asked, it notices by itself that the connection is closed.
    pub async fn cancel(&self, connector: &Connector) {
        let asked = async {
            let mut conn = connector.try_connect(Purpose::ReadOnly).await?;
            let asked = cancel(&mut conn, self.pid, self.started.as_deref()).await;
            close(conn).await;
            asked
        };
        match tokio::time::timeout(CANCEL_LIMIT, asked).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "Couldn't cancel a statement"),
            Err(_) => tracing::debug!("Couldn't cancel a statement: no response"),
        }
    }

    async fn gone(&self, connector: &Connector) {
        let mut heard = Instant::now();
        while heard.elapsed() < SILENCE {
            tokio::time::sleep(EVERY).await;
            match self.is_there(connector).await {
                Ok(true) => heard = Instant::now(),
                Ok(false) => return,
                // It answers, if only with a refusal: too many connections, say.
                Err(e)
                    if e.class() != Class::ConnectionLost
                        || e.sqlstate().as_deref() == Some(TOO_MANY_CONNECTIONS) =>
                {
                    heard = Instant::now();
                }
                Err(_) => {}
            }
        }
    }

    async fn is_there(&self, connector: &Connector) -> Result<bool, StoreError> {
        let mut conn = connector.try_connect(Purpose::ReadOnly).await?;
        let there = is_there(&mut conn, self.pid, self.started.as_deref()).await;
        close(conn).await;
        there
    }
}
