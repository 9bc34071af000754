//! `report --affected`: whose credentials were under the old key, and with which provider they should reconnect after a
//! compromise. There may be millions: each is handed on as it comes, and none is kept.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Session, Which, nothing, open};
use crate::error::Result;
use crate::store::audit;
use crate::store::ledger::evidence;
use crate::store::ledger::retention::PROOFS_REMOVED;
use crate::store::report::{self, Affected};
use crate::telemetry::ending;

/// One rotation, whose old key could decrypt the credentials that are listed.
pub struct Exposed {
    /// The rotation.
    pub rotation: Uuid,
    /// Its old key is compromised.
    pub compromised: bool,
    /// False where not every row was moved off the old key yet, or ever, or where its proofs were removed: then whoever has a
    /// credential is listed.
    pub complete: bool,
}

/// What a list came to.
#[derive(Default)]
pub struct Sums {
    /// How many users.
    pub users: usize,
    /// Connections by provider.
    pub providers: BTreeMap<String, usize>,
    /// The head of the audit chain.
    pub event_head: Option<String>,
}

/// Takes the lists of one rotation or of several.
pub trait Listing {
    /// A list begins.
    fn begin(&mut self, of: &Exposed) -> Result<()>;
    /// One connection of it.
    fn connection(&mut self, of: &Exposed, who: &Affected) -> Result<()>;
    /// It ends.
    fn end(&mut self, of: &Exposed, sums: &Sums) -> Result<()>;
}

/// One list for each rotation that is asked for, of which there is at least one.
pub async fn affected(session: &Session, which: Which, listing: &mut impl Listing) -> Result<()> {
    let (_, mut conn, ids) = open(session, which).await?;
    if ids.is_empty() {
        return Err(nothing());
    }
    for id in ids {
        ending::rotation(id);
        let removed = audit::happened(&mut conn, id, PROOFS_REMOVED).await?;
        let complete = !removed && report::was_complete(&mut conn, id).await?;
        let compromised = evidence::of(&mut conn, id).await?.compromised;
        let of = Exposed { rotation: id, compromised, complete };
        listing.begin(&of)?;
        let (mut sums, mut last) = (Sums::default(), None);
        report::each_affected(&mut conn, id, complete, |who| {
            sums.users += usize::from(last.replace(who.user_id) != Some(who.user_id));
            match sums.providers.get_mut(&who.provider_slug) {
                Some(connections) => *connections += 1,
                None => drop(sums.providers.insert(who.provider_slug.clone(), 1)),
            }
            listing.connection(&of, &who)
        })
        .await?;
        sums.event_head = audit::head_line(&mut conn).await;
        listing.end(&of, &sums)?;
    }
    Ok(())
}
