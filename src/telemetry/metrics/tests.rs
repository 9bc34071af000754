//! Recording, the text, and readiness; promtool judges the text in `tests/observability.rs`.

use super::*;
use crate::rotation::throttle::{Replica, Slot, Why};

fn counters(rows: i64) -> Counters {
    Counters { re_encrypted: rows, bytes: rows * 100, ..Counters::default() }
}

fn waiting(reason: Reason) -> Progress {
    let why = Why { reason, detail: "because".into() };
    Progress { throttle: Some(why), waiting: true, ..Progress::default() }
}

#[test]
fn a_batch_counts_once_committed_or_rolled_back() {
    let metrics = Metrics::default();
    metrics.batch().committed(&counters(7), Duration::from_millis(3));
    drop(metrics.batch());
    let text = metrics.text();
    for line in [
        "rekey_rows_total{outcome=\"re_encrypted\"} 7",
        "rekey_written_bytes_total 700",
        "rekey_batches_total{outcome=\"committed\"} 1",
        "rekey_batches_total{outcome=\"rolled_back\"} 1",
        "rekey_lock_duration_seconds_bucket{le=\"0.0025\"} 0",
        "rekey_lock_duration_seconds_bucket{le=\"0.005\"} 1",
        "rekey_lock_duration_seconds_bucket{le=\"+Inf\"} 1",
        "rekey_lock_duration_seconds_count 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_time_beyond_every_bound_is_in_the_last_bucket_only() {
    let metrics = Metrics::default();
    metrics.batch().committed(&counters(1), Duration::from_secs(99));
    let text = metrics.text();
    assert!(text.contains("rekey_lock_duration_seconds_bucket{le=\"30\"} 0"), "{text}");
    assert!(text.contains("rekey_lock_duration_seconds_bucket{le=\"+Inf\"} 1"), "{text}");
}

#[test]
fn retries_are_counted_by_sqlstate() {
    let metrics = Metrics::default();
    metrics.retry(Some("40P01".into()));
    metrics.retry(Some("40P01".into()));
    metrics.retry(None);
    let text = metrics.text();
    assert!(text.contains("rekey_retries_total{sqlstate=\"40P01\"} 2"), "{text}");
    assert!(text.contains("rekey_retries_total{sqlstate=\"connection\"} 1"), "{text}");
}

#[test]
fn every_throttle_reason_is_a_series_and_one_is_active_at_a_time() {
    let metrics = Metrics::default();
    for reason in [Reason::ReplicationLag, Reason::Paused] {
        metrics.lock().see(waiting(reason));
    }
    let text = metrics.text();
    assert!(text.contains("rekey_throttled{reason=\"paused by the operator\"} 1"), "{text}");
    assert!(text.contains("rekey_throttled{reason=\"replication lag\"} 0"), "{text}");
    assert_eq!(text.matches("rekey_throttled{").count(), Reason::ALL.len(), "{text}");
}

#[test]
fn of_replicas_that_share_a_name_the_one_furthest_behind_speaks() {
    let replica = |name: &str, bytes, seconds| Replica {
        name: name.into(),
        behind_bytes: bytes,
        behind: Duration::from_secs(seconds),
    };
    let slot = Slot { name: "a_slot".into(), retained_bytes: 5, xmin_age: 0, active: true };
    let metrics = Metrics::default();
    metrics.looked(&Signals {
        clock: jiff::Timestamp::UNIX_EPOCH,
        timeline: 1,
        segment: 1,
        segment_bytes: 16 << 20,
        replicas: vec![replica("east", 7, 1), replica("east", 3, 9), replica("west", 1, 0)],
        slots: vec![slot],
        archive: None,
        blocked: 2,
        checkpoints_requested: 0,
        unreadable: None,
    });
    let text = metrics.text();
    for line in [
        "rekey_replication_lag_bytes{replica=\"east\"} 7",
        "rekey_replication_lag_bytes{replica=\"west\"} 1",
        "rekey_replication_lag_seconds{replica=\"east\"} 9",
        "rekey_slot_retained_bytes{slot=\"a_slot\"} 5",
        "rekey_blocked_sessions 2",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn ready_says_why_not() {
    let metrics = Metrics::default();
    let patience = Duration::from_secs(30);
    assert!(metrics.ready(patience).unwrap_err().contains("starting"));
    metrics.lock().see(Progress::default());
    assert_eq!(metrics.ready(patience), Ok(()));
    assert!(metrics.ready(Duration::ZERO).unwrap_err().contains("last successful database check"));
    metrics.lock().see(waiting(Reason::Paused));
    assert_eq!(metrics.ready(patience).unwrap_err(), "paused by the operator: because");
    metrics.lock().see(Progress { waiting: false, ..waiting(Reason::MaxRate) });
    assert_eq!(metrics.ready(patience), Ok(()), "slow is at work");
}

#[test]
fn labels_are_escaped() {
    let metrics = Metrics::default();
    metrics.retry(Some("a\"b\\c\nd".into()));
    assert!(metrics.text().contains("{sqlstate=\"a\\\"b\\\\c\\nd\"} 1"), "{}", metrics.text());
}

#[test]
fn the_file_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rekey.prom");
    std::fs::write(&path, "old").unwrap();
    let metrics = Metrics::default();
    metrics.ended(75);
    metrics.write_file(&path).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("rekey_exit_code 75\n"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// In a folder that others may write to, a link may wait where the file is made first.
#[test]
fn a_file_is_not_written_through_a_link() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, victim) = (dir.path().join("rekey.prom"), dir.path().join("victim"));
    std::fs::write(&victim, "untouched").expect("a file");
    let beside = dir.path().join(format!("rekey.prom.{}.tmp", std::process::id()));
    std::os::unix::fs::symlink(&victim, &beside).expect("a link");
    let metrics = Metrics::default();
    assert!(metrics.write_file(&path).is_err());
    assert_eq!(std::fs::read_to_string(&victim).expect("it reads"), "untouched");
    std::fs::remove_file(&beside).expect("it goes");
    std::os::unix::fs::symlink(&victim, &path).expect("a link");
    metrics.write_file(&path).expect("written");
    assert_eq!(std::fs::read_to_string(&victim).expect("it reads"), "untouched");
    assert!(std::fs::read_to_string(&path).expect("it reads").contains("rekey_"));
}
