//! Keys that somebody else changes: `--external`, from the first look to the last, and the late writers in between.

use std::fs;

use crate::application::{Application, Shape};
use crate::support::judge::stored;
use crate::support::load::{Load, fresh_iv, some_ids, store, store_raw};
use crate::support::{Cipher, Db, Judge, NEW, OLD, OTHER, Rekey, block_on, rekey};

fn state(db: &Db) -> String {
    db.value("SELECT state FROM rekey.rotations ORDER BY id DESC LIMIT 1")
}

#[test]
fn an_environment_variable_there_and_back() {
    let db = Db::new();
    Load::rows(40).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let with = |key: &'static str, command: &[&str]| rekey(&db, []).more(command).env("ENCRYPTION_KEY", key);
    with(OLD, &["run"]).exits(0);
    let cannot = with(OLD, &["promote", "--yes"]).exits(2);
    assert!(cannot.stderr.contains("--external"), "{cannot}");
    assert_eq!(state(&db), "migrated");

    for _ in 0..2 {
        let unchanged = with(OLD, &["promote", "--external", "--yes"]).exits(7);
        assert!(unchanged.stderr.contains("set ENCRYPTION_KEY"), "{unchanged}");
        assert_eq!(state(&db), "promoting");
    }
    with(OLD, &["run"]).exits(7);
    // The old key is out of the environment now: promote and finalize need the new one only.
    let gone = |rekey: Rekey| rekey.without("NEW_ENCRYPTION_KEY");
    gone(with(NEW, &["promote", "--external", "--yes"])).exits(0);
    assert_eq!(state(&db), "promoted");
    gone(with(NEW, &["verify"])).exits(0);
    let id = some_ids(&db, 1, 3)[0];
    store(&db, id, NEW, b"written since the promotion");
    judge.expect(id, b"written since the promotion");
    judge.expect_touched(id);

    // Back needs both, the old one by whatever name.
    with(NEW, &["rollback", "--yes"]).exits(3);
    assert_eq!(state(&db), "promoted");
    fs::write(std::env::temp_dir().join(format!("rekey-old-{}", db.name)), OLD).unwrap();
    let file = format!("file:{}/rekey-old-{}", std::env::temp_dir().display(), db.name);
    let back = with(NEW, &["rollback", "--yes", "--old-key", &file]).exits(7);
    assert!(back.stderr.contains("set ENCRYPTION_KEY"), "{back}");
    assert_eq!(state(&db), "unpromoting");
    judge.all_on(&db, OLD);
    // The application still runs with the new key, and writes.
    store(&db, id, NEW, b"written while nobody changed it back");
    judge.expect(id, b"written while nobody changed it back");
    // A pause that somebody thought of meanwhile does not outlive the rotation, which nobody could resume any more.
    with(OLD, &["pause"]).exits(0);
    with(OLD, &["rollback", "--yes"]).exits(0);
    assert_eq!(state(&db), "rolled_back");
    judge.all_on(&db, OLD);
    with(OLD, &["verify"]).exits(0);
    fs::remove_file(&file["file:".len()..]).unwrap();
}

