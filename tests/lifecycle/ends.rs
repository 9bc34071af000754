//! What a rotation that is over leaves behind, what a compromised one forbids, and what asks before it acts.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::application::{Application, Shape};
use crate::server::Redis;
use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, OTHER, block_on, rekey};

#[test]
fn whoever_cannot_be_asked_has_to_say_yes() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    for command in [
        &["promote"][..],
        &["promote", "--external"],
        &["rollback"],
        &["finalize"],
        &["keys", "rotate-secret-key", "--env-file", "absent"],
        &["keys", "restore", "absent", "--to", "file:absent"],
        &["keys", "destroy", "--fingerprint", "00ff00ff00ff00ff", "aws:s"],
        &["cache", "purge", "--redis-url", "redis://127.0.0.1:9/0"],
    ] {
        let refused = rekey(&db, []).more(command).exits(2);
        assert!(refused.stderr.contains("--yes"), "{refused}");
    }
    assert_eq!(db.value::<String>("SELECT state FROM rekey.rotations"), "migrated");
    // Recovery windows are AWS's own.
    for days in ["6", "31", "0"] {
        rekey(&db, ["finalize", "--yes", "--recovery-window", days]).exits(2);
    }
}

/// AWS takes 20 labels on all versions of a secret together: what has no room for its own is refused before a state says
/// that it has begun.
#[test]
fn without_room_for_a_label() {
    let app = Application::new(Shape::Plain, 12);
    let refused = |command: [&str; 2], state: &str| {
        let refused = app.rekey(command).exits(7);
        assert!(refused.stderr.contains("rekey keys destroy"), "{refused}");
        assert_eq!(app.state(), state);
    };
    let destroy_one = || {
        let labels: Vec<String> = app.versions(&app.secret()).into_values().flatten().collect();
        let fingerprint = labels.iter().find_map(|l| l.strip_prefix("rekey-retired-")).unwrap();
        app.rekey(["keys", "destroy", "--yes", "--fingerprint", fingerprint]).exits(0);
    };
    app.rekey(["run"]).exits(0);
    // AWSPREVIOUS, promote's label, and rollback's.
    app.fill_labels(18);
    refused(["promote", "--yes"], "migrated");
    destroy_one();
    app.rekey(["promote", "--yes"]).exits(0);
    // Somebody takes ours off and puts others on.
    let promotes = app.our_labels().into_iter().find(|l| l.starts_with("rekey-promote-")).unwrap();
    block_on(app.moto.client().detach(&app.secret(), &promotes)).unwrap();
    app.fill_labels(20);
    refused(["finalize", "--yes"], "promoted");
    destroy_one();
    app.rekey(["finalize", "--yes"]).exits(0);
}

/// What cannot be undone is typed as a word, and no `y` is enough. The question says what it is about.
#[test]
fn finalize_and_destroy_are_typed() {
    let app = Application::new(Shape::Plain, 12);
    app.rekey(["run"]).exits(0);
    // What will be refused anyway is not asked.
    let (code, screen) = typed(&app, "finalize", "finalize\n");
    assert!(code == Some(7) && !screen.contains("Type"), "{screen}");
    app.rekey(["promote", "--yes", "--operator", "maria"]).exits(0);
    for (answer, code, state) in
        [("y\n", 2, "promoted"), ("\n", 2, "promoted"), ("finalize\n", 0, "finalized")]
    {
        let (ended, screen) = typed(&app, "finalize", answer);
        assert_eq!((ended, app.state().as_str()), (Some(code), state), "{answer:?}: {screen}");
        for fact in [&app.db.name, "maria", "rows      12", "verified  clean"] {
            assert!(screen.contains(fact), "{fact}: {screen}");
        }
    }
    let fingerprint: String = app.db.value("SELECT old_fingerprint FROM rekey.rotations");
    let label = format!("rekey-retired-{fingerprint}");
    for (answer, code) in [("y\n", 2), (&*format!("{fingerprint}\n"), 0)] {
        let (ended, screen) = typed(&app, &format!("keys destroy --fingerprint {fingerprint}"), answer);
        assert_eq!(ended, Some(code), "{answer:?}: {screen}");
        assert_eq!(app.holder(&label).is_some(), code != 0, "{answer:?}: {screen}");
    }
    assert_eq!(app.db.value::<i64>("SELECT count(*) FROM rekey.events WHERE action = 'destroy'"), 1);
}

/// Nothing that was set once, for every command, agrees to it either.
#[test]
fn no_environment_variable_agrees_to_the_end() {
    let app = Application::new(Shape::Plain, 12);
    app.rekey(["run"]).exits(0);
    app.rekey(["promote"]).env("REKEY_YES", "true").exits(0);
    app.rekey(["finalize"]).env("REKEY_YES", "true").exits(2);
    assert_eq!(app.state(), "promoted");
}

