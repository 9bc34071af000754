//! `report --affected`: whose credentials were under the old key, and with which provider they should reconnect after a
//! compromise.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::{Session, Which, nothing, open};
use crate::error::Result;
use crate::store::audit;
use crate::store::ledger::rotation;
use crate::store::report::{self, Affected};

/// Whose credentials one rotation's old key could decrypt. Field names are public: they are printed as JSON.
#[derive(Serialize)]
pub struct Exposed {
    /// The rotation.
    pub rotation: Uuid,
    /// Its old key is compromised.
    pub compromised: bool,
    /// False where not every row was moved off the old key yet, or ever: then whoever has a credential is listed.
    pub complete: bool,
    /// How many users.
    pub users: usize,
    /// Connections by provider.
    pub providers: BTreeMap<String, usize>,
    /// Each connection.
    pub affected: Vec<Affected>,
    /// The head of the audit chain.
    pub event_head: Option<String>,
}

/// One entry for each rotation that is asked for; never empty.
pub async fn affected(session: &Session, which: Which) -> Result<Vec<Exposed>> {
    let (_, mut conn, ids) = open(session, which).await?;
    let mut all = Vec::new();
    for id in ids {
        let r = rotation::by_id(&mut conn, id).await?;
        let complete = report::was_complete(&mut conn, id).await?;
        let affected = report::affected(&mut conn, id, complete).await?;
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
            event_head: audit::head_line(&mut conn).await,
        });
    }
    if all.is_empty() { Err(nothing()) } else { Ok(all) }
}
