//! What every command prints with `--output json`: one envelope, as docs/schema/output-v1.json has it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;
use rekey::cli::Cli;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::load::{Load, some_ids, store, store_raw};
use crate::support::{Contract, Db, NEW, OLD, OTHER, Rekey, SOON, rekey, rekey_without_database, until};

/// An application with its keys in a dotenv file, and rekey beside it.
struct Place {
    db: Db,
    dir: TempDir,
    contract: Contract,
}

impl Place {
    fn rows(rows: u64) -> Place {
        let (db, dir) = (Db::new(), TempDir::new().expect("a folder"));
        Load::rows(rows).into(&db);
        fs::write(dir.path().join(".env"), format!("SECRET_KEY={OTHER}\nENCRYPTION_KEY={OLD}\n")).unwrap();
        Place { db, dir, contract: Contract::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn source(&self, variable: &str) -> String {
        format!("dotenv:{}#{variable}", self.path(".env").display())
    }

    fn rekey(&self, arguments: &[&str]) -> Rekey {
        let command = rekey(&self.db, []).more(arguments).without("ENCRYPTION_KEY");
        command.env("REKEY_OLD_KEY", self.source("ENCRYPTION_KEY")).env("REKEY_ENVIRONMENT", "testing")
    }

    /// Runs it to this exit code, and takes down what it printed.
    #[track_caller]
    fn sees(&mut self, arguments: &[&str], code: i32) -> Value {
        let command = self.rekey(arguments);
        self.prints(command, code)
    }

    #[track_caller]
    fn prints(&mut self, command: Rekey, code: i32) -> Value {
        self.contract.see(&command.args(["--output", "json"]).exits(code))
    }

    fn bad_row(&self, seed: u64) -> Uuid {
        let id = some_ids(&self.db, 1, seed)[0];
        store_raw(&self.db, id, &[7; 60]);
        id
    }
}

/// Every command there is but those that print a file.
fn every_command() -> BTreeSet<String> {
    fn leaves(command: &clap::Command, words: &str, found: &mut BTreeSet<String>) {
        for deeper in command.get_subcommands().filter(|deeper| deeper.get_name() != "help") {
            let words = format!("{words} {}", deeper.get_name());
            match deeper.has_subcommands() {
                true => leaves(deeper, &words, found),
                false => _ = found.insert(words.trim().to_owned()),
            }
        }
    }
    let mut found = BTreeSet::new();
    leaves(&Cli::command(), "", &mut found);
    found.retain(|command| !["completions", "man"].contains(&command.as_str()));
    found
}

#[test]
fn every_command_prints_one_envelope() {
    let mut place = Place::rows(80);
    the_way_out(&mut place);
    the_way_back(&mut place);
    the_keys(&mut place);
    nothing_needed(&mut place);
    let mut missing = every_command();
    missing.retain(|command| !place.contract.commands().contains(command));
    // It needs a Redis: tests/cache judges it.
    assert_eq!(missing, BTreeSet::from(["cache purge".to_owned()]));
    place.contract.holds();
}

fn the_way_out(place: &mut Place) {
    place.sees(&["status"], 0);
    place.sees(&["init"], 0);
    place.sees(&["plan", "--rehearse", "20"], 0);
    let bad = place.bad_row(1);
    let dry = place.sees(&["run", "--dry-run"], 5);
    assert_eq!((dry["result"]["unreadable"].as_i64(), dry["next"].is_array()), (Some(1), true), "{dry:#}");
    place.sees(&["run"], 5);
    let listed = place.sees(&["quarantine", "list"], 0);
    assert_eq!(listed["result"][0]["id"], json!(bad), "{listed:#}");
    assert_eq!(listed["next"][0], "rekey quarantine retry", "{listed:#}");
    place.sees(&["verify"], 5);
    place.sees(&["quarantine", "retry"], 5);
    place.sees(&["quarantine", "accept", &bad.to_string(), "--yes", "--reason", "no backup has it"], 0);
    let refused = place.sees(&["finalize", "--yes"], 7);
    assert_eq!((&refused["outcome"], &refused["result"]), (&json!("error"), &Value::Null), "{refused:#}");
    assert_eq!(refused["next"], json!(["rekey verify", "rekey promote"]), "{refused:#}");
    for control in ["pause", "resume", "abort"] {
        place.sees(&[control], 0);
    }
    assert_eq!(place.sees(&["run"], 7)["next"][0], "rekey resume");
    place.sees(&["resume", "--deadline", "2h"], 0);
    place.sees(&["status"], 0);
    // A row that somebody saved under the old key.
    let late = some_ids(&place.db, 2, 5).into_iter().find(|id| *id != bad).expect("another row");
    store(&place.db, late, OLD, b"{}");
    let unclean = place.sees(&["verify"], 6);
    assert!(unclean["outcome"].as_str().unwrap().starts_with("not clean"), "{unclean:#}");
    place.sees(&["run"], 0);
    place.sees(&["verify"], 0);
    place.sees(&["promote", "--yes"], 0);
    place.sees(&["plan"], 0);
    place.sees(&["report", "--affected"], 0);
    place.sees(&["finalize", "--yes"], 0);
    place.sees(&["report"], 0);
    let wrong = format!("1:{}", "0".repeat(64));
    let unlike = place.sees(&["report", "--expect", &wrong], 6);
    assert_eq!(unlike["outcome"], "failed", "{unlike:#}");
    assert!(unlike["error"].is_string() && unlike["result"]["chain"]["intact"] == true, "{unlike:#}");
    store(&place.db, bad, NEW, b"{}");
}

fn the_way_back(place: &mut Place) {
    fs::write(place.path("third"), "Qd3-vT8_kLm5WzXc9bNr2RyYp6JfGh4s").unwrap();
    let new = format!("file:{}", place.path("third").display());
    place.sees(&["run", "--new-key", &new], 0);
    place.sees(&["rollback", "--yes", "--new-key", &new], 0);
    place.sees(&["report", "--all"], 0);
    place.sees(&["report", "--affected", "--all"], 0);
}

fn the_keys(place: &mut Place) {
    let (secret, encryption) = (place.source("SECRET_KEY"), place.source("ENCRYPTION_KEY"));
    let file = place.path("made.env").display().to_string();
    place.sees(&["keys", "generate", "--env-file", &file], 0);
    let handed_out = place.sees(&["keys", "generate", "--stdout"], 0);
    assert_eq!(handed_out["ENCRYPTION_KEY"].as_str().map(str::len), Some(32));
    place.sees(&["keys", "status", &secret, &encryption], 0);
    place.sees(&["keys", "status", "file:/nowhere"], 3);
    place.sees(&["keys", "validate", "--env-file", &file], 0);
    fs::write(place.path("short"), "too short").unwrap();
    let short = format!("file:{}", place.path("short").display());
    assert_eq!(place.sees(&["keys", "validate", &short, "--as", "encryption"], 3)["outcome"], "failed");
    let retired = place.sees(&["keys", "fingerprint", &encryption], 0);
    place.sees(&["keys", "rotate-secret-key", &secret, "--yes"], 0);
    let backup = place.path("backup.gpg").display().to_string();
    let word = |place: &Place, arguments: &[&str]| {
        place.rekey(arguments).env("REKEY_BACKUP_PASSPHRASE", "five plain words of a test")
    };
    let command = word(place, &["keys", "backup", &encryption, "--out", &backup]);
    let kept = place.prints(command, 0);
    assert_eq!(kept["result"]["keys"][0]["fingerprint"], retired["fingerprint"]);
    let other = format!("dotenv:{file}#ENCRYPTION_KEY");
    let command = word(place, &["keys", "restore", &backup, "--to", &other, "--yes"]);
    let restored = place.prints(command, 0);
    assert_eq!(restored["next"], json!(["restart the application", "rekey cache purge", "rekey verify"]));
    let old: String = place.db.value("SELECT old_fingerprint FROM rekey.rotations WHERE state = 'finalized'");
    place.sees(&["keys", "destroy", &encryption, "--fingerprint", &old, "--yes"], 0);
}

/// What needs no database, and what no command can be made of.
fn nothing_needed(place: &mut Place) {
    place.sees(&["init", "--print-sql"], 0);
    let nine = place.sees(&["explain", "9"], 0);
    assert_eq!(nine["next"], nine["result"]["next"]);
    assert!(place.sees(&["explain"], 0)["result"].as_array().is_some_and(|all| all.len() > 40));
    let version = place.contract.see(&rekey_without_database(["--version", "--output", "json"]).exits(0));
    assert_eq!(version["result"]["version"], env!("CARGO_PKG_VERSION"));
    let lines: [(&[&str], Value); 5] = [
        (&["bogus"], Value::Null),
        (&["run", "--workers", "0"], json!("run")),
        (&["keys", "generate"], json!("keys generate")),
        (&["quarantine", "accept", "no-id"], json!("quarantine accept")),
        (&["cache", "purge"], json!("cache purge")),
    ];
    for (line, command) in lines {
        let refused = place.sees(line, 2);
        assert_eq!((&refused["command"], &refused["outcome"]), (&command, &json!("error")), "{refused:#}");
    }
    let empty = rekey_without_database(["status"]).env("DATABASE_URL", " ").json(2);
    assert_eq!(empty["error"], "DATABASE_URL is empty");
    let help = rekey_without_database(["--help", "--output", "json"]).exits(0);
    assert!(help.stdout.starts_with("Re-encrypts"), "{help}");
}

/// It fails where a document is not as the schema says.
#[test]
fn the_validator_finds_faults() {
    let good = rekey_without_database(["explain", "0"]).json(0);
    let change = |name: &str, value: Value| {
        let mut document = good.clone();
        document[name] = value;
        let mut contract = Contract::default();
        contract.add(name.to_owned(), document);
        contract.faults()
    };
    let Some(none) = change("format", json!(1)) else { return };
    assert_eq!(none, Vec::<String>::new());
    for (name, value) in [
        ("exit_code", json!("0")),
        ("command", json!("bogus")),
        ("outcome", json!("error")),
        ("next", json!("rekey status")),
        ("next", Value::Null),
        ("error", json!("beside exit 0")),
        ("event_head", json!("1:2")),
        ("more", json!(3.0)),
        ("more", json!("2026-11-30 07:00:00")),
        ("more", json!("2026-11-30T07:00:00+01:00")),
    ] {
        assert_ne!(change(name, value), Some(Vec::new()), "{name} passes");
    }
}

/// One document on one line where stdout is no terminal; on one, indented.
#[test]
fn compact_in_a_pipe_and_indented_on_a_terminal() {
    let explained = || rekey_without_database(["explain", "0", "--output", "json"]);
    let piped = explained().exits(0).stdout;
    assert_eq!(piped.lines().count(), 1, "{piped}");
    let Some(mut screen) = explained().on_a_terminal(100, 30) else { return };
    screen.until("\"format\": 1,");
}

/// `report --affected` has the same fields whether there are rows or not, one rotation or several, over or not.
#[test]
fn the_list_of_those_who_are_affected_has_one_shape() {
    let mut place = Place::rows(0);
    let shape = |document: &Value| {
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert!(document["affected"].is_array(), "{document:#}");
        (names(document), names(&document["result"]), names(&document["result"]["rotations"][0]))
    };
    place.sees(&["run", "--allow", "empty-table"], 0);
    let empty = place.sees(&["report", "--affected"], 0);
    assert_eq!((&empty["affected"], &empty["users"]), (&json!([]), &json!(0)), "{empty:#}");
    place.sees(&["rollback", "--yes", "--allow", "empty-table"], 0);
    Load::rows(30).seed(2).into(&place.db);
    place.sees(&["run"], 0);
    let mut documents = vec![empty];
    for more in [&[][..], &["--all"]] {
        let listed = place.sees(&[&["report", "--affected"], more].concat(), 0);
        let entries = listed["affected"].as_array().unwrap();
        assert_eq!(entries.len(), 30, "{listed:#}");
        let latest = listed["result"]["rotations"].as_array().unwrap().last().unwrap();
        assert!(entries.iter().all(|entry| entry["rotation"] == latest["rotation"]), "{listed:#}");
        for name in ["rotation", "compromised", "complete", "users", "providers"] {
            assert_eq!(listed[name], latest[name], "{listed:#}");
        }
        assert_eq!(latest["connections"], 30, "{listed:#}");
        documents.push(listed);
    }
    place.sees(&["rollback", "--yes"], 0);
    documents.push(place.sees(&["report", "--affected"], 0));
    // What is printed does not depend on the option that asks for the envelope.
    documents.push(place.contract.see(&place.rekey(&["report", "--affected"]).exits(0)));
    for document in &documents {
        assert_eq!(shape(document), shape(&documents[1]), "{document:#}");
    }
    place.contract.holds();
}

/// A document a line, and the line of an error is one of them.
#[test]
fn watching_prints_a_document_a_line() {
    let mut place = Place::rows(20);
    // It waits for a rotation to begin.
    let over = place.rekey(&["status", "--watch", "--output", "json"]).start();
    over.signal(Signal::TERM);
    let watched = over.wait().expect(75);
    for line in watched.stdout.lines() {
        let document: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {watched}"));
        place.contract.add("rekey status --watch".to_owned(), document);
    }
    let last = watched.stdout.lines().last().unwrap_or_default();
    assert!(last.contains("\"outcome\":\"error\",\"exit_code\":75"), "{watched}");
    place.contract.holds();
}

fn last_line(stderr: &str) -> Value {
    serde_json::from_str(stderr.lines().last().unwrap_or_default()).expect("JSON")
}

/// However a command ends, the last line of a JSON log says how, and which rotation it was about.
#[test]
fn the_last_line_of_the_log_is_finished() {
    let place = Place::rows(30);
    let mut ends: Vec<(Rekey, i32, bool)> = Vec::new();
    place.rekey(&["run", "--dry-run"]).exits(0);
    ends.push((place.rekey(&["run"]), 0, true));
    ends.push((place.rekey(&["status"]), 0, true));
    ends.push((place.rekey(&["finalize", "--yes"]), 7, true));
    ends.push((place.rekey(&["run", "--workers", "none"]), 2, false));
    ends.push((rekey_without_database(["verify"]), 2, false));
    ends.push((rekey_without_database(["explain", "0"]), 0, false));
    let mut rotation = None;
    for (command, code, named) in ends {
        let ended = command.exits(code);
        let said = last_line(&ended.stderr);
        assert_eq!((&said["message"], &said["exit_code"]), (&json!("finished"), &json!(code)), "{ended}");
        let first = ended.title.split(' ').next();
        assert_eq!(said["command"].as_str(), first, "{ended}");
        assert_eq!(said["rotation"].is_string(), named, "{ended}");
        if named {
            assert_eq!(rotation.get_or_insert(said["rotation"].clone()), &said["rotation"], "{ended}");
        }
    }
    // People read how it ended on stdout.
    let people = place.rekey(&["status"]).env("REKEY_LOG_FORMAT", "pretty").exits(0);
    assert!(!people.stderr.contains("finished"), "{people}");
}

/// Stopped by one signal, or by two.
#[test]
fn a_signal_has_a_last_line_too() {
    let place = Place::rows(4000);
    let slow = || place.rekey(&["run", "--max-rate", "20", "--workers", "1"]).start();
    for signals in 1..=2 {
        let run = slow();
        let begun = "SELECT count(*) FROM rekey.processes";
        until("a process at work", SOON, || {
            place.db.has_rekey_schema().then(|| place.db.value::<i64>(begun)).filter(|at_work| *at_work > 0)
        });
        for _ in 0..signals {
            run.signal(Signal::TERM);
        }
        let ended = run.wait().expect(75);
        let said = last_line(&ended.stderr);
        assert_eq!((&said["message"], &said["exit_code"]), (&json!("finished"), &json!(75)), "{ended}");
        assert!(said["rotation"].is_string(), "{ended}");
        place.db.execute("DELETE FROM rekey.processes");
    }
}
