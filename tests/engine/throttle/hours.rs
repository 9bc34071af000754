//! Time and speed: `--window` and `--max-rate`.

use std::time::Duration;

use super::{gentle, held_up, says, throttled};
use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, Running, SOON, rekey, run_in_small_steps, status, until};
use rustix::process::Signal;

/// A window from so many minutes from now to so many, by the database's clock, which is UTC's.
fn window(db: &Db, from: i32, to: i32) -> String {
    let time = |minutes: i32| -> String {
        db.value(&format!(
            "SELECT to_char((clock_timestamp() AT TIME ZONE 'UTC') + interval '{minutes} minutes', 'HH24:MI')"
        ))
    };
    format!("{}-{} UTC", time(from), time(to))
}

/// What `status` says of one process of several.
fn reason_of(db: &Db, run: &Running) -> Option<String> {
    let (status, pid) = (status(db), format!("-{}-", run.pid().as_raw_nonzero()));
    let mut all = status["processes"].as_array()?.iter();
    let process = all.find(|p| p["process"].as_str().is_some_and(|name| name.contains(&pid)))?;
    process["throttle"].as_str().map(str::to_owned)
}

fn loaded(rows: u64) -> (Db, Judge) {
    let db = Db::new();
    Load::rows(rows).into(&db);
    db.mark();
    let judge = Judge::look(&db, &[OLD]);
    (db, judge)
}

#[test]
fn outside_the_window_nothing_moves_and_a_signal_ends_it() {
    let (db, mut judge) = loaded(500);
    let mut run = run_in_small_steps(&db).args(["--window", &window(&db, 120, 180)]).start();
    held_up(&db, &mut run, "outside the window");
    assert!(says(&db).is_some_and(|said| said.contains(", opens at ")));
    assert_eq!(db.moved(), 0);
    run.signal(Signal::TERM);
    run.wait_for(Duration::from_secs(10)).expect(75);
    rekey(&db, ["run", "--window", &window(&db, -60, 60)]).exits(0);
    judge.all_on(&db, NEW);
}

#[test]
fn a_deadline_ends_a_run_that_waits_and_pause_and_abort_reach_it() {
    let (db, mut judge) = loaded(500);
    let closed = window(&db, 120, 180);
    let run = || run_in_small_steps(&db).args(["--window", &closed]);
    // One that passes before the window opens is refused at once, and one that is set while a run waits ends it.
    run().args(["--deadline", "2s"]).exits(2);
    let mut waiting = run().start();
    held_up(&db, &mut waiting, "outside the window");
    rekey(&db, ["resume", "--deadline", "2s"]).exits(0);
    waiting.wait_for(Duration::from_secs(20)).expect(9);
    rekey(&db, ["resume"]).exits(0);
    let mut waiting = run().start();
    held_up(&db, &mut waiting, "outside the window");
    rekey(&db, ["pause"]).exits(0);
    until("the operator to be named", SOON, || {
        (status(&db)["processes"][0]["throttle"] == "paused by the operator").then_some(())
    });
    rekey(&db, ["abort"]).exits(0);
    waiting.wait_for(Duration::from_secs(20)).expect(9);
    rekey(&db, ["resume"]).exits(0);
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
}

/// Two minutes at most: windows have no seconds.
#[test]
fn a_window_that_closes_stops_the_run_and_one_that_opens_lets_it_go_on() {
    let (db, mut judge) = loaded(60_000);
    // Both have begun when the minute is over.
    until("time before the minute is over", SOON, || {
        db.value::<bool>("SELECT extract(second FROM clock_timestamp()) < 30").then_some(())
    });
    let mut closing = gentle(&db).args(["--window", &window(&db, -60, 1)]).start();
    let mut opening = gentle(&db).args(["--window", &window(&db, 1, 60)]).start();
    let outside =
        |run: &Running| reason_of(&db, run).is_some_and(|why| why.starts_with("outside the window: "));
    until("one to wait for its hour", SOON, || outside(&opening).then_some(()));
    until("one to close and the other to open", Duration::from_secs(90), || {
        (outside(&closing) && !outside(&opening)).then_some(())
    });
    let before = db.moved();
    db.wait_moved(before + 100);
    assert!(closing.running() && opening.running());
    closing.signal(Signal::TERM);
    opening.signal(Signal::TERM);
    closing.wait_for(Duration::from_secs(10)).expect(75);
    opening.wait_for(Duration::from_secs(10)).expect(75);
    judge.none_lost(&db, &[OLD, NEW]);
}

/// Others do the work that this one waits to do: then there is nothing to wait for.
#[test]
fn a_run_that_waits_ends_when_others_have_finished() {
    let (db, mut judge) = loaded(500);
    let mut waiting = run_in_small_steps(&db).args(["--window", &window(&db, 120, 180)]).start();
    held_up(&db, &mut waiting, "outside the window");
    rekey(&db, ["run"]).exits(0);
    waiting.wait_for(Duration::from_secs(20)).expect(0);
    judge.all_on(&db, NEW);
}

#[test]
fn what_is_no_window_rate_or_limit_is_a_mistake_in_usage() {
    let (db, _) = loaded(20);
    for (flag, value) in [
        ("--window", "01:00"),
        ("--window", "01:00-05:00 Mars/Olympus"),
        ("--window", "25:00-05:00"),
        ("--max-rate", "0"),
        ("--max-rate", "fast"),
        ("--max-slot-wal", "much"),
        ("--max-replica-lag", "-1s"),
    ] {
        rekey(&db, ["run", flag, value]).exits(2);
        let variable = format!("REKEY_{}", flag[2..].replace('-', "_").to_uppercase());
        rekey(&db, ["run"]).env(&variable, value).exits(2);
    }
    assert!(!db.has_rekey_schema());
}

/// A lower bound on time is no matter of luck: no more than the rate, and each worker's first batch.
#[test]
fn no_more_rows_a_second_than_the_rate() {
    let (db, mut judge) = loaded(2000);
    let mut run = rekey(&db, ["run", "--max-rate", "200", "--workers", "4"]).start();
    throttled(&db, &mut run, "max rate");
    let outcome = run.wait().expect(0);
    let least = Duration::from_secs_f64(2000.0 / 200.0 - 0.25);
    assert!(outcome.took >= least, "{outcome}");
    let largest: i32 = db.value("SELECT max(cardinality(ids)) FROM rekey.proofs");
    assert!(largest <= 50, "a batch of {largest} rows is a burst");
    judge.all_on(&db, NEW);
}
