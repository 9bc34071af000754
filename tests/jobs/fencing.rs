//! A lease that was taken over writes nothing more. Processes that freeze and thaw (`engine processes::`) stop by their own
//! clock before they get that far; here the statements are asked directly.

use std::time::Duration;

use rekey::rotation::{Counters, Direction};
use rekey::store::Purpose;
use rekey::store::ledger::chunk::{self, Checkpoint};
use rekey::store::ledger::lease::{Lease, Owner};
use rekey::store::ledger::{claim, pass, rotation};
use sqlx::PgConnection;

use crate::scene::{Scene, on};
use crate::support::block_on;

const TTL: Duration = Duration::from_secs(30);

async fn writes(conn: &mut PgConnection, lease: &Lease) -> bool {
    let nothing = Checkpoint { add: Counters::default(), moved: &[], done: false };
    chunk::checkpoint(conn, lease, &nothing).await.unwrap().is_some()
}

#[test]
fn who_lost_the_lease_writes_no_checkpoint() {
    let scene = Scene::rows(100);
    scene.run().unwrap();
    // As it was in the midst of it, with one chunk that no process holds.
    scene.db.execute("UPDATE rekey.rotations SET state = 'migrating'");
    scene.db.execute("UPDATE rekey.passes SET outcome = NULL");
    scene.db.execute(
        "UPDATE rekey.chunks SET state = 'open', owner = NULL WHERE id = (SELECT min(id) FROM rekey.chunks)",
    );
    block_on(async {
        let mut conn = on(&scene.db).connector().unwrap().connect(Purpose::Write).await.unwrap();
        let active = rotation::latest(&mut conn).await.unwrap().unwrap();
        let pass = pass::latest(&mut conn, active.id, Direction::Forward).await.unwrap().unwrap();
        let owner = |process: &str, worker| Owner { process: process.to_owned(), worker };
        let first = claim::claim(&mut conn, &pass, &owner("a", 0), TTL).await.unwrap().unwrap();
        assert!(writes(&mut conn, &first).await, "it holds the lease");

        // The same process and worker, too: the epoch alone tells its two leases apart.
        for next in [owner("a", 0), owner("a", 1), owner("b", 0)] {
            let run_out = "UPDATE rekey.chunks SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'open'";
            sqlx::query(run_out).execute(&mut conn).await.unwrap();
            let second = claim::claim(&mut conn, &pass, &next, TTL).await.unwrap().unwrap();
            assert_eq!(second.chunk(), first.chunk());
            assert!(!writes(&mut conn, &first).await, "taken over by {next:?}");
            assert_eq!(chunk::settle(&mut conn, &first).await.unwrap(), None);
            assert!(writes(&mut conn, &second).await);
            assert!(chunk::settle(&mut conn, &second).await.unwrap().is_some());
        }
    });
}
