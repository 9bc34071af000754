//! `init`: creates schema `rekey`. Roles are shown their grants, and granted none.

use super::preflight::primary_only;
use super::{Session, standing};
use crate::error::Result;
use crate::rotation::{Step, next};
use crate::store::preflight::{Allowed, examine_schema, refuse};
use crate::store::{Purpose, audit, grants, schema};

/// What it reports.
pub struct Initialized {
    /// The schema was not there before.
    pub created: bool,
    /// What to do next.
    pub next: Vec<Step>,
    /// The head of the audit chain.
    pub event_head: Option<String>,
}

/// Creates the schema, or brings it up to date.
pub async fn init(session: &Session, allowed: &Allowed) -> Result<Initialized> {
    let connector = session.connector()?;
    let mut conn = connector.connect(Purpose::Control).await?;
    primary_only(&connector, &mut conn, "init").await?;
    let existed = schema::exists(&mut conn).await?;
    refuse(&examine_schema(&mut conn, allowed).await?)?;
    schema::ensure(&mut conn).await?;
    let (_, standing) = standing::latest(session, &mut conn).await?;
    Ok(Initialized {
        created: !existed,
        next: next(&standing),
        event_head: audit::head_line(&mut conn).await,
    })
}

/// The schema and the grants as SQL, for an administrator to read and run. Needs no database.
pub fn sql() -> String {
    format!(
        "-- Schema rekey and the roles that use it, for: psql --set ON_ERROR_STOP=1 \"$DATABASE_URL\" -f FILE\n\
         -- Can be run again: what is there already stays.\n\nBEGIN;\n{}\n-- Roles\n\n{}\nCOMMIT;\n",
        schema::sql(),
        grants::sql(),
    )
}
