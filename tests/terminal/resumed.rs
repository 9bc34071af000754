//! A process that carries on says how far the rotation is, and whose lease it may wait for.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Db, SOON, rekey, status, until};

#[test]
fn resuming_says_how_far_it_is_and_whose_lease_it_waits_for() {
    let db = Db::new();
    Load::rows(6000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(60));
    let small = ["run", "--chunk-rows", "400", "--batch-rows", "50", "--lease-ttl", "30s"];
    let run = || rekey(&db, small).without("REKEY_LOG_FORMAT");
    let first = run().start();
    db.wait_moved(400);
    first.kill();
    db.wait_alone();
    let silent = until("the killed process to be silent", SOON, || {
        let process = status(&db)["processes"][0].clone();
        (process["seen_seconds_ago"].as_f64()? > 2.5).then_some(process)
    });
    let (done, killed) = (db.moved(), silent["process"].as_str().unwrap());
    let Some(mut second) = run().on_a_terminal(200, 30) else { return };
    second.until("resuming ");
    let line = second.lines().iter().find(|line| line.contains("resuming ")).unwrap().clone();
    let id: String = db.value("SELECT id::text FROM rekey.rotations");
    let begins = format!("INFO resuming {id}: {done} of about 6 000 rows; waiting at most ");
    let ends = format!(" s for the lease of {killed} (silent)");
    assert!(
        line.contains(&begins.replace("1000", "1 000")) && line.ends_with(&ends),
        "{line}\n{begins}…{ends}"
    );
    let third = run().start();
    until("a third process to say that it joins", SOON, || {
        (status(&db)["processes"].as_array()?.len() >= 3).then_some(())
    });
    third.signal(rustix::process::Signal::TERM);
    let third = third.wait().expect(75);
    assert!(third.stderr.contains(&format!("INFO joining {id}: ")), "{third}");
    assert!(third.stderr.contains("; 1 other process at work"), "{third}");
    second.signal("TERM");
    second.ends(75);
    // The way back says so too.
    let hold = db.hold_last();
    let back = rekey(&db, ["rollback", "--yes"]).start();
    until("the rollback to turn", SOON, || {
        (status(&db)["rotation"]["state"] == "rolling_back").then_some(())
    });
    back.kill();
    hold.rollback();
    db.fast_commits();
    let back = rekey(&db, ["rollback", "--yes"]).without("REKEY_LOG_FORMAT").exits(0);
    assert!(back.stderr.contains(&format!("the rollback of {id}: ")), "{back}");
}
