//! What surrounds a command: its environment, and what the role or the database sets for every session.

use std::time::Duration;

use crate::support::load::{Load, some_ids, store_raw};
use crate::support::{
    Db, Judge, NEW, OLD, OTHER, SOON, rekey, rekey_without_database, run_in_small_steps, state, total, until,
};

#[test]
fn an_empty_variable_says_nothing_and_a_flag_beats_a_variable() {
    let db = Db::new();
    Load::rows(60).into(&db);
    rekey(&db, ["run"])
        .env("REKEY_DRY_RUN", "1")
        .env("REKEY_DEADLINE", "")
        .env("REKEY_WORKERS", "")
        .env("REKEY_ALLOW", "")
        .exits(0);
    assert!(!db.has_rekey_schema(), "REKEY_DRY_RUN=1 writes nothing");
    rekey(&db, ["run", "--dry-run"]).env("REKEY_ALLOW", "disk, tls").exits(0);
    rekey(&db, ["run", "--dry-run"]).env("REKEY_WORKERS", "none").exits(2);
    rekey(&db, ["run", "--dry-run", "--workers", "1"]).env("REKEY_WORKERS", "none").exits(0);
    rekey(&db, ["run"]).env("REKEY_DRY_RUN", "no").exits(0);
    assert_eq!(total(&db, "re_encrypted"), 60);
}

/// With `--output json` stdout is JSON whatever happens, and names the exit code.
#[test]
fn errors_are_json_too() {
    let db = Db::new();
    Load::rows(60).into(&db);
    let refused: [(&[&str], i32); 9] = [
        (&["verify"], 7),
        (&["rollback", "--yes"], 7),
        (&["rollback"], 2),
        (&["pause"], 7),
        (&["report"], 7),
        (&["quarantine", "retry"], 7),
        (&["run", "--allow", "everything"], 2),
        (&["run", "--workers", "0"], 2),
        (&["run", "--new-key", "not a source"], 2),
    ];
    for (arguments, code) in refused {
        let said = rekey(&db, []).more(arguments).json(code);
        assert_eq!((&said["exit_code"], &said["outcome"]), (&code.into(), &"error".into()), "{said:#}");
        assert!(said["error"].as_str().is_some_and(|error| !error.is_empty()), "{said:#}");
    }
    let said = rekey(&db, ["run"]).env("NEW_ENCRYPTION_KEY", OLD).json(3);
    assert_eq!(said["exit_code"], 3, "{said:#}");
    let said = rekey(&db, ["run"]).env("ENCRYPTION_KEY", OTHER).args(["--output", "json"]).exits(3);
    said.says_none_of(&[OTHER, NEW]);
    assert_eq!(said.json()["exit_code"], 3);
}

/// A flag goes before the environment also where the rest of the line is not understood.
#[test]
fn the_form_of_a_usage_error_is_the_flags() {
    let lines: [(&str, &[&str], bool); 6] = [
        ("json", &["bogus"], true),
        ("json", &["--output", "text", "bogus"], false),
        ("json", &["bogus", "--output=text"], false),
        ("text", &["--output", "json", "bogus"], true),
        ("text", &["bogus", "--output=json"], true),
        ("", &["bogus"], false),
    ];
    for (variable, line, is_json) in lines {
        let refused = rekey_without_database([]).more(line).env("REKEY_OUTPUT", variable).exits(2);
        assert_eq!(refused.stdout.starts_with('{'), is_json, "REKEY_OUTPUT={variable}: {refused}");
    }
}

/// However narrow RUST_LOG is, stderr says why a command failed.
#[test]
fn no_filter_of_logs_silences_an_error() {
    for asked in ["aws_config=debug", "off", "rekey=off", "rekey::cli=off,sqlx=warn", "rekey::refused=off"] {
        let refused = rekey_without_database(["verify"]).env("RUST_LOG", asked).exits(2);
        let line: serde_json::Value = serde_json::from_str(&refused.stderr).expect("one line of JSON");
        assert_eq!(line["level"], "ERROR", "{line:#}");
        assert_eq!(line["message"], "DATABASE_URL is not set", "{line:#}");
        assert_eq!(line["exit_code"], 2, "{line:#}");
        assert!(line["hint"].is_string(), "{line:#}");
    }
    let db = Db::new();
    Load::rows(5).into(&db);
    rekey(&db, ["run"]).exits(0);
    db.execute("ALTER TABLE rekey.events DISABLE TRIGGER ALL; UPDATE rekey.events SET operator = 'nobody' WHERE seq = 2");
    let broken = rekey(&db, ["report"]).env("RUST_LOG", "off").exits(6);
    assert!(broken.stderr.contains("hash chain is broken"), "{broken}");
}

