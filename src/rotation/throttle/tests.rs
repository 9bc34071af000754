//! Decisions on made-up signals; `tests/engine/throttle/` provokes each on real servers.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn limits() -> Limits {
    Limits {
        replica_bytes: Some(100 * MIB),
        replica_delay: Some(Duration::from_secs(10)),
        slot_bytes: Some(1000 * MIB),
        slot_xmin_age: Some(1000),
        archive_bytes: Some(160 * MIB),
        blocked_sessions: Some(2),
        checkpoints_a_minute: Some(8),
        ..Limits::default()
    }
}

fn calm() -> Signals {
    Signals {
        clock: Timestamp::UNIX_EPOCH,
        timeline: 1,
        segment: 100,
        segment_bytes: 16 * MIB,
        replicas: vec![replica("a", 0)],
        slots: vec![Slot { name: "s".into(), retained_bytes: 0, xmin_age: 0, active: true }],
        archive: Some(Archive { archived_up_to: Some(99), failing: false }),
        blocked: 0,
        checkpoints_requested: 7,
        unreadable: None,
    }
}

fn replica(name: &str, behind_bytes: u64) -> Replica {
    Replica { name: name.into(), behind_bytes, behind: Duration::ZERO }
}

/// The reason for one look, after a calm one.
fn reason(change: impl FnOnce(&mut Signals)) -> Option<(Reason, bool)> {
    let mut throttle = Throttle::new(limits());
    assert_eq!(throttle.decide(Duration::ZERO, &calm()), Verdict::default());
    let mut signals = calm();
    change(&mut signals);
    let verdict = throttle.decide(Duration::from_secs(5), &signals);
    let waits = verdict.waits();
    verdict.why.map(|why| (why.reason, waits))
}

#[test]
fn each_signal_has_its_reason() {
    assert_eq!(reason(|_| {}), None);
    assert_eq!(reason(|s| s.replicas[0].behind_bytes = 101 * MIB), Some((Reason::ReplicationLag, true)));
    assert_eq!(reason(|s| s.replicas[0].behind_bytes = 60 * MIB), Some((Reason::ReplicationLag, false)));
    let late =
        |s: &mut Signals| (s.replicas[0].behind, s.replicas[0].behind_bytes) = (Duration::from_secs(11), 1);
    assert_eq!(reason(late), Some((Reason::ReplicationLag, true)));
    assert_eq!(reason(|s| s.replicas.clear()), Some((Reason::ReplicaGone, true)));
    assert_eq!(reason(|s| s.slots[0].retained_bytes = 1001 * MIB), Some((Reason::SlotWal, true)));
    assert_eq!(reason(|s| s.slots[0].xmin_age = 1001), Some((Reason::SlotXmin, true)));
    assert_eq!(reason(|s| s.segment = 110), Some((Reason::WalArchive, true)));
    assert_eq!(reason(|s| s.blocked = 3), Some((Reason::Blocked, false)));
    assert_eq!(reason(|s| s.checkpoints_requested += 3), Some((Reason::Checkpoints, false)));
    assert_eq!(reason(|s| s.unreadable = Some("GRANT".into())), Some((Reason::Unreadable, true)));
}

#[test]
fn at_a_limit_of_ours_nothing_is_too_much_yet_and_of_two_slots_worries_the_first_is_told() {
    assert_eq!(reason(|s| s.blocked = 2), None);
    assert_eq!(reason(|s| s.checkpoints_requested += 2), None);
    let both = |s: &mut Signals| (s.slots[0].retained_bytes, s.slots[0].xmin_age) = (1001 * MIB, 1001);
    assert_eq!(reason(both), Some((Reason::SlotWal, true)));
}

#[test]
fn what_was_measured_is_told_with_its_limit() {
    let told = |change: fn(&mut Signals)| {
        let (mut throttle, mut signals) = (Throttle::new(limits()), calm());
        throttle.decide(Duration::ZERO, &signals);
        change(&mut signals);
        throttle.decide(Duration::from_secs(5), &signals).why.expect("a reason").to_string()
    };
    assert_eq!(
        told(
            |s| (s.replicas[0].behind_bytes, s.replicas[0].behind) = (101 * MIB, Duration::from_millis(1500))
        ),
        "replication lag: a lags by 101.0 MiB and 1.5 s; the limits are 100.0 MiB and 10 s; waiting"
    );
    assert_eq!(
        told(|s| s.slots[0].retained_bytes = 1001 * MIB),
        "slot retains WAL: s retains 1001.0 MiB; the limit is 1000.0 MiB; waiting"
    );
    assert_eq!(
        told(|s| s.slots[0].xmin_age = 1001),
        "slot holds back xmin: the xmin of s is 1001 transactions old; the limit is 1000; waiting"
    );
    assert_eq!(
        told(|s| s.segment = 110),
        "WAL archive backlog: 10 segments (160.0 MiB) wait; the limit is 160.0 MiB; waiting"
    );
    assert_eq!(
        told(|s| s.blocked = 3),
        "sessions blocked by rekey: 3 sessions wait for rekey's locks; the limit is 2; slowed down"
    );
    assert_eq!(
        told(|s| s.checkpoints_requested += 3),
        "checkpoint pressure: WAL forced 12 PostgreSQL checkpoints per minute; the limit is 8; slowed down"
    );
}

