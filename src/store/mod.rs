//! Everything that speaks to PostgreSQL: connecting, the application's rows, rekey's own ledger, preflight, audit.
//!
//! SQL stands here and nowhere else. No decisions: those are in `rotation`.

pub mod audit;
mod backend;
pub mod closing;
pub mod connect;
pub mod counting;
mod dsn;
mod error;
pub mod facts;
pub mod grants;
pub mod ledger;
mod pg_types;
mod pooling;
pub mod preflight;
pub mod report;
pub mod rows;
pub mod schema;
pub mod signals;

pub use backend::Backend;
pub use connect::{Connector, Purpose, Server};
pub use dsn::{Dsn, DsnError};
pub use error::{Class, During, Statement, StoreError, bounded, pass_point, with_answer_limit};
pub use pg_types::Xid;

/// The table whose credentials are moved.
pub const TABLE: &str = "public.provider_connections";
