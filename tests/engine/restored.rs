//! A ledger that was restored from a dump, in a database whose transaction ids have since gone past those in it.

use crate::support::load::{Load, some_ids, store};
use crate::support::{Db, Judge, NEW, OLD, rekey};

/// Every row is older than a horizon of another database's, and none was seen by the pass for that.
#[test]
fn a_horizon_that_was_restored_says_nothing_of_the_rows() {
    let db = Db::new();
    Load::rows(500).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    let late = b"{\"access_token\":\"saved under the old key before the dump\"}";
    let id = some_ids(&db, 1, 11)[0];
    store(&db, id, OLD, late);
    judge.expect(id, late);
    // Loading a dump writes each row anew, as a transaction of the new database.
    let now = "pg_snapshot_xmax(pg_current_snapshot())::text::xid8";
    db.execute("UPDATE rekey.proofs SET seq = seq");
    db.execute(&format!("UPDATE rekey.passes SET horizon = {now}, next_horizon = {now}"));
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}