/// What stands in the audit trail for good says something.
#[test]
fn blanks_are_no_reason_and_nobody() {
    let db = Db::new();
    Load::rows(20).into(&db);
    let id = some_ids(&db, 1, 1)[0];
    store_raw(&db, id, b"?");
    rekey(&db, ["run"]).exits(5);
    let accept = |reason: &str| {
        rekey(&db, ["quarantine", "accept", &id.to_string(), "--yes", "--operator", " ", "--reason", reason])
            .run()
    };
    for blank in ["", " \t"] {
        let refused = accept(blank).expect(2);
        assert!(refused.stderr.contains("--reason"), "{refused}");
    }
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.events WHERE action = 'accept'"), 0);
    accept("no backup has it").expect(0);
    let operators: Vec<String> = db.column("SELECT DISTINCT operator FROM rekey.events");
    assert!(operators.iter().all(|operator| !operator.trim().is_empty()), "{operators:?}");
}

/// Usage is found before anything is contacted.
#[test]
fn a_source_that_is_none_needs_no_database() {
    rekey_without_database(["run", "--new-key", "not-a-source"])
        .env("DATABASE_URL", "postgres://someone@127.0.0.1:1/nowhere")
        .start()
        .wait_for(Duration::from_secs(20))
        .expect(2);
}

/// What a database administrator may have set for the role, for every session of it.
#[test]
fn hostile_settings_of_the_role() {
    let db = Db::new();
    Load::rows(1500).nulls(5).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    db.execute(
        "CREATE SCHEMA other;
         CREATE TABLE other.provider_connections AS SELECT * FROM public.provider_connections LIMIT 3;
         CREATE TABLE other.rotations (x integer);
         CREATE FUNCTION other.age(xid) RETURNS integer LANGUAGE sql AS 'SELECT 0';
         CREATE FUNCTION other.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT '2001-01-01'::timestamptz$$",
    );
    let settings = [
        "search_path = other, pg_catalog, public",
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "default_transaction_deferrable = on",
        "quote_all_identifiers = on",
        "standard_conforming_strings = off",
        "idle_session_timeout = '1s'",
        "idle_in_transaction_session_timeout = '1s'",
        "statement_timeout = '1s'",
        "lock_timeout = '10ms'",
        "row_security = off",
        "bytea_output = escape",
        "datestyle = 'German, DMY'",
        "intervalstyle = iso_8601",
        "timezone = 'Asia/Kathmandu'",
        "enable_indexscan = off",
        "enable_tidscan = off",
        "work_mem = '64kB'",
        "array_nulls = off",
    ];
    // All at once: a session that begins in between could not write any more.
    let alter = format!("ALTER ROLE postgres IN DATABASE {}", db.name);
    db.execute(&settings.map(|setting| format!("{alter} SET {setting}")).join("; "));
    rekey(&db, ["plan"]).exits(0);
    rekey(&db, ["run", "--dry-run"]).exits(0);
    run_in_small_steps(&db).exits(0);
    assert_eq!(state(&db), "migrated");
    let verified = rekey(&db, ["verify"]).json(0);
    assert_eq!(verified["identical"], judge.openable(), "{verified:#}");
    rekey(&db, ["report"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    rekey(&db, ["run"]).exits(0);
    db.execute(&format!("BEGIN READ WRITE; {alter} RESET ALL; COMMIT"));
    judge.all_on(&db, NEW);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM other.provider_connections"), 3);
}

/// A table lock of some seconds is waited for by what only reads, too.
#[test]
fn readers_wait_for_a_table_lock() {
    let db = Db::new();
    Load::rows(300).into(&db);
    rekey(&db, ["run"]).exits(0);
    let mut holder = db.hold();
    holder.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
    let verify = rekey(&db, ["verify"]).start();
    let dry = rekey(&db, ["run", "--dry-run"]).start();
    until("both to wait for it", SOON, || (db.waiting_for_the_table() >= 2).then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    holder.rollback();
    verify.wait().expect(0);
    dry.wait().expect(0);
}

/// The window of the way out is not the window of the way back.
#[test]
fn a_rollback_after_the_deadline() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(50));
    let mut judge = Judge::look(&db, &[OLD]);
    run_in_small_steps(&db).args(["--deadline", "1s"]).exits(9);
    db.fast_commits();
    rekey(&db, ["rollback", "--yes"]).exits(0);
    judge.all_on(&db, OLD);
}

/// What templates and shells leave behind is either nothing, or an error with its own code.
#[test]
fn odd_words_have_their_exit_code() {
    let db = Db::new();
    Load::rows(20).into(&db);
    let not_text = r#"exec "$0" "$@" "$(printf 'env:\377')""#;
    rekey(&db, ["run", "--old-key"]).through("sh", &["-c", not_text]).expect("a shell").exits(2);
    let forever = rekey(&db, ["run", "--deadline", "9999999999h"]).exits(2);
    assert!(forever.stderr.contains("ten years"), "{forever}");
    assert!(!db.has_rekey_schema());
    let run = rekey(&db, ["run", "--allow", "slots, monitoring"]).env("RUST_LOG", "").exits(0);
    assert!(run.stderr.contains("Rotation started"), "{run}");
}