#[test]
fn a_delay_without_anything_left_to_replay_is_old_news() {
    assert_eq!(reason(|s| s.replicas[0].behind = Duration::from_secs(60)), None);
}

#[test]
fn an_archive_that_fails_slows_from_the_first_segment_on() {
    let failing = |s: &mut Signals| {
        s.segment = 102;
        s.archive = Some(Archive { archived_up_to: Some(100), failing: true });
    };
    assert_eq!(reason(failing), Some((Reason::WalArchive, false)));
}

#[test]
fn an_archive_with_nothing_or_little_to_do_is_no_reason() {
    assert_eq!(reason(|s| s.segment = 102), None);
    let failing = Some(Archive { archived_up_to: Some(99), failing: true });
    assert_eq!(reason(|s| s.archive = failing), None);
}

#[test]
fn one_limit_alone_is_watched_as_well() {
    for (replica_bytes, replica_delay) in [(Some(MIB), None), (None, Some(Duration::from_secs(10)))] {
        let mut throttle = Throttle::new(Limits { replica_bytes, replica_delay, ..Limits::default() });
        let late = Replica { behind: Duration::from_secs(11), ..replica("a", 2 * MIB) };
        assert!(throttle.decide(Duration::ZERO, &Signals { replicas: vec![late], ..calm() }).waits());
    }
}

/// The paces for so many requested checkpoints at so many seconds.
fn at_checkpoints(looks: &[(u64, i64)]) -> Vec<Pace> {
    let mut throttle = Throttle::new(limits());
    let mut look = |&(at, checkpoints_requested): &(u64, i64)| {
        throttle.decide(Duration::from_secs(at), &Signals { checkpoints_requested, ..calm() }).pace
    };
    looks.iter().map(&mut look).collect()
}

#[test]
fn checkpoints_count_for_a_quarter_of_a_minute_and_anew_when_statistics_are_reset() {
    let slow = |ms| Pace::Slow(Duration::from_millis(ms));
    assert_eq!(at_checkpoints(&[(0, 7), (15, 10)]), [Pace::Go, slow(20)]);
    assert_eq!(at_checkpoints(&[(0, 7), (16, 10)]), [Pace::Go, Pace::Go]);
    assert_eq!(at_checkpoints(&[(0, 7), (1, 9), (2, 9), (3, 10)])[2..], [Pace::Go, slow(20)]);
    assert_eq!(at_checkpoints(&[(0, 7), (1, 0), (2, 3)]), [Pace::Go, Pace::Go, slow(20)]);
    assert_eq!(at_checkpoints(&[(0, 7), (1, 10), (5, 13), (6, 13)])[1..], [slow(20), slow(20), slow(40)]);
}

#[test]
fn who_is_gone_is_told_and_for_how_long() {
    let mut throttle = Throttle::new(limits());
    let mut look = |at, names: &[&str]| {
        let replicas = names.iter().map(|name| replica(name, 0)).collect();
        let verdict = throttle.decide(Duration::from_secs(at), &Signals { replicas, ..calm() });
        verdict.why.map_or_else(String::new, |why| why.to_string())
    };
    assert_eq!(look(1, &["a", "b", "b"]), "");
    assert!(look(2, &["a", "b"]).starts_with("replica vanished: one of 2 replicas b stopped streaming"));
    assert!(look(7, &["b", "b"]).starts_with("replica vanished: a stopped streaming 0 s ago"));
    assert!(look(9, &["b", "b"]).starts_with("replica vanished: a stopped streaming 2 s ago"));
}

#[test]
fn a_reason_without_details_stands_alone() {
    let verdict = Verdict::wait(Reason::Paused, "");
    assert!(verdict.waits());
    assert_eq!(verdict.why.unwrap().to_string(), "paused by the operator");
}

#[test]
fn where_nothing_was_ever_archived_only_what_is_added_counts() {
    let mut throttle = Throttle::new(limits());
    let mut signals = calm();
    signals.archive = Some(Archive { archived_up_to: None, failing: false });
    assert_eq!(throttle.decide(Duration::ZERO, &signals), Verdict::default());
    signals.segment += 11;
    assert!(throttle.decide(Duration::from_secs(1), &signals).waits());
}

