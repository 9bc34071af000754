//! The report.

use serde_json::Value;

use crate::support::load::{Load, some_ids, store_raw};
use crate::support::{Db, OLD, rekey};
use crate::{WINDOWS, file, look};

/// What nobody should be able to put into a page: markup, quotes, what acts on a terminal, what turns text round, and length.
const HOSTILE: &str =
    "</script><img src=x onerror=alert(1)> \"quoted\" 'and' & \u{1b}[2J \u{202e}desrever\u{2066} {{ 7 * 7 }}";

fn html(db: &Db, more: &[&str], code: i32) -> String {
    rekey(db, ["report", "--format", "html"]).more(more).exits(code).stdout
}

fn text<'a>(page: &'a Value, what: &str) -> &'a str {
    page[what].as_str().expect("text")
}

/// From a run with a row that no key decrypts, through an unclean verify, an acceptance and a pause, to the end.
#[test]
fn a_whole_life_in_every_window() {
    let db = Db::new();
    Load::rows(3000).nulls(5).into(&db);
    let bad = some_ids(&db, 2, 9);
    for id in &bad {
        store_raw(&db, *id, b"no credential at all, but long enough");
    }
    let long = "a-reason-without-any-space-in-it-".repeat(12);
    let folder = tempfile::tempdir().expect("a folder");
    let live = folder.path().join("live.key");
    std::fs::write(&live, OLD).expect("a file is written");
    let old = format!("file:{}", live.display());
    let go = |command: &[&str], why: &str, code| {
        rekey(&db, []).more(command).args(["--operator", HOSTILE, "--reason", why]).exits(code);
    };
    go(&["run", "--old-key", &old], HOSTILE, 5);
    let unfinished = file(folder.path(), "unfinished.html", &html(&db, &[], 0));
    go(&["pause"], &long, 0);
    go(&["resume"], HOSTILE, 0);
    go(&["verify"], HOSTILE, 5);
    let unclean = file(folder.path(), "unclean.html", &html(&db, &[], 0));
    for id in &bad {
        go(&["quarantine", "accept", &id.to_string(), "--yes"], HOSTILE, 0);
    }
    go(&["run"], HOSTILE, 0);
    go(&["verify"], HOSTILE, 0);
    let whole = file(folder.path(), "whole.html", &html(&db, &["--all"], 0));
    let seen = look(&[], &[unfinished, unclean, whole]);
    assert_eq!(seen.len(), 3 * WINDOWS);

    let total: i64 =
        db.value("SELECT count(*) FROM provider_connections WHERE encrypted_credentials IS NOT NULL");
    let (unfinished, unclean, whole) = (&seen[0], &seen[WINDOWS], &seen[2 * WINDOWS]);
    let of = |n: i64| {
        let digits = n.to_string();
        format!("{} {}", &digits[..1], &digits[1..])
    };
    for page in [unfinished, unclean] {
        let expected = format!("NOT COMPLETE: 2 of {} rows decrypt with no key", of(total));
        assert!(text(page, "title").starts_with(&expected), "{}", page["title"]);
    }
    assert!(
        text(whole, "title").starts_with(&format!(
            "RE-ENCRYPTED, NOT PROMOTED, WITH 2 ACCEPTED EXCEPTIONS: {} rows on key ",
            of(total - 2)
        )),
        "{}",
        whole["title"]
    );
    assert!(whole["figures"].as_i64().expect("a number") > 15);
    for says in [
        "a row is read again",
        "Not clean",
        "Accepted by",
        "</script><img src=x onerror=alert(1)> \"quoted\" 'and' & \\u001b[2J \\u202edesrever\\u2066 {{ 7 * 7 }}",
        "Rows that no key decrypts",
        "neither key, 37 bytes",
    ] {
        let shown = text(whole, "text").to_lowercase();
        assert!(shown.contains(&says.to_lowercase()), "no {says} in\n{shown}");
    }
    // The JSON that the page carries is the one that `report` prints. Clocks and statistics go on meanwhile.
    let printed = rekey(&db, ["report", "--all"]).exits(0).json();
    let carried = &whole["report"];
    for part in ["verdict", "chain", "other_events", "cloudtrail"] {
        assert_eq!(printed[part], carried[part], "{part}");
    }
    let (printed, carried) = (&printed["rotations"][0], &carried["rotations"][0]);
    for part in ["timeline", "verifies", "totals", "proofs", "quarantine", "passes", "pauses", "throughput"] {
        assert_eq!(printed[part], carried[part], "{part}");
    }
}