/// Runs a command at a terminal where a person types this answer: its exit code, and what the terminal shows.
fn typed(app: &Application, command: &str, answer: &str) -> (Option<i32>, String) {
    let line = format!("{} {command}", env!("CARGO_BIN_EXE_rekey"));
    let mut person = Command::new("script");
    person.args(["-qec", &line, "/dev/null"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    for (name, value) in [
        ("DATABASE_URL", app.db.url.as_str()),
        ("AWS_ENDPOINT_URL", &app.moto.url),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("SECRETS_BACKEND", "aws"),
        ("AWS_SECRET_NAME", &app.name),
    ] {
        person.env(name, value);
    }
    let mut person = person.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    person.stdin.as_mut().unwrap().write_all(answer.as_bytes()).unwrap();
    let output = person.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// That the old key is known to others may become known while its rotation is under way.
#[test]
fn compromised_in_the_midst_of_it() {
    let db = Db::new();
    Load::rows(40).into(&db);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["run", "--compromised"]).exits(0);
    assert!(db.value::<bool>("SELECT compromised FROM rekey.rotations"));
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.events WHERE action = 'compromised'"), 1);
    rekey(&db, ["rollback", "--yes"]).exits(2);
}

/// Half of the rows were never moved off the key that is known to others: their users are affected as much.
#[test]
fn affected_by_a_rotation_that_was_not_finished() {
    let db = Db::new();
    Load::rows(400).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let small = ["--chunk-rows", "100", "--batch-rows", "10", "--workers", "1"];
    let hold = db.hold_last();
    let run = rekey(&db, ["run", "--compromised"]).args(small).start();
    db.wait_moved(50);
    run.signal(Signal::TERM);
    run.wait().expect(75);
    hold.rollback();
    let everybody = |complete: bool| {
        let affected = rekey(&db, ["report", "--affected"]).json(0);
        assert_eq!(affected["affected"].as_array().unwrap().len(), 400);
        assert_eq!(affected["complete"], complete);
    };
    everybody(false);
    rekey(&db, ["rollback", "--yes", "--i-know-the-old-key-is-compromised"]).exits(0);
    everybody(false);
}

/// After rolled_back the same pair may be used again, and after finalized the way round, unless the old key is known
/// to others: then its pair is used up, and it is never rotated to.
#[test]
fn a_compromised_pair_is_used_up() {
    let db = Db::new();
    Load::rows(40).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run", "--compromised"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(2);
    rekey(&db, ["rollback", "--i-know-the-old-key-is-compromised"]).exits(2);
    assert_eq!(db.value::<String>("SELECT state FROM rekey.rotations"), "migrated");
    let affected = rekey(&db, ["report", "--affected"]).json(0);
    assert_eq!(affected["affected"].as_array().unwrap().len(), 40, "{affected:#}");
    assert_eq!((affected["complete"].as_bool(), affected["compromised"].as_bool()), (Some(true), Some(true)));
    let users: i64 = db.value("SELECT count(DISTINCT user_id) FROM provider_connections");
    assert_eq!(affected["users"], users);
    assert!(affected["affected"][0]["provider_slug"].is_string());

    rekey(&db, ["rollback", "--yes", "--i-know-the-old-key-is-compromised"]).exits(0);
    judge.all_on(&db, OLD);
    let same = rekey(&db, ["run"]).exits(3);
    assert!(same.stderr.contains("compromised"), "{same}");
    rekey(&db, ["run", "--compromised"]).exits(3);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.rotations"), 1);
    // Away from it with a fresh key, and never back, however much later.
    rekey(&db, ["run"]).env("NEW_ENCRYPTION_KEY", OTHER).exits(0);
    rekey(&db, ["promote", "--external", "--yes"]).env("ENCRYPTION_KEY", OTHER).exits(0);
    rekey(&db, ["finalize", "--yes"]).env("ENCRYPTION_KEY", OTHER).exits(0);
    let back = rekey(&db, ["run"]).env("ENCRYPTION_KEY", OTHER).env("NEW_ENCRYPTION_KEY", OLD).exits(3);
    assert!(back.stderr.contains("compromised key"), "{back}");
    judge.all_on(&db, OTHER);
}

#[test]
fn an_honest_pair_may_be_used_again() {
    let db = Db::new();
    Load::rows(40).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["promote", "--external", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
    rekey(&db, ["finalize", "--yes"]).env("ENCRYPTION_KEY", NEW).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["run"]).env("ENCRYPTION_KEY", NEW).env("NEW_ENCRYPTION_KEY", OLD).exits(0);
    judge.all_on(&db, OLD);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.rotations"), 3);
}

/// promote and rollback purge the cache by themselves where REDIS_URL is set, and say what to do where it is not.
#[test]
fn the_cache_is_purged_with_the_key() {
    let app = Application::new(Shape::Json, 12);
    let redis = Redis::start(&[]);
    let fill = || {
        redis.fill("dashtam:provider:conn:", 30);
        redis.fill("provider:conn:", 3);
        redis.fill("secrets:", 2);
        redis.fill("dashtam:session:", 4);
    };
    fill();
    app.rekey(["run"]).env("REDIS_URL", redis.url()).exits(0);
    assert_eq!(redis.size(), 39, "run leaves the cache alone");
    let promoted = app.rekey(["promote", "--yes"]).env("REDIS_URL", redis.url()).json(0);
    assert_eq!(promoted["cache"], "35 stale cache entries deleted");
    assert_eq!(redis.size(), 4);
    fill();
    let back = app.rekey(["rollback", "--yes"]).env("REDIS_URL", redis.url()).exits(0);
    assert!(back.stdout.contains("35 stale cache entries deleted"), "{back}");
    assert!(back.stdout.lines().last().unwrap().starts_with("audit chain head: "), "{back}");
    assert_eq!(redis.size(), 4);
    assert_eq!(app.db.value::<i64>("SELECT count(*) FROM rekey.events WHERE action = 'purge'"), 2);
    app.rekey(["run"]).exits(0);
    let said = app.rekey(["promote", "--yes"]).exits(0);
    assert!(said.stdout.contains("rekey cache purge"), "{said}");
    // A cache that is away holds up nothing for long.
    let away = app.rekey(["rollback", "--yes"]).env("REDIS_URL", "redis://:canary@127.0.0.1:9/0").json(0);
    assert!(away["cache"].as_str().unwrap().contains("Couldn't purge the cache"), "{away:#}");
    assert!(!away.to_string().contains("canary"));
}
