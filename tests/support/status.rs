//! What `rekey status --output json` says, read by name.

use serde_json::Value;

use super::{Db, Rekey, rekey};

/// The whole answer.
pub fn status(db: &Db) -> Value {
    rekey(db, ["status"]).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY").json(0)
}

/// The rotation's state.
pub fn state(db: &Db) -> String {
    status(db)["rotation"]["state"].as_str().expect("a state").to_owned()
}

/// One of the totals by outcome.
pub fn total(db: &Db, outcome: &str) -> i64 {
    let status = status(db);
    status["totals"][outcome].as_i64().unwrap_or_else(|| panic!("no total {outcome} in {status:#}"))
}

/// `rekey run` in so many small chunks and batches that there is always a midst to step into.
pub fn run_in_small_steps(db: &Db) -> Rekey {
    rekey(db, ["run", "--chunk-rows", "400", "--batch-rows", "50", "--lease-ttl", "3s"])
}
