//! `rekey report --affected`: whose credentials were under the old key, and with which provider they should
//! reconnect after a compromise.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::context::Context;
use crate::error::{Exit, Result};
use crate::store::audit;
use crate::store::ledger::rotation;
use crate::store::report::{Affected, affected, was_complete};

#[derive(Serialize)]
struct Exposed {
    rotation: Uuid,
    compromised: bool,
    /// False where not every row was moved off the old key yet, or ever: then whoever has a credential is listed.
    complete: bool,
    users: usize,
    providers: BTreeMap<String, usize>,
    affected: Vec<Affected>,
    event_head: Option<String>,
}

/// Prints one object for one rotation, or a list of them.
pub async fn print(context: &Context, conn: &mut PgConnection, rotations: Vec<Uuid>) -> Result<Exit> {
    let mut all = Vec::new();
    for id in rotations {
        let r = rotation::by_id(conn, id).await?;
        let complete = was_complete(conn, id).await?;
        let affected = affected(conn, id, complete).await?;
        let mut users: Vec<Uuid> = affected.iter().map(|a| a.user_id).collect();
        users.dedup();
        let mut providers = BTreeMap::new();
        for a in &affected {
            *providers.entry(a.provider_slug.clone()).or_default() += 1;
        }
        all.push(Exposed {
            rotation: id,
            compromised: r.compromised,
            complete,
            users: users.len(),
            providers,
            affected,
            event_head: audit::head_line(conn).await,
        });
    }
    match all.as_slice() {
        [] => return Err(super::nothing()),
        [one] => context.print_json(one)?,
        several => context.print_json(&several)?,
    }
    Ok(Exit::Ok)
}
