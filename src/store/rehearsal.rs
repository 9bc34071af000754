//! Writing the application's rows in transactions that are rolled back: what a rehearsal measures. Needs no lease, and
//! commits nothing.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, Transaction};

use super::connect::Connector;
use super::error::{StoreError, bounded};
use super::rows::{FreeWrites, Write, overwrite, overwrite_free};

/// A transaction over the application's rows that needs no lease: it can only be rolled back.
pub struct Rehearsal<'c> {
    tx: Transaction<'c, Postgres>,
    limit: Duration,
}

impl<'c> Rehearsal<'c> {
    /// Begins one, with the limits of a batch.
    pub async fn begin(conn: &'c mut PgConnection, connector: &Connector) -> Result<Self, StoreError> {
        let limit = connector.answer_limit();
        let begin = conn.begin_with(AssertSqlSafe(connector.begin_batch()));
        Ok(Rehearsal { tx: bounded("begin a rehearsal", limit, begin).await?, limit })
    }

    /// As [`super::rows::write`].
    pub async fn write(&mut self, rows: &[Write]) -> Result<u64, StoreError> {
        overwrite(&mut self.tx, rows, "rehearse a batch").await
    }

    /// As [`super::rows::write_free`].
    pub async fn write_free(&mut self, rows: &[&Write]) -> Result<FreeWrites, StoreError> {
        overwrite_free(&mut self.tx, rows, "rehearse a batch").await
    }

    /// Leaves nothing but dead row versions.
    pub async fn roll_back(self) -> Result<(), StoreError> {
        bounded("roll the rehearsal back", self.limit, self.tx.rollback()).await
    }
}
