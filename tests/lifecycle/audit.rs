//! The audit trail from outside: every event, its chain, the application's own trail beside it, and the report.

use std::collections::BTreeSet;

use crate::application::{Application, Shape};
use crate::server::Redis;
use crate::support::load::{Load, some_ids, store_raw};
use crate::support::{Db, NEW, OLD, block_on, rekey};

fn actions(db: &Db, table: &str) -> BTreeSet<String> {
    db.column::<String>(&format!("SELECT action::text FROM {table}")).into_iter().collect()
}

#[test]
fn every_event_of_a_life() {
    let app = Application::new(Shape::Plain, 30);
    let redis = Redis::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let env = dir.path().join(".env.dev");
    let who = ["--operator", "alice <a@b>", "--reason", "quarterly & due"];
    let go = |command: &[&str], code| app.rekey([]).more(command).more(&who).exits(code);
    go(&["init"], 0);
    go(&["keys", "generate", "--env-file", env.to_str().unwrap()], 0);
    go(&["keys", "fingerprint", &format!("aws:{}", app.secret())], 0);
    let bad = some_ids(&app.db, 1, 9)[0];
    store_raw(&app.db, bad, b"no credential at all, but long enough");
    go(&["run"], 5);
    go(&["pause"], 0);
    go(&["resume"], 0);
    go(&["abort"], 0);
    go(&["resume"], 0);
    go(&["quarantine", "accept", &bad.to_string(), "--yes"], 0);
    go(&["run"], 0);
    go(&["verify"], 0);
    go(&["promote", "--yes"], 0);
    go(&["rollback", "--yes"], 0);
    go(&["run"], 5);
    go(&["quarantine", "accept", &bad.to_string(), "--yes"], 0);
    go(&["run"], 0);
    go(&["promote", "--yes"], 0);
    go(&["finalize", "--yes"], 0);
    go(&["cache", "purge", "--yes", "--redis-url", &redis.url()], 0);
    let fingerprint: String = app.db.value("SELECT old_fingerprint FROM rekey.rotations LIMIT 1");
    go(&["keys", "destroy", "--yes", "--fingerprint", &fingerprint], 0);

    let ours = actions(&app.db, "rekey.events");
    for action in [
        "generate",
        "access",
        "plan",
        "start",
        "pause",
        "resume",
        "abort",
        "quarantine",
        "accept",
        "verify",
        "migrated",
        "proofs_removed",
        "promoting",
        "promoted",
        "rolling_back",
        "unpromoting",
        "rolled_back",
        "finalizing",
        "finalized",
        "purge",
        "destroy",
    ] {
        assert!(ours.contains(action), "no event {action} in {ours:?}");
    }
    // Everybody and every why is on record.
    let anonymous: i64 = app.db.value(
        "SELECT count(*) FROM rekey.events WHERE operator <> 'alice <a@b>' OR reason IS DISTINCT FROM 'quarterly & due'",
    );
    assert_eq!(anonymous, 0);

    let theirs = actions(&app.db, "audit_logs");
    for action in [
        "KEY_GENERATED",
        "KEY_ACCESSED",
        "KEY_DESTROYED",
        "CACHE_PURGED",
        "ENCRYPTION_KEY_ROTATION_STARTED",
        "ENCRYPTION_KEY_PROMOTED",
        "ENCRYPTION_KEY_ROLLED_BACK",
        "ENCRYPTION_KEY_FINALIZED",
    ] {
        assert!(theirs.contains(action), "no entry {action} in {theirs:?}");
    }
    let odd: i64 = app.db.value(
        "SELECT count(*) FROM audit_logs WHERE json_typeof(context) <> 'object' OR user_id IS NOT NULL",
    );
    assert_eq!(odd, 0);
    let promoted: String = app.db.value(
        "SELECT context->>'old_version' FROM audit_logs WHERE action = 'ENCRYPTION_KEY_PROMOTED' ORDER BY id DESC LIMIT 1",
    );
    assert_eq!(
        promoted,
        app.db.value::<String>("SELECT old_version FROM rekey.rotations ORDER BY id DESC LIMIT 1")
    );

    // The report: both rotations, and what belongs to none.
    let report = app.rekey(["report", "--all"]).json(0);
    assert_eq!(report["chain"]["intact"], true);
    assert_eq!(report["rotations"].as_array().unwrap().len(), 2);
    let others: BTreeSet<&str> =
        report["other_events"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert!(["generate", "access", "purge", "destroy"].iter().all(|a| others.contains(a)), "{others:?}");
    let controls = report["rotations"][1]["controls"].as_array().unwrap();
    assert!(controls.iter().all(|c| c["evidence"] != "not evidenced"), "{controls:#?}");
    assert!(report["cloudtrail"][0].as_str().unwrap().contains("--region us-east-1"));
    let html = app.rekey(["report", "--all", "--format", "html"]).exits(0).stdout;
    assert!(
        html.starts_with("<!doctype html>") && html.contains("alice &lt;a@b&gt;") && !html.contains("<a@b>")
    );
}

#[test]
fn the_trail_cannot_be_changed_and_a_change_would_be_seen() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    for sql in
        ["UPDATE rekey.events SET operator = 'nobody'", "DELETE FROM rekey.events", "TRUNCATE rekey.events"]
    {
        let done = block_on(sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db.pool()));
        assert!(done.is_err(), "{sql}");
    }
    assert_eq!(rekey(&db, ["report"]).json(0)["chain"]["intact"], true);
    // Its owner can, and it is seen.
    db.execute("ALTER TABLE rekey.events DISABLE TRIGGER ALL; UPDATE rekey.events SET operator = 'nobody' WHERE seq = 2");
    let broken = rekey(&db, ["report", "--output", "json"]).exits(6).json();
    assert_eq!(
        (broken["chain"]["intact"].as_bool(), broken["chain"]["broken_at"].as_i64()),
        (Some(false), Some(2))
    );
}

