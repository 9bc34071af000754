//! Proofs of rotations that are over: removed when the next rotation begins, in short transactions. Their numbers stay in
//! the audit trail, and the report tells them from there.
//!
//! No verify misses them: it is of the latest rotation, which is the one that has just begun by then.
//! Those of a compromised rotation are kept: they name whose credentials were on the leaked key.

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::evidence;
use super::rotation::lock;
use crate::crypto::Tag;
use crate::store::audit::{self, Actor};
use crate::store::error::{Statement, StoreError};
use crate::store::pg_types::FullXid;
use crate::store::report::{self, Proofs};
use crate::store::statement::statements;

/// The event's action.
pub const PROOFS_REMOVED: &str = "proofs_removed";

/// Proofs of one transaction; each has the tags of one batch, of up to about a thousand rows.
const AT_A_TIME: i64 = 200;

const OP: &str = "remove the proofs of an ended rotation";

statements! {
    fn over_with_proofs() -> All<Uuid> during OP:
        "SELECT r.id FROM rekey.rotations r WHERE r.state IN ('finalized', 'rolled_back') \
         AND EXISTS (SELECT FROM rekey.proofs p WHERE p.rotation = r.id) ORDER BY r.created_at";

    fn may_remove() -> One<bool> during OP:
        "SELECT has_table_privilege('rekey.proofs', 'DELETE')";

    // From where the last one ended: what has been removed stands in the index until a vacuum.
    fn remove_some(rotation: Uuid, after: FullXid, most: i64) -> One<(i64, Option<FullXid>)> during OP:
        "WITH removed AS (DELETE FROM rekey.proofs WHERE id IN (SELECT id FROM rekey.proofs WHERE rotation = $1 AND xid > $2 \
         ORDER BY xid LIMIT $3) RETURNING xid) SELECT count(*), max(xid) FROM removed";
}

/// What the event says.
#[derive(Debug, Deserialize, Serialize)]
pub struct Removed {
    /// The proofs in numbers, as the report showed them.
    pub proofs: Vec<Proofs>,
    /// Bytes of a tag.
    pub tag_bytes: usize,
    /// The rotation that began then.
    pub begun: Uuid,
}

/// Removes the proofs of each rotation that is over, as rotation `begun` begins; what is left by a process that dies meanwhile
/// is removed when the next one begins. The event comes first: from then on nothing relies on them.
pub async fn remove(conn: &mut PgConnection, begun: Uuid, actor: &Actor) -> Result<(), StoreError> {
    let over = over_with_proofs(conn).await?;
    // A role that was granted its privileges before rekey removed any has not this one, and has work to do.
    if !over.is_empty() && !may_remove(conn).await? {
        tracing::warn!(
            "This role may not remove the proofs of ended rotations. Run `GRANT DELETE ON rekey.proofs TO ROLE` as the owner"
        );
        return Ok(());
    }
    for rotation in over {
        if evidence::of(conn, rotation).await?.compromised {
            continue;
        }
        record(conn, rotation, begun, actor).await?;
        let (mut batches, mut after) = (0, FullXid(0));
        loop {
            let (removed, last) = remove_some(conn, rotation, after, AT_A_TIME).await?;
            let Some(last) = last else { break };
            (batches, after) = (batches + removed, last);
        }
        tracing::info!(%rotation, batches, "Removed the proofs of an ended rotation; its report keeps their numbers");
    }
    Ok(())
}

async fn record(
    conn: &mut PgConnection,
    rotation: Uuid,
    begun: Uuid,
    actor: &Actor,
) -> Result<(), StoreError> {
    let mut tx = conn.begin().during(OP).await?;
    lock::lock_row(&mut tx, rotation).await?;
    if !audit::happened(&mut tx, rotation, PROOFS_REMOVED).await? {
        let proofs = report::proofs(&mut tx, rotation).await?;
        let removed = Removed { proofs, tag_bytes: Tag::LEN, begun };
        audit::append(&mut tx, Some(rotation), PROOFS_REMOVED, actor, json!(removed)).await?;
    }
    tx.commit().during(OP).await
}