#[test]
fn replicas_of_one_name_are_counted_and_one_that_comes_back_ends_the_wait() {
    let mut throttle = Throttle::new(limits());
    let mut at = 0;
    let mut look = |names: &[&str]| {
        at += 10;
        let replicas = names.iter().map(|name| replica(name, 0)).collect();
        throttle.decide(Duration::from_secs(at), &Signals { replicas, ..calm() }).waits()
    };
    assert!(!look(&["walreceiver"]));
    assert!(!look(&["walreceiver", "walreceiver"]));
    assert!(look(&["walreceiver"]));
    assert!(look(&["walreceiver", "other"]));
    assert!(!look(&["walreceiver", "other", "walreceiver"]));
}

#[test]
fn another_timeline_is_another_server() {
    let mut throttle = Throttle::new(limits());
    throttle.decide(Duration::ZERO, &calm());
    let promoted = Signals { timeline: 2, replicas: Vec::new(), checkpoints_requested: 0, ..calm() };
    assert_eq!(throttle.decide(Duration::from_secs(1), &promoted), Verdict::default());
}

#[test]
fn what_is_off_is_not_watched() {
    let mut throttle = Throttle::new(Limits::default());
    throttle.decide(Duration::ZERO, &calm());
    let mut signals = calm();
    signals.replicas.clear();
    signals.slots[0].retained_bytes = u64::MAX;
    (signals.segment, signals.blocked, signals.checkpoints_requested) = (10_000, 500, 1000);
    signals.unreadable = Some("GRANT".into());
    assert_eq!(throttle.decide(Duration::from_secs(1), &signals), Verdict::default());
}

#[test]
fn the_unreadable_passes_if_it_is_allowed() {
    let mut throttle = Throttle::new(Limits { allow_unreadable: true, ..limits() });
    let signals = Signals { unreadable: Some("GRANT".into()), replicas: Vec::new(), ..calm() };
    assert_eq!(throttle.decide(Duration::ZERO, &signals), Verdict::default());
}

#[test]
fn outside_the_window_it_says_when_it_opens() {
    let window = crate::rotation::Window::parse("01:00-05:00 Europe/Berlin").ok();
    let mut throttle = Throttle::new(Limits { window, ..limits() });
    let clock = "2026-11-25T12:00:00.5Z".parse().unwrap();
    let verdict = throttle.decide(Duration::ZERO, &Signals { clock, ..calm() });
    let why = verdict.why.unwrap().to_string();
    assert_eq!(why, "outside the window: 01:00-05:00 Europe/Berlin, opens at 2026-11-26T00:00:00Z; waiting");
}

#[test]
fn every_word_is_a_label_of_its_own() {
    let words: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    assert_eq!(words.len(), Reason::ALL.len());
    assert!(words.iter().all(|word| !word.contains([':', '(', ';'])));
}

proptest! {
    /// After any trouble, half a minute of calm ends every pause and every wait.
    #[test]
    fn calm_ends_everything(trouble in prop::collection::vec((0u64..300, 0u64..2000, 0u64..30, 0u32..9, 0i64..4), 0..100)) {
        let (mut throttle, mut signals, mut now) = (Throttle::new(limits()), calm(), Duration::ZERO);
        for (lag, slot, segments, blocked, checkpoints) in trouble {
            now += Duration::from_secs(1);
            signals.replicas[0].behind_bytes = lag * MIB;
            signals.slots[0].retained_bytes = slot * MIB;
            signals.segment = 100 + segments;
            signals.blocked = blocked;
            signals.checkpoints_requested += checkpoints;
            let verdict = throttle.decide(now, &signals);
            prop_assert_eq!(verdict.pace == Pace::Go, verdict.why.is_none());
            prop_assert!(verdict.waits() || (lag < 100 && slot < 1000 && segments < 11), "{:?}", signals);
        }
        let calm = Signals { checkpoints_requested: signals.checkpoints_requested, ..calm() };
        for _ in 0..120 {
            now += Duration::from_secs(1);
            throttle.decide(now, &calm);
        }
        prop_assert_eq!(throttle.decide(now, &calm), Verdict::default());
    }
}

#[test]
fn lag_in_time_is_a_share_of_its_limit() {
    let limits =
        Limits { replica_bytes: None, replica_delay: Some(Duration::from_secs(10)), ..Limits::default() };
    for (seconds, wanted) in [(5, 0.5), (25, 2.5)] {
        let replica = Replica { name: "r".into(), behind_bytes: 1, behind: Duration::from_secs(seconds) };
        assert!((limits.lag(&replica) - wanted).abs() < 1e-9);
    }
}
