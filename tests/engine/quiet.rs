//! Canaries: with every crate logging all it can, no key, no credential and no password of the database shows anywhere:
//! not in output, metrics, the last word, arguments, tables or the server's log; in no form that a log would use.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::cluster::free_port;
use crate::support::load::{Load, some_ids, store, store_raw};
use crate::support::{
    Cluster, Db, NEW, OLD, OTHER, Rekey, SOON, rekey, rekey_without_database, run_in_small_steps, until,
};

const PASSWORD: &str = "canary-password-of-the-database";
const CREDENTIAL: &str = "canary-token-of-a-user-at-his-bank";

/// A secret in every form it may be met in.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
    vec![secret.to_owned(), hex.to_uppercase(), hex, list.join(", "), list.join(","), base64(bytes)]
}

/// Without the last group, which depends on what follows.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let triples = bytes.as_chunks::<3>().0.iter();
    let sextets =
        triples.flat_map(|[a, b, c]| [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63]);
    sextets.map(|six| char::from(ALPHABET[usize::from(six)])).collect()
}

#[track_caller]
fn shows_nothing(place: &str, text: &str) {
    for secret in [OLD, NEW, OTHER, PASSWORD, CREDENTIAL] {
        for form in forms(secret) {
            if let Some(at) = text.find(&form) {
                let from = (at.saturating_sub(80)..=at).find(|&at| text.is_char_boundary(at)).unwrap_or(at);
                panic!("{place} shows a secret: …{}", &text[from..at + form.len()]);
            }
        }
    }
}

/// As loud as it gets, with a password that the server does not ask for and everything may repeat.
fn loud(db: &Db, command: &[&str]) -> Rekey {
    let url = db.url.replace("postgres@", &format!("postgres:{PASSWORD}@"));
    rekey(db, [])
        .more(command)
        .env("DATABASE_URL", url)
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full")
}

