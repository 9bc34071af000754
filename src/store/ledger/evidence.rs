//! What a rotation's row claims, held against its events: whoever may write a table does not write the trail with it.

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::rotation::{Claim, State};
use crate::store::error::StoreError;
use crate::store::statement::{row, statements};

/// Which claims the trail confirms.
struct Held {
    ledger_state: State,
    trail_state: Option<State>,
    keys: bool,
    promotion: bool,
    verify: bool,
    compromised: bool,
    secrets: bool,
    is_compromised: bool,
}

row!(Held { ledger_state, trail_state, keys, promotion, verify, compromised, secrets, is_compromised });

statements! {
    // A verify before the rotation was turned round says nothing any more. Its time is the event's, but for the wait for the
    // chain's head. Older versions recorded no ARNs in the event of the start.
    fn hold(rotation: Uuid) -> One<Held> during "hold the ledger against the audit trail":
        "WITH e AS (SELECT seq, at, action, detail FROM rekey.events WHERE rotation = $1 AND action IN ('start', 'migrated', \
         'promoting', 'promoted', 'finalizing', 'finalized', 'rolling_back', 'unpromoting', 'rolled_back', 'verify', 'compromised')), \
         start AS (SELECT detail FROM e WHERE action = 'start' ORDER BY seq LIMIT 1), \
         said AS (SELECT CASE action WHEN 'start' THEN 'migrating' ELSE action END AS state FROM e \
         WHERE action NOT IN ('verify', 'compromised') ORDER BY seq DESC LIMIT 1), \
         verified AS (SELECT at, detail FROM e WHERE action = 'verify' AND seq > coalesce((SELECT max(seq) FROM e \
         WHERE action = 'rolling_back'), 0) ORDER BY seq DESC LIMIT 1), \
         place AS (SELECT detail->>'target' AS target FROM e WHERE action = 'promoting' ORDER BY seq DESC LIMIT 1), \
         known AS (SELECT coalesce((SELECT (detail->>'compromised')::boolean FROM start), false) \
         OR EXISTS (SELECT FROM e WHERE action = 'compromised') AS compromised) \
         SELECT r.state AS ledger_state, (SELECT state FROM said) AS trail_state, \
         coalesce((SELECT (detail->>'old_fingerprint', detail->>'new_fingerprint', detail->>'old_source', detail->>'new_source', \
         coalesce(detail->>'old_version', ''), coalesce(detail->>'new_version', '')) = (r.old_fingerprint, r.new_fingerprint, \
         r.old_source, r.new_source, coalesce(r.old_version, ''), coalesce(r.new_version, '')) FROM start), false) AS keys, \
         (r.promoting_at IS NOT NULL) = EXISTS (SELECT FROM place) \
         AND (r.promoting_at IS NULL OR (SELECT target FROM place) IS NOT DISTINCT FROM r.target_source) AS promotion, \
         CASE WHEN r.verified_clean IS NULL THEN NOT EXISTS (SELECT FROM verified) \
         ELSE coalesce((SELECT (detail->>'clean')::boolean = r.verified_clean AND detail = r.verify_result \
         AND r.verified_at BETWEEN at - interval '1 minute' AND at + interval '1 second' FROM verified), false) END AS verify, \
         r.compromised = known.compromised AS compromised, \
         coalesce((SELECT NOT detail ? 'old_arn' OR (coalesce(detail->>'old_arn', ''), coalesce(detail->>'new_arn', '')) \
         = (coalesce(r.old_arn, ''), coalesce(r.new_arn, '')) FROM start), false) \
         AND (SELECT detail->>'version_id' FROM e WHERE action = 'promoted' AND detail->>'version_id' IS NOT NULL \
         ORDER BY seq DESC LIMIT 1) IS NOT DISTINCT FROM r.promoted_version AS secrets, \
         r.compromised OR known.compromised AS is_compromised FROM rekey.rotations r, known WHERE r.id = $1";
}

/// What the trail says to a rotation's row.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The state by the trail; none where it has no event of the rotation.
    pub state: Option<State>,
    /// The claims that it contradicts.
    pub contradicted: Vec<Contradiction>,
    /// The old key is compromised, as one of the two says.
    pub compromised: bool,
}

/// A claim of the ledger that the audit trail contradicts. Field names are public: they are printed as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Contradiction {
    /// What is claimed.
    pub claim: Claim,
    /// What the ledger says, where that is a word.
    pub ledger: Option<String>,
    /// What the trail says, where that is a word.
    pub trail: Option<String>,
}

impl Evidence {
    /// Whether the trail contradicts this claim.
    pub fn contradicts(&self, claim: Claim) -> bool {
        self.contradicted.iter().any(|found| found.claim == claim)
    }
}

/// Holds a rotation's row against its events.
pub async fn of(conn: &mut PgConnection, rotation: Uuid) -> Result<Evidence, StoreError> {
    let held = hold(conn, rotation).await?;
    let state = held.trail_state == Some(held.ledger_state);
    let confirmed = [
        (Claim::State, state),
        (Claim::Keys, held.keys),
        (Claim::Promotion, held.promotion),
        (Claim::Verify, held.verify),
        (Claim::Compromised, held.compromised),
        (Claim::Secrets, held.secrets),
    ];
    let contradicted = confirmed.into_iter().filter(|(_, holds)| !holds).map(|(claim, _)| {
        let is_state = claim == Claim::State;
        Contradiction {
            claim,
            ledger: is_state.then(|| held.ledger_state.to_string()),
            trail: held.trail_state.filter(|_| is_state).map(|state| state.to_string()),
        }
    });
    Ok(Evidence {
        state: held.trail_state,
        contradicted: contradicted.collect(),
        compromised: held.is_compromised,
    })
}
