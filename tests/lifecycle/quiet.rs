//! A canary key, canary credentials and canary passwords on every path: in no output at TRACE, no table, no core
//! file, no command line.

use std::fs;

use rustix::process::Signal;

use crate::application::{Application, Shape};
use crate::server::Redis;
use crate::support::load::{some_ids, store};
use crate::support::{NEW, OLD, Outcome, Rekey};

const PLAINTEXT: &str = r#"{"access_token":"canary_token_9f3c","refresh_token":"canary_refresh_77aa"}"#;
const CANARIES: [&str; 7] = [
    OLD,
    NEW,
    "canary_token_9f3c",
    "canary_refresh_77aa",
    "canary_aws_secret",
    "canary_redis",
    "canary_sibling",
];

/// As text, and as logs write bytes: hex, and lists of numbers.
fn forms() -> Vec<String> {
    let forms = |secret: &str| {
        let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
        let list: Vec<String> = secret.bytes().map(|b| b.to_string()).collect();
        [secret.to_owned(), hex.to_uppercase(), hex, list.join(", ")]
    };
    CANARIES.iter().flat_map(|secret| forms(secret)).collect()
}

#[track_caller]
fn silent(outcome: Outcome, logs: bool) {
    let forms = forms();
    outcome.says_none_of(&forms.iter().map(String::as_str).collect::<Vec<_>>());
    // What contacts nothing but the database has nothing to trace: it names the head of the audit chain alone.
    let mut logged_lines = outcome.stderr.lines().filter(|line| line.starts_with('{'));
    let only_the_head =
        logged_lines.all(|line| ["rekey::head", "rekey::finished"].iter().any(|of| line.contains(of)));
    let logged = outcome.stderr.contains("TRACE") || only_the_head;
    assert!(logged || !logs, "nothing was logged by\n{outcome}");
}

#[test]
fn no_path_shows_a_secret() {
    let app = Application::new(Shape::Json, 30);
    app.put(&app.content(OLD, "canary_sibling"));
    for id in some_ids(&app.db, 10, 1) {
        store(&app.db, id, OLD, PLAINTEXT.as_bytes());
    }
    let redis = Redis::start(&["--requirepass", "canary_redis"]);
    let url = format!("redis://:canary_redis@127.0.0.1:{}/0", redis.port);
    let loud = |rekey: Rekey| {
        rekey
            .env("RUST_LOG", "trace")
            .env("AWS_SECRET_ACCESS_KEY", "canary_aws_secret")
            .env("REDIS_URL", &url)
    };
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("k.gpg");
    let source = format!("aws:{}#encryption_key", app.secret());
    let commands: &[(&[&str], i32)] = &[
        (&["init"], 0),
        (&["plan", "--rehearse", "10"], 0),
        (&["run", "--dry-run"], 0),
        (&["run"], 0),
        (&["run"], 0),
        (&["status"], 0),
        (&["verify"], 0),
        (&["quarantine", "list"], 0),
        (&["quarantine", "retry"], 0),
        (&["pause"], 0),
        (&["resume"], 0),
        (&["keys", "status"], 0),
        (&["keys", "fingerprint", &source], 0),
        (&["keys", "generate", "encryption", "--force", "--to", &source], 7),
        (&["promote", "--yes"], 0),
        (&["rollback", "--yes"], 0),
        (&["report", "--all"], 0),
        (&["report", "--format", "html"], 0),
        (&["report", "--affected"], 0),
        (&["run"], 0),
        (&["promote", "--yes"], 0),
        (&["finalize", "--yes"], 0),
        (&["finalize", "--yes"], 7),
        (&["cache", "purge", "--yes"], 0),
        (&["run", "--new-key", NEW], 2),
        (&["run", "--old-key", OLD], 2),
    ];
    for (command, code) in commands {
        silent(loud(app.rekey([]).more(command)).exits(*code), *code != 2);
    }
    let pass = |r: Rekey| loud(r).env("REKEY_BACKUP_PASSPHRASE", "canary_aws_secret");
    silent(pass(app.rekey(["keys", "backup", &source, "--out", backup.to_str().unwrap()])).exits(0), true);
    silent(
        pass(app.rekey(["keys", "restore", backup.to_str().unwrap(), "--yes", "--to", &source])).exits(0),
        true,
    );
    let sealed = fs::read(&backup).unwrap();
    assert!(!sealed.windows(8).any(|w| w == &NEW.as_bytes()[..8]));

    // Everything that was written down, ours and the application's trail; bytea shows as hex.
    let mut tables = app
        .db
        .column::<String>("SELECT format('rekey.%I', tablename) FROM pg_tables WHERE schemaname = 'rekey'");
    tables.push("public.audit_logs".into());
    assert!(tables.len() > 8, "{tables:?}");
    for table in tables {
        let dump: String =
            app.db.value(&format!("SELECT coalesce(string_agg(t::text, chr(10)), '') FROM {table} t"));
        for form in forms() {
            assert!(!dump.contains(&form), "{table} holds a secret");
        }
    }
}

/// Neither a core file nor the command line of a process that is at work.
#[test]
fn a_process_at_work_shows_nothing() {
    let app = Application::new(Shape::Plain, 3000);
    app.db.mark();
    app.db.slow_batches(std::time::Duration::from_millis(50));
    let small = ["--chunk-rows", "400", "--batch-rows", "50"];
    let dir = tempfile::tempdir().unwrap();
    let hold = app.db.hold_last();
    let running = app.rekey(["run"]).args(small).start();
    app.db.wait_moved(100);
    let proc = format!("/proc/{}", running.pid().as_raw_nonzero());
    let line = fs::read(format!("{proc}/cmdline")).unwrap();
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().rev().nth(1), Some("0"), "{core}");
    for secret in CANARIES {
        assert!(!String::from_utf8_lossy(&line).contains(secret));
    }
    running.signal(Signal::ABORT);
    let ended = running.wait();
    assert!(ended.code().is_none(), "{ended}");
    assert!(!std::os::unix::process::ExitStatusExt::core_dumped(&ended.status), "a core file was written");
    drop(dir);
    hold.rollback();
}
