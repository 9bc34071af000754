//! The public table of exit codes, each produced at least once; and the forms of DATABASE_URL.
//! (8, 9 and 75 also stand in the tests of their own themes.)

use std::time::Duration;

use crate::support::load::{Load, some_ids, store, store_raw};
use crate::support::{Cluster, Db, NEW, OLD, OTHER, Stop, rekey, rekey_without_database, run_in_small_steps};
use rustix::process::Signal;

#[test]
fn success_is_0() {
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["run"]).exits(0);
    rekey_without_database(["--version"]).exits(0);
    rekey_without_database(["--help"]).exits(0);
    rekey_without_database(["completions", "bash"]).exits(0);
    let seven = rekey_without_database(["explain", "7"]).json(0);
    assert_eq!((&seven["kind"], &seven["data"]), (&"exit_code".into(), &"unchanged".into()));
    rekey_without_database(["explain"]).exits(0);
}

/// No way of using it leads to a bug; a ledger that somebody took apart looks like one. It says that nothing is lost.
#[test]
fn an_internal_error_is_1() {
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["run"]).exits(0);
    db.execute("ALTER TABLE rekey.rotations RENAME COLUMN old_source TO gone");
    for command in ["run", "status", "verify"] {
        let outcome = rekey(&db, [command]).exits(1);
        assert!(
            outcome.stderr.contains("Report this bug") && !outcome.stderr.contains("panicked"),
            "{outcome}"
        );
    }
    db.execute("ALTER TABLE rekey.rotations RENAME COLUMN gone TO old_source");
    rekey(&db, ["run"]).exits(0);
}

#[test]
fn usage_is_2() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey_without_database(["no-such-command"]).exits(2);
    rekey_without_database(["run", "--no-such-flag"]).exits(2);
    rekey_without_database(["run"]).exits(2);
    rekey_without_database(["explain", OTHER]).exits(2).says_none_of(&[OTHER]);
    rekey(&db, ["run", "--workers", "0"]).exits(2);
    rekey(&db, ["run", "--workers", "many"]).exits(2);
    rekey(&db, ["run", "--lease-ttl", "soon"]).exits(2);
    rekey(&db, ["run", "--new-key", "nowhere:X"]).exits(2);
    assert!(!db.has_rekey_schema());
}

/// A minimal image may have none; the SDK would panic.
#[test]
fn no_root_certificates_is_2() {
    let outcome = rekey_without_database(["keys", "fingerprint", "aws:anything"])
        .env("AWS_REGION", "eu-central-1")
        .env("SSL_CERT_FILE", "/dev/null")
        .exits(2);
    assert!(outcome.stderr.contains("root certificates"), "{outcome}");
}

#[test]
fn a_key_is_3() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).env("NEW_ENCRYPTION_KEY", "short").exits(3);
}

#[test]
fn preflight_is_4() {
    rekey(&Db::new(), ["run"]).exits(4);
}

#[test]
fn quarantine_is_5() {
    let db = Db::new();
    Load::rows(100).into(&db);
    store_raw(&db, some_ids(&db, 1, 1)[0], b"?");
    rekey(&db, ["run"]).exits(5);
}

#[test]
fn a_failed_verify_is_6() {
    let db = Db::new();
    Load::rows(100).into(&db);
    rekey(&db, ["run"]).exits(0);
    store(&db, some_ids(&db, 1, 1)[0], OLD, b"{}");
    rekey(&db, ["verify"]).exits(6);
}

#[test]
fn a_wrong_state_is_7() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["rollback", "--yes"]).exits(7);
}

/// A rollback at work holds what a run needs.
#[test]
fn a_rollback_in_progress_is_8() {
    let db = Db::new();
    Load::rows(2500).into(&db);
    rekey(&db, ["run"]).exits(0);
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let back = rekey(&db, ["rollback", "--yes", "--batch-rows", "50"]).start();
    db.wait_moved(200);
    rekey(&db, ["run"]).exits(8);
    db.fast_commits();
    back.wait().expect(0);
}

