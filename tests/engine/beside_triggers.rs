//! Triggers of the application's that write in our transactions, where the operator lets them pass: what they touched is
//! opened, not taken on trust.

use crate::support::credentials::Ids;
use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, rekey};

/// A version of another row bears our transaction's id wherever it lands: behind the reader, or beyond the pages that the
/// pass walks.
#[test]
fn other_rows_that_a_trigger_touches_in_our_transaction_are_moved_as_well() {
    let db = Db::new();
    Load::rows(1300).bytes(1500).ids(Ids::V4).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    db.execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF pg_trigger_depth() = 1 THEN
                 UPDATE provider_connections SET alias = 'touched' WHERE id =
                     (SELECT id FROM provider_connections WHERE ctid > '(200,0)' ORDER BY ctid LIMIT 1);
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER touch AFTER UPDATE ON provider_connections FOR EACH STATEMENT EXECUTE FUNCTION touch()",
    );
    let steps = ["--allow", "user-triggers", "--chunk-rows", "200", "--batch-rows", "50", "--workers", "1"];
    rekey(&db, ["run"]).args(steps).exits(0);
    let touched: Vec<uuid::Uuid> = db.column("SELECT id FROM provider_connections WHERE alias = 'touched'");
    assert!(touched.len() > 10, "{} rows were touched", touched.len());
    touched.into_iter().for_each(|id| judge.expect_touched(id));
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}
