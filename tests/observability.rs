//! Metrics from the real binary, judged by promtool, and asked over HTTP; alert rules and the dashboard name metrics
//! that exist.

#[path = "support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
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

/// The value of a series; `database` is the last of its labels, and need not be named.
fn value(text: &str, series: &str) -> f64 {
    let series = series.trim_end_matches('}');
    let line = text.lines().find_map(|line| {
        let (labels, value) = line.rsplit_once(' ')?;
        let rest = labels.strip_prefix(series)?;
        (["", "}"].contains(&rest) || rest.starts_with("{database=") || rest.starts_with(",database="))
            .then_some(value)
    });
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
    assert_eq!(value(&text, "rekey_throttled{reason=\"paused by the operator\"}"), 1.0);
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
    assert_eq!(value(&text, "rekey_rotation_state{state=\"migrated\"}"), 1.0);
    assert_eq!(value(&text, "rekey_rotation_state{state=\"migrating\"}"), 0.0);
    let since = value(&text, "rekey_last_success_timestamp_seconds{command=\"run\"}");
    let now: f64 = db.value("SELECT extract(epoch FROM clock_timestamp())::float8");
    assert!((now - since).abs() < 300.0, "{since} and {now}");
    assert!(text.contains("rekey_build_info{version=") && text.contains("commit="), "{text}");
    assert!(value(&text, "process_resident_memory_bytes") > 1e6 && value(&text, "process_open_fds") > 2.0);
    assert!((value(&text, "process_start_time_seconds") - now).abs() < 300.0, "{text}");
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
        text.contains("rekey_rotation_rows_expected{").then(|| value(&text, "rekey_rotation_rows_expected"))
    });
    assert_eq!(expects, expected as f64);
    hold.rollback();
    db.fast_commits();
    rekey(&db, ["resume"]).exits(0);
    run.wait().expect(0);
}

/// Connections that say nothing keep no probe out, a head has its limit, and the page is shown under no foreign name.
#[test]
fn the_server_is_bounded() {
    let db = Db::new();
    rekey(&db, ["init"]).exits(0);
    let port = cluster::free_port();
    let watch = rekey(&db, ["status", "--watch", "--listen", &format!("127.0.0.1:{port}")]).start();
    until("it to listen", SOON, || get(port, "/livez"));
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let mut silent: Vec<TcpStream> = (0..48).map(|_| connect()).collect();
    assert!(get(port, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 ")));
    // The oldest made room, at once; the youngest may still speak.
    let ended = |stream: &mut TcpStream| stream.read(&mut [0]).is_ok_and(|read| read == 0);
    assert!(silent[..8].iter_mut().all(ended));
    silent[47].set_nonblocking(true).expect("a socket");
    assert!(!ended(&mut silent[47]));
    drop(silent);

    let answer = |head: &str| {
        let mut stream = connect();
        stream.write_all(head.as_bytes()).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it reads");
        let mut answer = String::new();
        // What it does not read, it resets.
        let _ = stream.read_to_string(&mut answer);
        answer.lines().next().unwrap_or_default().to_owned()
    };
    let long = format!("GET / HTTP/1.1\r\nCookie: {}", "x".repeat(16 * 1024 - 24));
    assert_eq!(answer(&long), "HTTP/1.1 431 Request Header Fields Too Large");
    assert_eq!(answer("GET / HTTP/1.1\r\nHost: localhost\r\n"), "HTTP/1.1 400 Bad Request");
    let under =
        |path: &str, host: &str| answer(&format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"));
    assert_eq!(under("/", "rebind.example.com"), "HTTP/1.1 421 Misdirected Request");
    assert_eq!(under("/", "localhost"), "HTTP/1.1 200 OK");
    assert_eq!(under("/metrics", "rebind.example.com"), "HTTP/1.1 200 OK");
    watch.kill();
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
    let source = concat!(
        include_str!("../src/telemetry/metrics/exposition.rs"),
        include_str!("../src/telemetry/metrics/process.rs")
    );
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

/// Staging and production are two databases: no rule and no panel adds them up. Each rule names a part of the runbook that is
/// there.
#[test]
fn rules_and_panels_tell_databases_apart() {
    let anchors = |page: &str| -> Vec<String> {
        page.lines()
            .filter_map(|line| line.strip_prefix('#'))
            .map(|heading| heading.trim_start_matches('#').trim().to_lowercase())
            .map(|heading| heading.chars().filter(|c| c.is_alphanumeric() || " -".contains(*c)).collect())
            .map(|heading: String| heading.replace(' ', "-"))
            .collect()
    };
    let rules = include_str!("../scripts/observability/rules.yml");
    let alerts = rules.split("- alert: ").skip(1);
    for alert in alerts {
        let name = alert.lines().next().expect("a name");
        for key in ["summary:", "description:", "action:", "runbook_url:"] {
            assert!(alert.contains(key), "{name} has no {key}");
        }
        let url = alert.lines().find_map(|line| line.trim().strip_prefix("runbook_url: ")).expect("a URL");
        let place = url.strip_prefix("https://rekey.example/").expect("a page of this repository");
        let (page, anchor) = place.split_once('#').expect("a part of a page");
        let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{name}: {page}: {error}"));
        assert!(anchors(&text).iter().any(|there| there == anchor), "{name}: no {anchor} in {page}");
        assert!(alert.contains("by (namespace, "), "{name} is not by namespace");
        assert!(!alert.contains("on()"), "{name} joins databases");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../scripts/observability/dashboard.json")).expect("JSON");
    let number = |of: &serde_json::Value| of.as_i64().expect("a number");
    let mut places: Vec<[i64; 4]> = Vec::new();
    for panel in dashboard["panels"].as_array().expect("a list") {
        let title = &panel["title"];
        assert!(
            panel["description"].as_str().is_some_and(|text| text.len() > 20),
            "{title} has no description"
        );
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(defaults["unit"].is_string() && defaults["thresholds"]["steps"][0].is_object(), "{title}");
        for target in panel["targets"].as_array().expect("a list") {
            let query = target["expr"].as_str().expect("a query");
            let apart = "namespace=~\"$namespace\",database=~\"$database\"";
            assert!(query.contains(apart), "{title} adds databases up: {query}");
        }
        let grid = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| number(&grid[side]));
        assert!(x + w <= 24, "{title} sticks out");
        let meets = |p: &[i64; 4]| x < p[0] + p[2] && p[0] < x + w && y < p[1] + p[3] && p[1] < y + h;
        assert!(!places.iter().any(meets), "{title} lies on another panel");
        places.push([x, y, w, h]);
    }
    let ids: std::collections::BTreeSet<i64> =
        dashboard["panels"].as_array().expect("a list").iter().map(|panel| number(&panel["id"])).collect();
    assert_eq!(ids.len(), places.len());
}

/// A plan, a verify and a promotion are at work as soon as the database has answered.
#[test]
fn a_verify_is_ready_while_it_works() {
    let db = Db::new();
    Load::rows(300).into(&db);
    rekey(&db, ["run"]).exits(0);
    // Nobody reads a row before this ends.
    let mut hold = db.hold();
    hold.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
    let port = cluster::free_port();
    let verify = rekey(&db, ["verify", "--metrics-listen", &format!("127.0.0.1:{port}")]).start();
    until("/readyz to say working", SOON, || get(port, "/readyz")?.starts_with("HTTP/1.1 200").then_some(()));
    let text = get(port, "/metrics").expect("it answers");
    assert_eq!(value(&text, "rekey_rotation_state{state=\"migrated\"}"), 1.0);
    hold.rollback();
    verify.wait().expect(0);
}