/// Every table of ours, and the application's audit trail.
fn tables(db: &Db) -> String {
    let names: Vec<String> = db.column(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
         WHERE schemaname = 'rekey' OR tablename = 'audit_logs'",
    );
    let dump = |name: &String| {
        let text: Option<String> = db.value(&format!("SELECT string_agg(t::text, E'\\n') FROM {name} t"));
        text.unwrap_or_default()
    };
    names.iter().map(dump).collect::<Vec<_>>().join("\n")
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn no_command_shows_a_secret_at_trace() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    db.execute("ALTER SYSTEM SET log_min_duration_statement = 0");
    db.execute("ALTER SYSTEM SET log_parameter_max_length_on_error = -1");
    db.execute("SELECT pg_reload_conf()");
    Load::rows(600).into(&db);
    let ids = some_ids(&db, 60, 3);
    for (n, id) in ids.iter().enumerate() {
        store(&db, *id, OLD, format!(r#"{{"access_token":"{CREDENTIAL}","n":{n}}}"#).as_bytes());
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let bad = ids[0];
    let bad_text = bad.to_string();
    let commands: &[(&[&str], i32)] = &[
        (&["plan", "--rehearse", "100"], 0),
        (&["run", "--dry-run"], 0),
        (&["run", "--log-format", "pretty"], 0),
        (&["verify"], 0),
        (&["run"], 5),
        (&["verify", "--output", "json"], 5),
        (&["quarantine", "list"], 0),
        (&["quarantine", "retry"], 5),
        (&["quarantine", "accept", &bad_text, "--yes", "--reason", "no backup has it"], 0),
        (&["status", "--output", "json"], 0),
        (&["report", "--format", "json"], 0),
        (&["rollback", "--yes"], 0),
        (&["run", "--old-key", OTHER], 2),
        (&["run", "--new-key", &format!("env:{OTHER}")], 2),
    ];
    let mut logged = false;
    for (command, code) in commands {
        if *code == 5 {
            // A key opens it, though not one of the two: nor may what is in it show.
            let sealed = crate::support::Cipher::new(OTHER).seal(*b"twelve bytes", CREDENTIAL.as_bytes());
            store_raw(&db, bad, &sealed);
        }
        let (metrics, word) = (file("metrics"), file("word"));
        let done = loud(&db, command).args(["--metrics-file", &metrics]).env("REKEY_TERMINATION_LOG", &word);
        let done = done.exits(*code);
        logged |= done.stderr.contains("TRACE");
        shows_nothing(&format!("`rekey {}`", command.join(" ")), &format!("{}{}", done.stdout, done.stderr));
        for place in [&metrics, &word] {
            shows_nothing(place, &std::fs::read_to_string(place).unwrap_or_default());
        }
    }
    assert!(logged, "nothing was logged");
    shows_nothing("a table", &tables(&db));
    shows_nothing("the server's log", &cluster.log());
    assert!(cluster.log().contains("duration: "), "the server logged nothing");
}

/// Errors, and the errors behind them: a server that is gone, a password that is wrong, a key that is none.
#[test]
fn no_error_shows_a_secret() {
    let db = Db::new();
    Load::rows(50).into(&db);
    let nowhere = format!("postgresql+asyncpg://app:{PASSWORD}@127.0.0.1:{}/x", free_port());
    let unknown = db.url.replace("postgres@", &format!("nobody:{PASSWORD}@"));
    for command in ["plan", "run", "verify", "status", "rollback"] {
        let yes: &[&str] = if command == "rollback" { &["--yes"] } else { &[] };
        for url in [&nowhere, &unknown] {
            let outcome =
                loud(&db, &[command]).more(yes).args(["--retry-for", "1s"]).env("DATABASE_URL", url).run();
            assert!(matches!(outcome.code(), Some(2 | 4 | 69)), "{outcome}");
            shows_nothing(command, &format!("{}{}", outcome.stdout, outcome.stderr));
        }
    }
    for (old, new) in [(&OLD[1..], NEW), (OLD, &NEW[1..]), (OLD, OLD), (OTHER, NEW)] {
        let outcome = loud(&db, &["run"]).env("ENCRYPTION_KEY", old).env("NEW_ENCRYPTION_KEY", new).exits(3);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        shows_nothing("an error about keys", &said);
        assert!(!said.contains(old) && !said.contains(new), "{outcome}");
    }
}

/// Typed where it does not belong: neither a key nor a password is repeated, and whoever only slipped is still helped.
#[test]
fn what_is_not_understood_is_not_repeated() {
    let (url, equals) = (format!("redis://:{PASSWORD}@cache"), format!("--dry-run={OLD}"));
    let (flag, flag_equals) = (format!("--{OLD}"), format!("--no-such-flag={OLD}"));
    let lines: &[&[&str]] = &[
        &[OLD],
        &["help", OLD],
        &["keys", OLD],
        &["run", OLD],
        &["run", "--", OLD],
        &["run", &equals],
        &["run", &flag],
        &["run", &flag_equals],
        &["run", "--workers", OLD],
        &["status", "--log-format", OLD],
        &["status", "--metrics-listen", &url],
        &["quarantine", "accept", OLD],
        &["completions", OLD],
        &["completions", &flag],
        &["cache", "purge", &url],
        &["cache", &url],
        &["cache", "purge", "--redis-url=redis://cache", &url],
    ];
    let forms: [&[&str]; 2] = [&[], &["--output", "json"]];
    for line in lines {
        for form in forms {
            let outcome = rekey_without_database([]).more(form).more(line).exits(2);
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            shows_nothing(&format!("{line:?} {form:?}"), &said);
            // A flag's name is no secret, what follows its `=` may be.
            let tells = ["(not shown)", "'--no-such-flag'"];
            assert!(tells.iter().any(|told| said.contains(told)), "{outcome}");
            assert_eq!(outcome.stdout.is_empty(), form.is_empty(), "{outcome}");
        }
    }
    let variable = rekey_without_database(["status"]).env("REKEY_METRICS_LISTEN", &url).exits(2);
    shows_nothing("a variable", &variable.stderr);
    for (slip, typed, meant) in [
        (["stauts", "--watch"], "'stauts'", "'status'"),
        (["run", "--wrokers=3"], "'--wrokers'", "'--workers'"),
        (["status", "--output=jsno"], "'jsno'", "'json'"),
        (["run", "--workers=99"], "'99'", "1..=64"),
        (["run", "--lease-ttl=1s"], "'1s'", "--lease-ttl"),
    ] {
        let helped = rekey_without_database(slip).exits(2);
        assert!(helped.stderr.contains(typed) && helped.stderr.contains(meant), "{helped}");
    }
}

/// While it works: its arguments, its titles in the server, and what it answers over HTTP.
#[test]
fn a_process_at_work_shows_no_secret() {
    let db = Db::new();
    Load::rows(4000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let port = free_port();
    let run = run_in_small_steps(&db).args(["--metrics-listen", &format!("127.0.0.1:{port}")]).start();
    db.wait_moved(100);
    for path in ["/metrics", "/livez", "/readyz", "/"] {
        let answer = until(path, SOON, || get(port, path));
        shows_nothing(path, &answer);
    }
    let arguments = std::fs::read(format!("/proc/{}/cmdline", run.pid().as_raw_nonzero())).expect("it lives");
    shows_nothing("its arguments", &String::from_utf8_lossy(&arguments));
    let sessions: Vec<String> =
        db.column("SELECT a::text FROM pg_stat_activity a WHERE datname = current_database()");
    shows_nothing("pg_stat_activity", &sessions.join("\n"));
    db.fast_commits();
    run.wait().expect(0);
}
