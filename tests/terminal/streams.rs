//! Off a terminal: people who pipe get text with a line of progress every few seconds, pods get JSON; colours, `-q`
//! and `-v` reach everything on stderr.

use std::time::Duration;

use serde_json::Value;

use crate::support::load::Load;
use crate::support::{Db, Outcome, Rekey, rekey, run_in_small_steps};

/// A run that somebody holds up until it has shown progress.
fn held_up(db: &Db, run: Rekey) -> Outcome {
    let hold = db.hold_last();
    let run = run.start();
    // Three seconds lie between two lines: time is what is tested.
    std::thread::sleep(Duration::from_secs(8));
    hold.rollback();
    run.wait().expect(0)
}

fn loaded() -> Db {
    let db = Db::new();
    Load::rows(2000).into(&db);
    db
}

#[test]
fn people_who_redirect_get_text_with_progress() {
    let db = loaded();
    let run = held_up(&db, run_in_small_steps(&db).without("REKEY_LOG_FORMAT"));
    let said = &run.stderr;
    assert!(said.lines().any(|line| line.contains(" INFO Rotation started")), "{run}");
    let progress = said.lines().filter(|line| line.contains("pass 1: 1 999 of about 2 000 rows, 99 %"));
    assert!(progress.count() >= 1, "{run}");
    assert!(said.contains("; waiting: row held: row "), "{run}");
    assert!(!said.contains('\u{1b}') && !said.contains('{') && !said.contains('━'), "{run}");
}

#[test]
fn a_dumb_terminal_gets_lines() {
    let db = loaded();
    let hold = db.hold_last();
    let Some(mut screen) = run_in_small_steps(&db).on_a_terminal_called("dumb", 120, 30) else { return };
    screen.until("pass 1: ");
    hold.rollback();
    screen.ends(0);
    assert!(!screen.shows("━"), "{screen}");
}

#[test]
fn pods_get_json_with_progress() {
    let db = loaded();
    let run = run_in_small_steps(&db).without("REKEY_LOG_FORMAT").env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let run = held_up(&db, run.env("REKEY_OPERATOR", "alice").env("REKEY_REASON", "a test"));
    let lines: Vec<Value> =
        run.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let progress = |line: &&Value| line["message"] == "progress" && line["waiting"] == true;
    let progress = lines.iter().find(progress).unwrap_or_else(|| panic!("no progress that waits: {run}"));
    assert_eq!(progress["rows_done"], 1999, "{progress}");
}

#[test]
fn colours_are_used_where_they_are_wanted() {
    let db = loaded();
    let plain = rekey(&db, ["run"]).env("NO_COLOR", "1").env("REKEY_LOG_FORMAT", "pretty");
    let plain = plain.exits(0);
    assert!(!plain.stderr.contains('\u{1b}'), "{plain}");
    for asked in [["--color", "always"], ["--log-format", "pretty"]] {
        let run = rekey(&db, asked).args(["run"]).env("REKEY_LOG_FORMAT", "pretty");
        let run = if asked[0] == "--color" { run } else { run.env("REKEY_COLOR", "always") };
        let refused = run.without("NEW_ENCRYPTION_KEY").run();
        assert!(refused.stderr.contains("\u{1b}[1;31merror:\u{1b}[0m"), "{refused}");
    }
    let usage =
        rekey(&db, ["run", "--color", "always", "--no-such-flag"]).without("REKEY_LOG_FORMAT").exits(2);
    assert!(usage.stderr.contains('\u{1b}'), "{usage}");
    let help = rekey(&db, ["--color", "always", "--help"]).exits(0);
    assert!(help.stdout.contains('\u{1b}'), "{help}");
    for never in ["--color=never", "--help"] {
        let help = rekey(&db, [never, "--help"]).exits(0);
        assert!(!help.stdout.contains('\u{1b}'), "{help}");
    }
}

#[test]
fn quiet_is_quiet_and_verbose_tells_more() {
    let db = loaded();
    let quiet = run_in_small_steps(&db).args(["-q"]).without("REKEY_LOG_FORMAT").exits(0);
    assert!(quiet.stderr.lines().all(|line| line.contains(" WARN ")), "{quiet}");
    let wrong = rekey(&db, ["-q", "promote", "--new-key", "env:ABSENT"]).without("REKEY_LOG_FORMAT");
    let wrong = wrong.env("REKEY_REASON", "a test").run();
    assert!(wrong.stderr.starts_with("error: "), "{wrong}");
    let more = rekey(&db, ["-v", "verify"]).env("RUST_LOG", "off").without("REKEY_LOG_FORMAT").exits(0);
    let most = rekey(&db, ["-vv", "verify"]).without("REKEY_LOG_FORMAT").exits(0);
    assert!(most.stderr.len() >= more.stderr.len(), "{most}");
    let both = rekey(&db, ["verify", "-q"]).env("REKEY_VERBOSE", "2").without("REKEY_LOG_FORMAT").exits(0);
    assert!(both.stderr.lines().all(|line| line.contains(" WARN ")), "{both}");
}
