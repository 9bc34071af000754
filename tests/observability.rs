//! Metrics from the real binary, judged by promtool, and asked over HTTP; alert rules and the dashboard name metrics
//! that exist.

#[path = "support/mod.rs"]
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::http::get;
use support::load::Load;
use support::{Db, SOON, cluster, rekey, run_in_small_steps, status, until};

fn has_promtool() -> bool {
    let tried =
        Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = tried.is_ok_and(|status| status.success());
    if !found {
        support::skipped(format_args!("promtool is missing (Debian's package prometheus has it)"));
    }
    found
}

#[track_caller]
fn promtool<const N: usize>(arguments: [&str; N], input: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
    assert!(output.status.success(), "promtool {}: {said}\n{input}", arguments.join(" "));
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().expect("a number")
}

#[test]
fn a_run_tells_over_http_and_in_a_file_what_it_did() {
    let db = Db::new();
    Load::rows(2000).nulls(5).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let folder = tempfile::tempdir().expect("a folder");
    let (file, word) = (folder.path().join("rekey.prom"), folder.path().join("last-word"));
    let port = cluster::free_port();
    let hold = db.hold_last();
    let run = run_in_small_steps(&db)
        .args([
            "--metrics-listen",
            &format!("127.0.0.1:{port}"),
            "--metrics-file",
            file.to_str().expect("UTF-8"),
        ])
        .env("REKEY_TERMINATION_LOG", &word)
        .start();
    until("/livez", SOON, || get(port, "/livez")?.starts_with("HTTP/1.1 200").then_some(()));
    db.wait_moved(100);
    until("/readyz to say working", SOON, || get(port, "/readyz")?.contains("working").then_some(()));
    rekey(&db, ["pause"]).exits(0);
    until("/readyz to say why not", SOON, || {
        let answer = get(port, "/readyz")?;
        (answer.starts_with("HTTP/1.1 503") && answer.contains("paused by the operator")).then_some(())
    });
    let text = get(port, "/metrics").expect("it answers");
    assert!(text.contains("rekey_throttled{reason=\"paused by the operator\"} 1"), "{text}");
    assert!(text.contains("Content-Type: text/plain; version=0.0.4"), "{text}");
    // Started inside the pod, with all of its environment: port, file and last word are the run's own.
    for look in [&["status"][..], &["pause"], &["quarantine", "list"]] {
        rekey(&db, [])
            .more(look)
            .env("REKEY_METRICS_LISTEN", format!("127.0.0.1:{port}"))
            .env("REKEY_METRICS_FILE", &file)
            .env("REKEY_TERMINATION_LOG", &word)
            .exits(0);
        assert!(!file.exists() && !word.exists(), "{look:?}");
    }
    hold.rollback();
    db.fast_commits();
    rekey(&db, ["resume"]).exits(0);
    run.wait().expect(0);

    let text = std::fs::read_to_string(&file).expect("the file is there");
    let rows: i64 =
        db.value("SELECT count(*) FROM provider_connections WHERE encrypted_credentials IS NOT NULL");
    assert_eq!(value(&text, "rekey_rows_total{outcome=\"re_encrypted\"}"), rows as f64);
    assert_eq!(value(&text, "rekey_rotation_rows{outcome=\"re_encrypted\"}"), rows as f64);
    assert_eq!(value(&text, "rekey_rotation_rows{outcome=\"null\"}"), (2000 - rows) as f64);
    assert_eq!(value(&text, "rekey_exit_code"), 0.0);
    let batches = value(&text, "rekey_batches_total{outcome=\"committed\"}");
    assert_eq!(value(&text, "rekey_lock_duration_seconds_count"), batches);
    assert!(value(&text, "rekey_batch_duration_seconds_sum") > 0.0);
    let word = std::fs::read_to_string(&word).expect("the last word is there");
    let word: serde_json::Value = serde_json::from_str(&word).expect("one JSON line");
    assert_eq!((&word["code"], &word["next"]), (&0.into(), &"rekey verify".into()), "{word}");
    if has_promtool() {
        promtool(["check", "metrics"], &text);
    }
}

