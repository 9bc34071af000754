//! A table that is changed while a run is at it: refused with 4, with all that was committed in place.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, rekey, run_in_small_steps};

#[test]
fn a_table_that_is_changed_in_the_middle_of_a_run() {
    for (change, undo, told) in [
        (
            "ALTER TABLE provider_connections RENAME COLUMN encrypted_credentials TO sealed",
            "ALTER TABLE provider_connections RENAME COLUMN sealed TO encrypted_credentials",
            "columns: public.provider_connections has no column encrypted_credentials",
        ),
        (
            "ALTER TABLE provider_connections RENAME COLUMN id TO key",
            "ALTER TABLE provider_connections RENAME COLUMN key TO id",
            "columns: public.provider_connections has no column id",
        ),
        (
            "ALTER TABLE provider_connections RENAME TO moved",
            "ALTER TABLE moved RENAME TO provider_connections",
            "table: This database has no table public.provider_connections",
        ),
    ] {
        let db = Db::new();
        Load::rows(8000).into(&db);
        db.mark();
        db.slow_batches(Duration::from_millis(30));
        let mut judge = Judge::look(&db, &[OLD]);
        let run = run_in_small_steps(&db).start();
        db.wait_moved(300);
        db.execute(change);
        let outcome = run.wait().expect(4);
        assert!(outcome.stderr.contains(told), "{change}: {outcome}");
        assert!(outcome.stderr.contains("everything up to the last committed batch is saved"), "{outcome}");
        let verify = rekey(&db, ["verify"]).exits(4);
        assert!(verify.stderr.contains(told), "{change}: {verify}");
        db.execute(undo);
        judge.none_lost(&db, &[OLD, NEW]);
        db.fast_commits();
        rekey(&db, ["run"]).exits(0);
        judge.all_on(&db, NEW);
    }
}