/// Rows saved under the old key while a promotion waits for somebody's hand must not lock it up.
#[test]
fn a_late_writer_while_promoting() {
    for changed in [false, true] {
        let db = Db::new();
        Load::rows(40).into(&db);
        let mut judge = Judge::look(&db, &[OLD]);
        rekey(&db, ["run"]).exits(0);
        rekey(&db, ["promote", "--external", "--yes"]).exits(7);
        let id = some_ids(&db, 1, 5)[0];
        store(&db, id, OLD, b"refreshed under the old key");
        judge.expect(id, b"refreshed under the old key");
        judge.expect_touched(id);
        let reads = if changed { NEW } else { OLD };
        let now =
            |command: &[&str]| rekey(&db, []).more(command).env("ENCRYPTION_KEY", reads).env("PREVIOUS", OLD);
        now(&["promote", "--external", "--yes"]).exits(6);
        assert_eq!(state(&db), if changed { "promoted" } else { "migrated" });
        now(&["run", "--old-key", "env:PREVIOUS"]).exits(0);
        judge.all_on(&db, NEW);
        rekey(&db, ["promote", "--external", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
        rekey(&db, ["finalize", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
        judge.all_on(&db, NEW);
    }
}

/// Nor must one that no key opens: it can be quarantined, and accepted.
#[test]
fn a_damaged_row_while_promoting() {
    let db = Db::new();
    Load::rows(40).into(&db);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["promote", "--external", "--yes"]).exits(7);
    let id = some_ids(&db, 1, 5)[0];
    store(&db, id, OTHER, b"saved under a key that nobody knows");
    rekey(&db, ["promote", "--external", "--yes"]).exits(5);
    assert_eq!(state(&db), "migrated");
    rekey(&db, ["run"]).exits(5);
    rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--reason", "its owner connects again"])
        .exits(0);
    // With both keys it is known that the row is as it was accepted.
    let changed = |command: &[&str]| {
        let command = rekey(&db, []).more(command).args(["--old-key", "env:FORMER"]).env("FORMER", OLD);
        command.env("ENCRYPTION_KEY", NEW).exits(0)
    };
    changed(&["promote", "--external", "--yes"]);
    changed(&["finalize", "--yes"]);
}

/// What rekey itself promoted it takes back itself, whatever is said in between.
#[test]
fn an_own_promotion_stays_its_own() {
    let mut app = Application::new(Shape::Plain, 20);
    app.rekey(["run"]).exits(0);
    app.rekey(["promote", "--yes"]).exits(0);
    app.rekey(["promote", "--external", "--yes"]).exits(0);
    app.rekey(["rollback", "--yes"]).exits(0);
    assert_eq!(app.at("AWSCURRENT"), OLD);
    app.judge.all_on(&app.db, OLD);
}

/// Somebody else was to change it, and then rekey was let.
#[test]
fn a_promotion_that_becomes_its_own() {
    let mut app = Application::new(Shape::Plain, 20);
    app.rekey(["run"]).exits(0);
    app.rekey(["promote", "--external", "--yes"]).exits(7);
    app.rekey(["promote", "--yes"]).exits(0);
    assert_eq!(app.at("AWSCURRENT"), NEW);
    app.rekey(["rollback", "--yes"]).exits(0);
    assert_eq!(app.at("AWSCURRENT"), OLD);
    app.judge.all_on(&app.db, OLD);
}

/// The environment was changed before anybody ran promote: the new key is nowhere but where the application reads it.
#[test]
fn changed_before_it_was_asked_for() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    let changed = |command: &[&str]| {
        rekey(&db, []).more(command).env("ENCRYPTION_KEY", NEW).without("NEW_ENCRYPTION_KEY")
    };
    changed(&["promote", "--external", "--yes"]).exits(0);
    changed(&["finalize", "--yes"]).exits(0);
    Judge::look(&db, &[NEW]).all_on(&db, NEW);
}

#[test]
fn a_file_of_somebody_elses() {
    let db = Db::new();
    Load::rows(40).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let dir = tempfile::tempdir().unwrap();
    let (live, next) = (dir.path().join("key"), dir.path().join("next"));
    fs::write(&live, format!("{OLD}\n")).unwrap();
    fs::write(&next, format!("{NEW}\r\n")).unwrap();
    let (old, new) = (format!("file:{}", live.display()), format!("file:{}", next.display()));
    let bare = |command: &[&str]| {
        rekey(&db, []).more(command).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY")
    };
    bare(&["run", "--old-key", &old, "--new-key", &new]).exits(0);
    bare(&["promote", "--yes"]).exits(2);
    let by_hand = bare(&["promote", "--external", "--yes"]).exits(7);
    assert!(by_hand.stderr.contains(live.to_str().unwrap()), "{by_hand}");
    fs::write(&live, format!("{NEW}\n")).unwrap();
    bare(&["promote", "--external", "--yes"]).exits(0);
    // The old key is nowhere any more.
    bare(&["rollback", "--yes"]).exits(3);
    bare(&["finalize", "--yes"]).exits(0);
    judge.all_on(&db, NEW);
    assert_eq!(state(&db), "finalized");
}

/// The place is changed back by hand after promote: finalize refuses until it yields the new key.
#[test]
fn finalize_looks_once_more() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["promote", "--external", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
    rekey(&db, ["finalize", "--yes"]).exits(7);
    assert_eq!(state(&db), "promoted");
    rekey(&db, ["finalize", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
}

/// The table is looked at once more, too: a row that came back to the old key, or that no key opens, and nothing is final.
#[test]
fn finalize_verifies_once_more() {
    let mut app = Application::new(Shape::Plain, 20);
    app.rekey(["run"]).exits(0);
    app.rekey(["promote", "--yes"]).exits(0);
    let labels = app.versions(&app.secret());
    let id = some_ids(&app.db, 1, 3)[0];
    let good = stored(&app.db, id).expect("a credential");
    let damaged = b"no key opens these bytes, which is what makes a finding".to_vec();
    let late = Cipher::new(OLD).seal(fresh_iv(), b"saved by a process that was not restarted");
    for (bytes, code) in [(late, 6), (damaged, 5)] {
        store_raw(&app.db, id, &bytes);
        app.rekey(["finalize", "--yes"]).exits(code);
        assert_eq!((app.state().as_str(), app.versions(&app.secret())), ("promoted", labels.clone()));
        assert_eq!(block_on(app.moto.at(&app.temporary(), "AWSCURRENT")).as_deref(), Some(NEW));
    }
    store_raw(&app.db, id, &good);
    app.rekey(["finalize", "--yes"]).exits(0);
    assert_eq!(app.state(), "finalized");
    app.judge.all_on(&app.db, NEW);
}
