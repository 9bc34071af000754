//! SIGKILL between any two changes outside, then the next command: it ends right, wherever the first one stopped.
//!
//! A relay stands between the binary and Secrets Manager. From the n-th change on it lets nothing through (or lets
//! that change take effect and loses its answer), and at that moment the process is killed; n rises until nothing is
//! lost any more.

use std::time::Duration;

use rustix::process::Signal;

use crate::application::{Application, Shape};
use crate::support::{NEW, OLD, Rekey, SOON, block_on, until};
use crate::support_aws::relay::{Lose, Relay};

const WAYS: [fn(usize) -> Lose; 2] = [Lose::ChangesFrom, Lose::ChangedFrom];

/// Runs it through a relay that loses messages, and kills it as soon as one was lost. False: it ran to its end.
fn killed(app: &Application, lose: Lose, arguments: &[&str]) -> bool {
    let relay = block_on(Relay::start(&app.moto.url, lose));
    let command: Rekey = app.rekey_through(&relay.url, []).more(arguments);
    let mut running = command.start();
    let ended = until("the process to end, or a message to be lost", Duration::from_secs(120), || {
        if relay.has_lost() {
            return Some(false);
        }
        (!running.running()).then_some(true)
    });
    if ended && !relay.has_lost() {
        running.wait().expect(0);
        return false;
    }
    running.kill();
    // It may still hold what the next one needs.
    app.db.wait_alone();
    true
}

/// For every n: `prepare`, `command` killed at the n-th change, `check`. Returns how many changes there are.
fn at_every_change(
    shape: Shape,
    prepare: &[&[&str]],
    command: &[&str],
    mut check: impl FnMut(Application, usize),
) {
    let mut kills = 0;
    for way in WAYS {
        for n in 0.. {
            assert!(n < 24, "never ends");
            let app = Application::new(shape, 12);
            for step in prepare {
                app.rekey([]).more(step).exits(0);
            }
            let was_killed = killed(&app, way(n), command);
            kills += usize::from(was_killed);
            check(app, n);
            if !was_killed {
                break;
            }
        }
    }
    assert!(kills >= 4, "{kills} kills");
}

fn promoted(app: &mut Application, n: usize) {
    assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s1"), "{n}");
    assert_eq!(app.at("AWSPREVIOUS"), app.content(OLD, "s1"), "{n}");
    assert_eq!(app.holder("AWSPREVIOUS").as_ref(), Some(&app.first), "{n}");
    let ours = usize::from(app.shape == Shape::Json);
    assert_eq!(app.versions(&app.secret()).len(), 2 + ours, "{n}: one version was made");
    assert_eq!(app.state(), "promoted", "{n}");
    app.judge.all_on(&app.db, NEW);
}

#[test]
fn promote_then_promote() {
    for shape in [Shape::Plain, Shape::Json] {
        at_every_change(shape, &[&["run"]], &["promote", "--yes"], |mut app, n| {
            app.rekey(["promote", "--yes"]).exits(0);
            promoted(&mut app, n);
        });
    }
}

#[test]
fn promote_then_rollback() {
    at_every_change(Shape::Json, &[&["run"]], &["promote", "--yes"], |mut app, n| {
        let current = app.holder("AWSCURRENT").unwrap();
        let put = app
            .versions(&app.secret())
            .into_iter()
            .find(|(_, l)| l.iter().any(|l| l.starts_with("rekey-promote-")));
        app.rekey(["rollback", "--yes"]).exits(0);
        assert_eq!(app.at("AWSCURRENT"), app.content(OLD, "s1"), "{n}");
        assert_eq!(app.our_labels(), Vec::<String>::new(), "{n}");
        assert_eq!(app.state(), "rolled_back", "{n}");
        app.judge.all_on(&app.db, OLD);
        // The move that was on the wire lands now, and fails: what it removes from is current no more.
        if let Some((put, _)) = put.filter(|(put, _)| *put != current) {
            let late = app.moto.sdk().update_secret_version_stage().secret_id(app.secret());
            let late =
                late.version_stage("AWSCURRENT").remove_from_version_id(current).move_to_version_id(put);
            block_on(late.send()).unwrap_err();
            assert_eq!(app.at("AWSCURRENT"), app.content(OLD, "s1"), "{n}");
        }
    });
}

#[test]
fn rollback_then_rollback() {
    let prepare: &[&[&str]] = &[&["run"], &["promote", "--yes"]];
    at_every_change(Shape::Json, prepare, &["rollback", "--yes"], |mut app, n| {
        app.rekey(["rollback", "--yes"]).exits(0);
        assert_eq!(app.at("AWSCURRENT"), app.content(OLD, "s1"), "{n}");
        assert_eq!(app.at("AWSPREVIOUS"), app.content(NEW, "s1"), "{n}");
        // The first, the pending, the promoted and one fresh version; those without a label are not listed.
        assert!(app.versions(&app.secret()).len() <= 4, "{n}: {:?}", app.versions(&app.secret()));
        assert_eq!(app.our_labels(), Vec::<String>::new(), "{n}");
        assert_eq!(app.state(), "rolled_back", "{n}");
        app.judge.all_on(&app.db, OLD);
    });
}

