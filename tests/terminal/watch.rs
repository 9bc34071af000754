//! `status --watch`: painted again in the same place, ended by Ctrl-C without an error, begun before a rotation is.

use std::time::Duration;

use serde_json::Value;

use crate::support::load::Load;
use crate::support::{Db, rekey, run_in_small_steps};
use rustix::process::Signal;

fn loaded() -> Db {
    let db = Db::new();
    Load::rows(2000).into(&db);
    db
}

#[test]
fn it_is_painted_in_place_and_waits_for_a_rotation_to_begin() {
    let db = loaded();
    for (columns, lines) in [(80, 24), (160, 50)] {
        let Some(mut screen) = rekey(&db, ["status", "--watch"]).on_a_terminal(columns, lines) else {
            return;
        };
        screen.until("waiting for a rotation to begin");
        let hold = db.hold_last();
        let run = run_in_small_steps(&db).start();
        screen.until("1 999 of ");
        assert_eq!(screen.count("PostgreSQL "), 1, "one page:\n{screen}");
        assert!(!screen.shows("waiting for a rotation to begin"), "{screen}");
        hold.rollback();
        run.wait().expect(0);
        screen.ends(0);
        assert!(screen.shows("migrated") && screen.count("PostgreSQL ") == 1, "{screen}");
        // Over, so that the next watch begins before the next rotation does.
        rekey(&db, ["rollback", "--yes"]).exits(0);
    }
}

#[test]
fn ctrl_c_is_how_watching_ends() {
    let db = loaded();
    let Some(mut screen) = rekey(&db, ["status", "--watch"]).on_a_terminal(80, 24) else { return };
    screen.until("waiting for a rotation to begin");
    screen.type_in("^C");
    screen.ends(0);
    assert!(!screen.shows("error"), "{screen}");
    // SIGTERM is an order to stop, as everywhere.
    let watch = rekey(&db, ["status", "--watch"]).start();
    watch.signal(Signal::TERM);
    watch.wait_for(Duration::from_secs(20)).expect(75);
}

/// One document a line, so that a program can read them as they come.
#[test]
fn as_json_it_is_one_document_a_line() {
    let db = loaded();
    db.slow_batches(Duration::from_millis(60));
    let watch = rekey(&db, ["status", "--watch", "--output", "json"]).start();
    run_in_small_steps(&db).exits(0);
    let watch = watch.wait().expect(0);
    let documents: Vec<Value> =
        watch.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(documents.len() >= 2, "{watch}");
    assert_eq!(documents.last().unwrap()["rotation"]["state"], "migrated", "{watch}");
}
