//! Triggers of the application's that write in our transactions, where the operator lets them pass: what they touched is
//! opened, not taken on trust.

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, rekey};

/// A version of a neighbour bears our transaction's id wherever it lands: behind the reader, too.
#[test]
fn neighbours_that_a_trigger_touches_in_our_transaction_are_moved_as_well() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    db.execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF pg_trigger_depth() = 1 THEN
                 UPDATE provider_connections SET alias = alias WHERE id IN
                     (SELECT id FROM provider_connections WHERE id > NEW.id ORDER BY id OFFSET 300 LIMIT 1);
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER touch AFTER UPDATE ON provider_connections FOR EACH ROW EXECUTE FUNCTION touch()",
    );
    let steps = ["--allow", "user-triggers", "--chunk-rows", "200", "--batch-rows", "50", "--workers", "1"];
    rekey(&db, ["run"]).args(steps).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}
