//! The page to watch a run on: through a pause, a kill and a rollback, from the process itself and from elsewhere.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::http::get;
use crate::support::load::{Load, some_ids, store_raw};
use crate::support::{Db, NEW, OLD, SOON, cluster, rekey, run_in_small_steps, status, until};
use crate::{WINDOWS, file, look};

fn shows(port: u16, what: &str) -> String {
    until(&format!("the page to say {what}"), SOON, || get(port, "/").filter(|page| page.contains(what)))
}

/// The value of a figure on the page, as the machine reads it.
fn figure(page: &str, path: &str) -> i64 {
    let place = format!("data-json=\"{}\"", path.replace('/', "&#x2f;"));
    let (before, _) = page.split_once(&place).unwrap_or_else(|| panic!("no {path} in\n{page}"));
    let value = before.rsplit_once("value=\"").expect("a value").1;
    value.trim_end_matches(['"', ' ']).parse().expect("a number")
}

#[test]
fn a_run_is_watched_through_a_pause_a_kill_and_a_rollback() {
    let db = Db::new();
    Load::rows(2000).nulls(5).into(&db);
    let bad = some_ids(&db, 1, 5)[0];
    store_raw(&db, bad, b"no credential at all, but long enough");
    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let hold = db.hold_last();
    let who = "<script>alert(1)</script> \u{202e}";
    let port = cluster::free_port();
    let listen = format!("127.0.0.1:{port}");
    let run = run_in_small_steps(&db).args(["--metrics-listen", &listen, "--operator", who]).start();
    db.wait_moved(100);
    shows(port, "UNDER WAY");
    rekey(&db, ["pause", "--reason", "replica lags"]).exits(0);
    shows(port, "PAUSED");
    // Batches in flight are in: the figures stand.
    let told = until("the figures to stand", SOON, || {
        let (page, status) = (get(port, "/")?, status(&db));
        let same = ["re_encrypted", "null", "quarantined"].iter().all(|outcome| {
            Some(figure(&page, &format!("/status/totals/{outcome}"))) == status["totals"][outcome].as_i64()
        });
        same.then_some(page)
    });
    assert!(told.contains("paused by the operator") && told.contains("&lt;script&gt;"), "{told}");
    assert!(told.contains("Content-Security-Policy: default-src 'none'; script-src 'self'"), "{told}");
    for secret in [OLD, NEW, &db.url, "alert(1)</script>"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    let seen = look(&[], &[format!("http://{listen}/")]);
    assert_eq!(seen.len(), WINDOWS);
    for page in &seen {
        let (title, text) = (page["title"].as_str().expect("a title"), page["text"].as_str().expect("text"));
        assert!(title.starts_with("PAUSED") && text.contains("replica lags"), "{title}: {text}");
        assert!(!text.contains("no answer any more"), "{text}");
    }
    run.kill();

    // From elsewhere: whoever was killed falls silent, and the page goes on.
    let elsewhere = cluster::free_port();
    let listen = format!("127.0.0.1:{elsewhere}");
    let watching = rekey(&db, ["status", "--watch", "--listen", &listen]).start();
    until("the page", SOON, || get(elsewhere, "/"));
    shows(elsewhere, "No process works on this rotation");
    hold.rollback();
    db.fast_commits();
    rekey(&db, ["rollback", "--yes"]).exits(5);
    let rolled = shows(elsewhere, "way back to the old key");
    assert!(rolled.contains(&bad.to_string()) && rolled.contains("rolling back"), "{rolled}");
    look(&["--only", "360,dark"], &[format!("http://{listen}/")]);
    let metrics = get(elsewhere, "/metrics").expect("an answer");
    assert!(metrics.contains("rekey_rotation_state{state=\"rolling_back\",database="), "{metrics}");
    watching.kill();
}

/// What slows it down is said while it does, and drawn afterwards: the rate, its reason, and how long row locks were held.
#[test]
fn a_run_that_is_held_back_is_drawn() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    let port = cluster::free_port();
    let listen = format!("127.0.0.1:{port}");
    // Samples are of five seconds, and a curve needs two.
    let run = run_in_small_steps(&db).args(["--max-rate", "250", "--metrics-listen", &listen]).start();
    shows(port, "max rate");
    let locks = "The longest that a batch held its row locks";
    shows(port, locks);
    run.wait().expect(0);
    rekey(&db, ["verify"]).exits(0);

    let report = rekey(&db, ["report", "--format", "html"]).exits(0).stdout;
    for drawn in ["class=\"rate\"", "class=\"held\"", "class=\"lock\"", "max rate", locks] {
        assert!(report.contains(drawn), "{drawn} is not in\n{report}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(look(&[], &[file(folder.path(), "report.html", &report)]).len(), WINDOWS);
}

/// Before there is a ledger, and where there is no such database.
#[test]
fn a_page_about_nothing() {
    let db = Db::new();
    let gone = format!("{}/no_such_database", db.url.rsplit_once('/').expect("a database").0);
    for (url, says) in [(db.url.clone(), "NO ROTATION"), (gone, "has not answered")] {
        let port = cluster::free_port();
        let listen = format!("127.0.0.1:{port}");
        let watching =
            rekey(&db, ["status", "--watch", "--listen", &listen]).env("DATABASE_URL", url).start();
        shows(port, says);
        look(&["--only", "360,light"], &[format!("http://{listen}/")]);
        watching.kill();
    }
}

/// It only reads: whatever else is asked for is refused, and what is asked wrongly ends nothing.
#[test]
fn only_get_and_head() {
    let db = Db::new();
    let port = cluster::free_port();
    let watching = rekey(&db, ["status", "--watch", "--listen", &format!("127.0.0.1:{port}")]).start();
    until("the page", SOON, || get(port, "/"));
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        answer
    };
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
        let answer = ask(&format!("{method} /"));
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("Allow: GET, HEAD"), "{answer}");
    }
    let head = ask("HEAD /");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(ask("GET /../../etc/passwd").starts_with("HTTP/1.1 404"));
    assert!(ask("GET /page.js").contains("Content-Type: text/javascript"));
    watching.kill();
}