/// Ten thousand events, and a table without a row.
#[test]
fn much_and_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = Db::new();
    rekey(&empty, ["run", "--allow", "empty-table"]).run();
    let much = Db::new();
    Load::rows(20).into(&much);
    rekey(&much, ["run"]).exits(0);
    much.execute(
        "SELECT rekey.append_event(id, 'access', repeat('operator', 12), 'because', '{\"by\": \"<b>test</b>\", \"keys\": [1, \"2\"]}') \
         FROM rekey.rotations, generate_series(1, 5000); \
         SELECT rekey.append_event(NULL, 'generate', 'someone', NULL, '[\"not\", \"an\", \"object\"]') FROM generate_series(1, 5000)",
    );
    let pages = [file(folder.path(), "much.html", &html(&much, &[], 0))];
    for (width, scheme) in [("360", "light"), ("1400", "dark"), ("703", "print")] {
        let seen = look(&["--without-axe", "--only", &format!("{width},{scheme}")], &pages);
        let events = seen[0]["report"]["chain"]["events"].as_i64().expect("a number");
        assert!(events > 10_000, "{events}");
    }
    if empty.has_rekey_schema() {
        let page = file(folder.path(), "empty.html", &html(&empty, &[], 0));
        look(&[], &[page]);
    }
}

/// The first line at a terminal is the verdict; hostile text cannot make a line of its own, nor act.
#[test]
fn a_page_for_a_terminal() {
    let db = Db::new();
    Load::rows(300).nulls(5).into(&db);
    rekey(&db, ["run", "--operator", HOSTILE, "--reason", "one\nCOMPLETE: all is well\n"]).exits(0);
    let unverified = rekey(&db, ["report", "--format", "text"]).exits(0).stdout;
    assert!(unverified.starts_with("NOT VERIFIED: "), "{unverified}");
    rekey(&db, ["verify"]).exits(0);
    let text = rekey(&db, ["report", "--format", "text"]).exits(0).stdout;
    assert!(text.starts_with("RE-ENCRYPTED, NOT PROMOTED: "), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']) && !text.contains("\nCOMPLETE"), "{text}");
    assert!(text.contains("one COMPLETE: all is well") && text.ends_with('\n'), "{text}");
    // Without its trail nothing is proven, and the exit code says so.
    db.execute("ALTER TABLE rekey.events DISABLE TRIGGER ALL; UPDATE rekey.events SET operator = 'nobody' WHERE seq = 2");
    let broken = rekey(&db, ["report", "--format", "text"]).exits(6).stdout;
    assert!(broken.starts_with("NOT PROVEN: the audit trail is broken at event 2\n"), "{broken}");
    rekey(&db, ["report", "--format", "csv"]).exits(2);
    rekey(&db, ["report", "--affected", "--format", "html"]).exits(2);
}

/// One line for each connection, and nothing in it is a formula.
#[test]
fn the_people_to_tell_for_a_spreadsheet() {
    let db = Db::new();
    Load::rows(40).into(&db);
    db.execute(
        "UPDATE provider_connections SET provider_slug = '=1+1,\"x\"' WHERE id = (SELECT id FROM provider_connections LIMIT 1)",
    );
    rekey(&db, ["run", "--compromised"]).exits(0);
    let listed = rekey(&db, ["report", "--affected"]).exits(0).json();
    let csv = rekey(&db, ["report", "--affected", "--format", "csv"]).exits(0).stdout;
    let mut lines = csv.split("\r\n");
    assert_eq!(lines.next(), Some("rotation,compromised,complete,user_id,provider_slug,connection_id"));
    let ids = listed["affected"].as_array().expect("a list").iter().map(|a| text(a, "connection_id"));
    for (id, line) in ids.zip(lines.by_ref()) {
        assert!(line.ends_with(id) && line.contains(",true,true,"), "{line}");
    }
    assert_eq!(lines.next(), Some(""), "one line each\n{csv}");
    assert!(csv.contains("\"'=1+1,\"\"x\"\"\""), "{csv}");
}