/// A report beside commands that append all the time is no alarm.
#[test]
fn a_report_while_others_write_is_intact() {
    let db = Db::new();
    Load::rows(5).into(&db);
    rekey(&db, ["init"]).exits(0);
    let append =
        "SELECT rekey.append_event(NULL, 'test', 'somebody', NULL, '{}') FROM generate_series(1, 40)";
    db.execute(append);
    let pool = db.pool().clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writer = std::thread::spawn(move || {
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            block_on(
                sqlx::raw_sql("SELECT rekey.append_event(NULL, 'test', 'somebody', NULL, '{}')")
                    .execute(&pool),
            )
            .unwrap();
        }
    });
    for _ in 0..5 {
        assert_eq!(rekey(&db, ["report", "--all"]).json(0)["chain"]["intact"], true);
    }
    drop(stop);
    writer.join().unwrap();
}

/// The application's trail is absent, older, or of another form: a rotation is not stopped by it.
#[test]
fn the_applications_trail_in_other_forms() {
    for (sql, entries) in [
        ("DROP TABLE audit_logs", None),
        ("ALTER TABLE audit_logs ALTER context DROP NOT NULL", Some(true)),
        ("ALTER TABLE audit_logs ADD tenant uuid NOT NULL", Some(false)),
        ("ALTER TABLE audit_logs DROP user_agent", Some(false)),
    ] {
        let db = Db::new();
        Load::rows(20).into(&db);
        db.execute(sql);
        rekey(&db, ["run"]).exits(0);
        rekey(&db, ["rollback", "--yes"]).exits(0);
        assert!(actions(&db, "rekey.events").contains("rolled_back"));
        if let Some(entries) = entries {
            let sql = "SELECT count(*) FROM audit_logs WHERE json_typeof(context) = 'object'";
            assert_eq!(db.value::<i64>(sql) > 0, entries, "{sql}");
        }
    }
}

/// Each command's last line is the head of the chain as it is then.
#[test]
fn the_last_line_witnesses_the_chain() {
    let app = Application::new(Shape::Json, 20);
    let dir = tempfile::tempdir().unwrap();
    let env = dir.path().join(".env");
    let env = env.to_str().unwrap();
    for command in [
        &["init"][..],
        &["status"],
        &["plan"],
        &["run", "--dry-run"],
        &["run"],
        &["status"],
        &["plan"],
        &["pause"],
        &["resume"],
        &["verify"],
        &["quarantine", "list"],
        &["keys", "generate", "--env-file", env],
        &["keys", "generate", "--env-file", env],
        &["keys", "validate", "--env-file", env],
        &["keys", "status", "--env-file", env],
        &["keys", "fingerprint", "env:AWS_REGION"],
        &["promote", "--yes"],
        &["promote", "--yes"],
        &["rollback", "--yes"],
        &["run"],
        &["promote", "--yes"],
        &["finalize", "--yes"],
    ] {
        let said = app.rekey([]).more(command).exits(0);
        let head: String = app.db.value("SELECT seq || ':' || encode(hash, 'hex') FROM rekey.chain");
        let line = format!("audit chain head: {head}");
        let last = said.stdout.lines().last().unwrap_or_default();
        // What `init` prints is SQL.
        assert_eq!(last.trim_start_matches("-- "), line, "{said}");
    }
}

/// The 2^32 of NIST SP 800-38D: summed over rotations, per key, warned of from half of it on.
#[test]
fn encryptions_under_each_key_are_estimated() {
    let db = Db::new();
    Load::rows(20).into(&db);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    let warned = |db: &Db| {
        let plan = rekey(db, ["plan"]).json(0);
        plan["findings"].as_array().unwrap().iter().any(|f| f["name"] == "iv-limit")
    };
    assert!(!warned(&db));
    let pretend = |direction: &str, n: i64| {
        db.execute(&format!(
            "UPDATE rekey.chunks c SET re_encrypted = {n} FROM rekey.passes p
             WHERE p.rotation = c.rotation AND p.pass = c.pass AND p.direction = '{direction}'
             AND c.id = (SELECT min(id) FROM rekey.chunks WHERE rotation = p.rotation AND pass = p.pass)"
        ));
    };
    pretend("forward", (1 << 31) - 10_000);
    assert!(!warned(&db), "just below half");
    // Half of them in this rotation, half in the next: it is the sum that counts.
    pretend("forward", 1 << 30);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    pretend("forward", 1 << 30);
    assert!(warned(&db));
    let report = rekey(&db, ["report"]).json(0);
    let under = report["rotations"][0]["encryptions"].as_array().unwrap();
    assert!(under[1]["by_rekey"].as_i64().unwrap() >= 1 << 31, "{under:#?}");
    assert!(report.to_string().contains("WARNING, rotate to a fresh key"));
    pretend("forward", 0);
    pretend("backward", 1 << 31);
    assert!(warned(&db), "the key that rows are on counts, too");
    pretend("backward", 0);
    pretend("forward", 1 << 32);
    assert!(rekey(&db, ["plan"]).run().code() == Some(4));
    let _ = (OLD, NEW);
}
