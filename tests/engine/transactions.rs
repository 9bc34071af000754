//! Short transactions: what one batch leaves behind can be pruned while the next ones are written, so that most new
//! versions find room on their own page.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Db, SOON, rekey, until};

/// Fewer batches than this pass while any one of our transactions is open: each is a batch, or one read.
const BATCHES: i64 = 75;
const BATCH_ROWS: i64 = 20;

#[test]
fn none_of_them_outlasts_many_batches() {
    let db = Db::new();
    Load::rows(6000).into(&db);
    let sql = "SELECT pid || ' ' || xact_start FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'rekey' AND xact_start IS NOT NULL";
    for command in [&["run"][..], &["rollback", "--yes"]] {
        db.mark();
        db.slow_batches(Duration::from_millis(20));
        let steps = ["--workers", "2", "--chunk-rows", "1000", "--batch-rows", "20"];
        let mut process = rekey(&db, []).more(command).args(steps).start();
        let (mut since, mut looks) = (HashMap::new(), 0);
        while process.running() {
            let before = db.moved();
            let open: Vec<String> = db.column(sql);
            let after = db.moved();
            looks += usize::from(!open.is_empty() && before > 0);
            for transaction in open {
                let moved = before - *since.entry(transaction).or_insert(after);
                assert!(moved < BATCHES * BATCH_ROWS, "{moved} rows were moved during one transaction");
            }
        }
        process.wait().expect(0);
        assert!(looks > 3, "looked at open transactions {looks} times only");
        db.fast_commits();
    }
}

/// In an undisturbed run: on a busy machine a look at the server may hold its snapshot through much of so short a run, so that
/// the best of some counts.
#[test]
fn most_updates_stay_on_their_page() {
    let sql =
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'provider_connections'";
    let share = || {
        let db = Db::new();
        Load::rows(20_000).into(&db);
        rekey(&db, ["run", "--workers", "1"]).exits(0);
        let (updates, hot) = until("the server to have counted", SOON, || {
            let counted: (i64, i64) =
                crate::support::block_on(sqlx::query_as(sql).fetch_one(db.pool())).unwrap();
            (counted.0 >= 20_000).then_some(counted)
        });
        hot as f64 / updates as f64
    };
    let mut best = 0.0_f64;
    for _ in 0..5 {
        best = best.max(share());
        if best > 0.5 {
            break;
        }
    }
    assert!(best > 0.5, "at most {:.0} % of the updates stayed on their page", best * 100.0);
}