/// By then the table has grown by the old versions of its own rows: they are not rows.
#[test]
fn whoever_goes_on_with_a_pass_expects_as_many_rows_as_its_beginning_did() {
    let db = Db::new();
    Load::rows(2000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let hold = db.hold_last();
    let run = run_in_small_steps(&db).start();
    db.wait_moved(100);
    rekey(&db, ["pause"]).exits(0);
    run.kill();
    let expected = status(&db)["progress"]["rows_total"].as_i64().expect("a number");
    db.execute("UPDATE pg_class SET reltuples = 3 * reltuples WHERE relname = 'provider_connections'");
    let port = cluster::free_port();
    let run = run_in_small_steps(&db).args(["--metrics-listen", &format!("127.0.0.1:{port}")]).start();
    let expects = until("it to say how many it expects", SOON, || {
        let text = get(port, "/metrics")?;
        text.contains("rekey_rotation_rows_expected ").then(|| value(&text, "rekey_rotation_rows_expected"))
    });
    assert_eq!(expects, expected as f64);
    hold.rollback();
    db.fast_commits();
    rekey(&db, ["resume"]).exits(0);
    run.wait().expect(0);
}

/// A Job's pod is gone when somebody asks: its last word says what comes next.
#[test]
fn every_job_names_the_next_command() {
    let db = Db::new();
    Load::rows(100).into(&db);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("last-word");
    for (arguments, next) in [
        (&["plan"][..], "rekey run --dry-run"),
        (&["run"], "rekey verify"),
        (&["verify"], "rekey promote --external"),
    ] {
        rekey(&db, []).more(arguments).env("REKEY_TERMINATION_LOG", &path).exits(0);
        let word = std::fs::read_to_string(&path).expect("it is there");
        let word: serde_json::Value = serde_json::from_str(&word).expect("JSON");
        assert_eq!(word["next"], next, "{arguments:?}: {word}");
    }
    // A Job of another kind says at least how it ended.
    let key = format!("file:{}", folder.path().join("key").display());
    for code in [0, 2] {
        let value = if code == 0 { key.as_str() } else { "env:" };
        let job = rekey(&db, ["keys", "generate", "encryption", "--to", value]);
        job.env("REKEY_TERMINATION_LOG", &path).exits(code);
        let word = std::fs::read_to_string(&path).expect("it is there");
        let word: serde_json::Value = serde_json::from_str(&word).expect("JSON");
        assert_eq!(word["code"], code, "{word}");
    }
}

#[test]
fn an_error_has_a_last_word_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("last-word");
    support::rekey_without_database(["run"]).env("REKEY_TERMINATION_LOG", &path).exits(2);
    let word: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("it is there")).expect("JSON");
    assert_eq!(word["code"], 2);
    assert_eq!(word["outcome"], "DATABASE_URL is not set");
}

#[test]
fn the_alert_rules_hold() {
    if has_promtool() {
        promtool(["check", "rules", "scripts/observability/rules.yml"], "");
        promtool(["test", "rules", "scripts/observability/rules_test.yml"], "");
    }
}

/// Every rekey_… word in the rules and the dashboard is a metric the source exports.
#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let source = include_str!("../src/telemetry/metrics/exposition.rs");
    let dashboard = include_str!("../scripts/observability/dashboard.json");
    serde_json::from_str::<serde_json::Value>(dashboard).expect("the dashboard is JSON");
    for text in [dashboard, include_str!("../scripts/observability/rules.yml")] {
        for word in text.split(|c: char| !c.is_ascii_lowercase() && c != '_') {
            let metric = word.strip_suffix("_bucket").unwrap_or(word);
            if word.starts_with("rekey_") {
                assert!(source.contains(&format!("\"{metric}\"")), "{word} is exported nowhere");
            }
        }
    }
}