#[test]
fn finalize_then_finalize() {
    for shape in [Shape::Plain, Shape::Json] {
        let prepare: &[&[&str]] = &[&["run"], &["promote", "--yes"]];
        at_every_change(shape, prepare, &["finalize", "--yes"], |mut app, n| {
            // What was killed after its last commit is over, which is 7; its labels are taken off all the same.
            let over = app.state() == "finalized";
            app.rekey(["finalize", "--yes"]).exits(if over { 7 } else { 0 });
            assert_eq!(app.state(), "finalized", "{n}");
            assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s1"), "{n}");
            let fingerprint: String = app.db.value("SELECT old_fingerprint FROM rekey.rotations");
            assert_eq!(app.holder(&format!("rekey-retired-{fingerprint}")).as_ref(), Some(&app.first), "{n}");
            assert_eq!(app.our_labels(), Vec::<String>::new(), "{n}");
            if shape == Shape::Plain {
                let temporary = block_on(app.moto.client().describe(&app.temporary())).unwrap();
                assert!(temporary.deletion.is_some(), "{n}");
            }
            app.judge.all_on(&app.db, NEW);
        });
    }
}

/// AWS takes 20 labels on all versions of a secret together: with as many there, one comes off before one goes on.
#[test]
fn finalize_with_no_label_to_spare() {
    for n in 0..3 {
        let app = Application::new(Shape::Plain, 12);
        app.rekey(["run"]).exits(0);
        app.rekey(["promote", "--yes"]).exits(0);
        app.fill_labels(20);
        assert!(killed(&app, Lose::ChangedFrom(n), &["finalize", "--yes"]));
        let versions = app.versions(&app.secret());
        assert!(versions.values().flatten().count() <= 20, "{n}: {versions:#?}");
        app.rekey(["finalize", "--yes"]).exits(0);
        assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s1"));
    }
}

/// Killed in `finalizing`, and somebody's get-then-put of the old key comes in between: there is no way back, so
/// finalize makes the new key current once more.
#[test]
fn a_finalize_that_was_killed_puts_the_target_right() {
    let app = Application::new(Shape::Json, 12);
    app.rekey(["run"]).exits(0);
    app.rekey(["promote", "--yes"]).exits(0);
    assert!(killed(&app, Lose::ChangesFrom(0), &["finalize", "--yes"]));
    assert_eq!(app.state(), "finalizing");
    app.rekey(["rollback", "--yes"]).exits(7);
    app.put(&app.content(OLD, "s9"));
    app.rekey(["finalize", "--yes"]).exits(0);
    assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s9"));
}

#[test]
fn restore_then_restore() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("k.gpg");
    let file = file.to_str().unwrap();
    for way in WAYS {
        for n in 0.. {
            assert!(n < 12, "never ends");
            let app = Application::new(Shape::Json, 1);
            let pass = |r: Rekey| r.env("REKEY_BACKUP_PASSPHRASE", "a long passphrase");
            if !std::path::Path::new(file).exists() {
                pass(app.rekey(["keys", "backup", "env:K", "--out", file])).env("K", OLD).exits(0);
            }
            app.put(&app.content(NEW, "s2"));
            let to = format!("aws:{}#encryption_key", app.secret());
            let arguments = ["keys", "restore", file, "--yes", "--to", &to];
            let relay = block_on(Relay::start(&app.moto.url, way(n)));
            let mut first = pass(app.rekey_through(&relay.url, []).more(&arguments)).start();
            until("the process to end, or a message to be lost", SOON, || {
                (relay.has_lost() || !first.running()).then_some(())
            });
            first.kill();
            app.db.wait_alone();
            pass(app.rekey([]).more(&arguments)).exits(0);
            assert_eq!(app.at("AWSCURRENT"), app.content(OLD, "s2"), "{n}");
            assert_eq!(app.at("AWSPREVIOUS"), app.content(NEW, "s2"), "{n}");
            if !relay.has_lost() {
                break;
            }
        }
    }
}

/// While somebody promotes, or finalizes, nobody else gets at the rotation; once they are dead, everybody does.
#[test]
fn a_promotion_or_an_end_in_progress_is_8() {
    let away = |action| Lose::Refused { action, times: usize::MAX, status: 503, code: "ServiceUnavailable" };
    let app = Application::new(Shape::Plain, 12);
    app.rekey(["run"]).exits(0);
    for (command, action, state, others) in [
        (
            "promote",
            "PutSecretValue",
            "promoting",
            &[&["run"][..], &["finalize", "--yes"], &["rollback", "--yes"]][..],
        ),
        ("finalize", "UpdateSecretVersionStage", "finalizing", &[&["run"][..], &["promote", "--yes"]]),
    ] {
        let relay = block_on(Relay::start(&app.moto.url, away(action)));
        let process = app.rekey_through(&relay.url, [command, "--yes"]).start();
        until("it to be on record", SOON, || (app.state() == state).then_some(()));
        process.signal(Signal::STOP);
        for other in others {
            app.rekey([]).more(other).exits(8);
        }
        app.rekey([command, "--yes"]).exits(8);
        assert_eq!(app.state(), state);
        process.kill();
        app.db.wait_alone();
        app.rekey(["run"]).exits(7);
        app.rekey([command, "--yes"]).exits(0);
    }
    assert_eq!(app.state(), "finalized");
}
