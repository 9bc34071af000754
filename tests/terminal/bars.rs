//! Log lines are printed around the bar: after every line the screen reads as if each had been written by itself.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::screen::Screen;
use crate::support::{Cluster, Db, Stop, rekey, run_in_small_steps};

const SIZES: [(u16, u16); 3] = [(80, 24), (100, 30), (160, 50)];

/// No line is cut, and no part of a bar is left behind once the command has ended.
#[track_caller]
fn reads_well(screen: &Screen) {
    for line in screen.lines() {
        let bar = line.contains('━') || line.contains('─');
        assert!(!bar, "a ghost of the bar is left: {line:?} on\n{screen}");
        let told = [" INFO ", " WARN "].iter().filter(|level| line.contains(*level)).count();
        assert!(told <= 1, "two lines in one: {line:?} on\n{screen}");
        // A line of the log begins with its time, at the left margin.
        assert!(told == 0 || line.starts_with("20"), "a line is cut: {line:?} on\n{screen}");
    }
}

fn slow(rows: u64) -> Db {
    let db = Db::new();
    Load::rows(rows).into(&db);
    db.slow_batches(Duration::from_millis(60));
    db
}

#[test]
fn a_run_that_is_paused_resumed_and_stopped_reads_well_at_every_size() {
    for (columns, lines) in SIZES {
        let db = slow(6000);
        let Some(mut screen) = run_in_small_steps(&db).on_a_terminal(columns, lines) else { return };
        screen.until("pass 1");
        rekey(&db, ["pause"]).exits(0);
        screen.until("Paused by the operator. Run `rekey resume` to continue");
        screen.until("waiting: paused by the operator");
        assert!(screen.count("pass 1 ") == 1, "one bar at a time:\n{screen}");
        rekey(&db, ["resume"]).exits(0);
        screen.until("Resumed by the operator");
        screen.signal("TERM");
        screen.until("Stopping after the current step");
        screen.ends(75);
        reads_well(&screen);
        for said in ["Rotation started", "Stopping after the current step", "stopped by a signal", "next: "] {
            assert!(screen.shows(said), "{columns}×{lines}: {said} is not on\n{screen}");
        }
    }
}

/// Ctrl-C at the keyboard echoes `^C` beside the bar: that goes with the bar, or stays in a line of its own.
#[test]
fn the_keyboard_stops_a_run_too() {
    let db = slow(6000);
    let Some(mut screen) = run_in_small_steps(&db).on_a_terminal(80, 24) else { return };
    screen.until("rows/s");
    screen.type_in("^C");
    screen.until("Stopping after the current step");
    screen.ends(75);
    reads_well(&screen);
}

/// Told in a line when it begins and one when it is over, and counted beside the bar in between.
#[test]
fn an_outage_is_one_line_that_counts() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(6000).into(&db);
    db.slow_batches(Duration::from_millis(60));
    let Some(mut screen) = run_in_small_steps(&db).on_a_terminal(100, 30) else { return };
    screen.until("rows/s");
    cluster.stop(Stop::Immediate);
    screen.until("waiting: database unreachable for 3 s");
    cluster.boot();
    db.fast_commits();
    screen.until("Database reachable again");
    screen.ends(0);
    reads_well(&screen);
    // Two come before the waiting; each worker and the heartbeat may find its dead connection when it is over.
    let warned = screen.count(" WARN ");
    assert!(warned <= 6, "{warned} warnings for one outage:\n{screen}");
}