#[test]
fn stopped_on_purpose_is_9() {
    let db = Db::new();
    Load::rows(8000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let run = run_in_small_steps(&db).start();
    db.wait_moved(200);
    rekey(&db, ["abort"]).exits(0);
    run.wait().expect(9);
}

#[test]
fn unreachable_is_69() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    cluster.stop(Stop::Fast);
    for command in ["plan", "status", "verify", "run"] {
        rekey(&db, [command]).args(["--retry-for", "1s"]).exits(69);
    }
}

#[test]
fn a_signal_is_75() {
    let db = Db::new();
    Load::rows(8000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let run = run_in_small_steps(&db).start();
    db.wait_moved(200);
    run.signal(Signal::TERM);
    run.wait().expect(75);
}

#[test]
fn every_form_of_database_url() {
    let db = Db::new();
    Load::rows(20).into(&db);
    let rest = db.url.strip_prefix("postgres://").unwrap();
    for url in [
        format!("postgres://{rest}"),
        format!("postgresql://{rest}"),
        format!("postgresql+asyncpg://{rest}"),
        format!("postgresql+psycopg://{rest}"),
        format!("postgresql+psycopg2://{rest}"),
        format!("postgresql+asyncpg://{}", rest.replace("postgres@", "postgres:p%40ss%2Fword@")),
        format!("postgresql://{rest}?sslmode=disable"),
        format!("postgresql+asyncpg://{rest}?application_name=rekey"),
    ] {
        let outcome = rekey(&db, ["run", "--dry-run"]).env("DATABASE_URL", &url).exits(0);
        outcome.says_none_of(&["p%40ss%2Fword", "p@ss/word"]);
    }
}

#[test]
fn an_unknown_parameter_of_database_url_is_named_and_its_value_is_not() {
    let db = Db::new();
    Load::rows(20).into(&db);
    let url = format!("{}?sslmodus=hush-hush", db.url);
    let outcome = rekey(&db, ["run", "--dry-run"]).env("DATABASE_URL", &url).exits(2);
    assert!(outcome.stderr.contains("sslmodus"), "{outcome}");
    outcome.says_none_of(&["hush-hush"]);
    for url in ["mysql://root@127.0.0.1/x", "not a url", "", "postgres://u:topsecret@[::bad/x"] {
        let outcome = rekey(&db, ["run", "--dry-run"]).env("DATABASE_URL", url).exits(2);
        outcome.says_none_of(&["topsecret"]);
    }
}

/// Shipped logs witness the chain by every command's last line: also of one that wrote, and was refused then.
#[test]
fn a_refusal_that_wrote_names_the_head_of_the_chain() {
    let db = Db::new();
    Load::rows(30).into(&db);
    rekey(&db, ["run"]).exits(0);
    let head = || db.value::<String>("SELECT seq || ':' || encode(hash, 'hex') FROM rekey.chain");
    let before = head();
    let promote = rekey(&db, ["promote", "--external", "--yes"]).exits(7);
    assert_ne!(head(), before, "{promote}");
    assert_eq!(promote.stdout.trim_end(), format!("audit chain head: {}", head()), "{promote}");
    let promote = rekey(&db, ["promote", "--external", "--yes"]).json(7);
    assert_eq!(promote["event_head"], head(), "{promote:#}");
    // Rows are back, and somebody else has to change the key back.
    let changed =
        |command: &[&str]| rekey(&db, []).more(command).env("ENCRYPTION_KEY", NEW).env("PREVIOUS", OLD);
    let back = changed(&["rollback", "--yes", "--old-key", "env:PREVIOUS"]).exits(7);
    assert_eq!(back.stdout.trim_end(), format!("audit chain head: {}", head()), "{back}");
    // Whoever wrote nothing has nothing to be witnessed.
    assert!(rekey(&db, ["finalize", "--yes"]).exits(7).stdout.is_empty());
    let nothing = rekey(&db, ["finalize", "--yes"]).json(7);
    assert_eq!(nothing.get("event_head"), Some(&serde_json::Value::Null), "{nothing:#}");
}

/// Errors go to stderr, results to stdout: a script can trust either.
#[test]
fn errors_are_on_stderr_and_name_a_remedy() {
    let db = Db::new();
    Load::rows(20).into(&db);
    let outcome = rekey(&db, ["run"]).env("ENCRYPTION_KEY", OTHER).exits(3);
    assert!(!outcome.stderr.trim().is_empty(), "{outcome}");
    outcome.says_none_of(&[OTHER, NEW]);
}
