//! A value that the server itself cannot read any more: that row is quarantined, and no other suffers.

use crate::support::damaged::{damaged, damaged_value};
use crate::support::{Judge, OLD, rekey, state};

#[test]
fn a_value_the_server_cannot_read_is_quarantined_and_the_rest_moved_there_and_back() {
    let (_cluster, db, id) = damaged(1200);
    rekey(&db, ["plan"]).exits(0);
    rekey(&db, ["run", "--dry-run"]).exits(5);
    rekey(&db, ["run"]).exits(5);
    // Its pointer goes along into a version that is younger than the pass.
    db.execute(&format!("UPDATE provider_connections SET alias = 'looked at' WHERE id = '{id}'"));
    rekey(&db, ["run"]).exits(5);
    let listed = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    assert_eq!(listed[0]["id"], id.to_string(), "{listed:#}");
    assert_eq!(listed[0]["reason"], "damaged", "{listed:#}");
    assert_eq!(rekey(&db, ["verify"]).json(5)["unreadable"], 1);
    rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "its disk block is gone"])
        .exits(0);
    rekey(&db, ["run"]).exits(0);
    let found = rekey(&db, ["verify"]).json(0);
    assert_eq!((&found["accepted"], &found["identical"]), (&1.into(), &1199.into()), "{found:#}");
    rekey(&db, ["rollback", "--yes"]).exits(0);
    assert_eq!(state(&db), "rolled_back");
    // Only then can the rest be judged: reading the table as a whole is what the damage prevents.
    db.execute(&format!("DELETE FROM provider_connections WHERE id = '{id}'"));
    assert_eq!(Judge::look(&db, &[OLD]).openable(), 1199);
}

/// One that is too large to be read besides: no statement asks for its bytes.
#[test]
fn a_damaged_value_of_nine_megabytes_stops_no_run() {
    let (_cluster, db, id) = damaged_value(200, 9 << 20);
    rekey(&db, ["run"]).exits(5);
    let listed = rekey(&db, ["quarantine", "list"]).json(0)["result"].clone();
    assert_eq!((&listed[0]["id"], &listed[0]["reason"]), (&id.to_string().into(), &"too_large".into()));
    rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "its disk block is gone"])
        .exits(0);
    rekey(&db, ["run"]).exits(0);
    assert_eq!(rekey(&db, ["verify"]).json(0)["accepted"], 1);
}
