//! Is there a pooler in transaction mode? Session settings would leak through it to the application, or vanish.
//!
//! Two connections tell: behind such a pooler the second one's transaction gets the server process that just
//! answered the first, or pushes the first one onto another. Simple protocol, so that it works behind any pooler.

use std::time::Duration;

use sqlx::PgConnection;

use super::connect::{Connector, close};
use super::error::{Class, StoreError, TOO_MANY_CONNECTIONS};
use super::statement::{script, statements};

const ROUNDS: usize = 4;
/// How often the second connection may be lost.
const RETRIES: usize = 5;
/// Begins a transaction that no timeout of the role ends while the first connection is asked.
const BEGIN: &str = "BEGIN; SELECT set_config(name, '0', true) FROM pg_catalog.pg_settings \
     WHERE name IN ('idle_in_transaction_session_timeout', 'statement_timeout', 'transaction_timeout')";
const LIMIT: Duration = Duration::from_secs(10);

statements! {
    // Two servers behind one name may well count their processes alike.
    fn which_process() -> Query<String> within LIMIT during "ask for the server process":
        "SELECT pg_backend_pid() || ' ' || pg_postmaster_start_time()";
}

/// Is there such a pooler behind this connection? If the server refuses a second connection, the answer is unknown, and
/// counts as no.
pub(super) async fn probe(conn: &mut PgConnection, connector: &Connector) -> Result<bool, StoreError> {
    let mut other = match connector.bare().await {
        Err(e) if e.sqlstate().as_deref() == Some(TOO_MANY_CONNECTIONS) => return Ok(false),
        other => other?,
    };
    let (mut pooled, mut rounds, mut retries) = (false, 0, 0);
    while rounds < ROUNDS && !pooled {
        match shares_a_process(conn, &mut other).await {
            Ok(shared) => (pooled, rounds) = (shared, rounds + 1),
            // Its settings are the role's own, which may well end it.
            Err(e)
                if retries < RETRIES
                    && matches!(e.class(), Class::ConnectionLost | Class::Retry | Class::TookTooLong)
                    && !matches!(e, StoreError::Timeout { .. }) =>
            {
                retries += 1;
                other = connector.bare().await?;
            }
            Err(e) => return Err(e),
        }
    }
    close(other).await;
    Ok(pooled)
}

async fn shares_a_process(conn: &mut PgConnection, other: &mut PgConnection) -> Result<bool, StoreError> {
    let before = process(conn).await?;
    match ask(other, BEGIN).await {
        // PgBouncer in statement mode allows no transactions.
        Err(e) if e.to_string().contains("not allowed in statement pooling") => return Ok(true),
        done => done?,
    }
    let held = process(other).await;
    // Asked while the other's transaction is open, unless that might wait for ever: a pool of one.
    let after = match &held {
        Ok(held) if *held != before => process(conn).await,
        _ => Ok(before.clone()),
    };
    ask(other, "ROLLBACK").await?;
    Ok(held? == before || after? != before)
}

async fn process(conn: &mut PgConnection) -> Result<String, StoreError> {
    which_process().one_unprepared(conn).await
}

async fn ask(conn: &mut PgConnection, sql: &'static str) -> Result<(), StoreError> {
    script(conn, "probe for a pooler", LIMIT, sql).await
}

/// Takes this session's settings and statements back from the shared server process, as far as it can still be
/// reached: the application would meet them.
pub(super) async fn leave_nothing(conn: &mut PgConnection) {
    let _ = ask(conn, "RESET ALL; DEALLOCATE ALL").await;
}
