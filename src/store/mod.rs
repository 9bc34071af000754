//! Everything that speaks to PostgreSQL: connecting, the application's rows, rekey's own ledger, preflight, audit.
//!
//! SQL stands here and nowhere else. No decisions: those are in `rotation`.

pub mod audit;
mod backend;
pub mod board;
pub mod closing;
pub mod connect;
pub mod counting;
mod dsn;
pub mod encoding;
mod error;
pub mod facts;
pub mod grants;
pub mod index;
pub mod ledger;
pub mod locks;
mod login;
pub mod origin;
mod outage;
mod pg_types;
mod pooling;
pub mod preflight;
mod refusal;
pub mod rehearsal;
pub mod report;
pub mod rows;
pub mod schema;
pub mod signals;
mod statement;
mod table;
mod tls;
pub mod waits;

pub use backend::Backend;
pub use connect::{Connector, Purpose, Server};
pub use dsn::{Dsn, DsnError};
pub use error::{Class, During, Statement, StoreError, bounded, pass_point, reindex, with_answer_limit};
pub use login::{Login, PasswordSource};
pub use outage::Outage;
pub use pg_types::{FullXid, Xid};
pub use statement::{Column, Declaration};
pub use table::TABLE;

/// Every statement, for the test that prepares them.
pub fn statements() -> impl Iterator<Item = &'static Declaration> {
    let files = [
        audit::STATEMENTS,
        backend::STATEMENTS,
        board::STATEMENTS,
        closing::STATEMENTS,
        connect::STATEMENTS,
        counting::STATEMENTS,
        encoding::STATEMENTS,
        facts::STATEMENTS,
        index::STATEMENTS,
        locks::STATEMENTS,
        origin::STATEMENTS,
        pooling::STATEMENTS,
        report::STATEMENTS,
        rows::STATEMENTS,
        schema::STATEMENTS,
        signals::STATEMENTS,
        waits::STATEMENTS,
    ];
    files.into_iter().chain(preflight::STATEMENTS).flatten().chain(ledger::statements())
}
