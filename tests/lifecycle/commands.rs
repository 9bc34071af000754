//! Keys behind programs: what a program is given and what it is not, what fails, and who may name one.

use std::fs;
use std::os::unix::fs::symlink;

use crate::recipes::Stand;
use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, OTHER, Rekey, SOON, rekey, rekey_without_database, until};

fn state(db: &Db) -> String {
    db.value("SELECT state FROM rekey.rotations ORDER BY id DESC LIMIT 1")
}

/// `rekey …` with both keys behind a program `keep`.
fn kept(stand: &Stand, db: &Db, arguments: &[&str]) -> Rekey {
    let sources = rekey(db, [])
        .env("REKEY_OLD_KEY", "command:keep get encryption_key")
        .env("REKEY_NEW_KEY", "command:keep get encryption_key_new");
    stand.on_path(sources).more(arguments)
}

const KEEP: &str = r#"case $1 in get) cat $2 ;; put) cat >$2 ;; esac"#;

/// Whoever may write a table must not get to run a program.
#[test]
fn what_the_ledger_names_is_never_run() {
    let (db, stand) = (Db::new(), Stand::new());
    Load::rows(30).into(&db);
    rekey(&db, ["run"]).exits(0);
    let trap = stand.path("trap");
    for column in ["old_source", "new_source", "target_source"] {
        db.execute(&format!("UPDATE rekey.rotations SET {column} = 'command:touch {}'", trap.display()));
    }
    // The audit trail names other sources.
    let refused = rekey(&db, ["promote", "--external", "--yes"]).exits(7);
    assert!(refused.stderr.contains("audit trail"), "{refused}");
    let lost = rekey(&db, ["verify"]).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY").exits(3);
    assert!(lost.stderr.contains("not run: this invocation does not name it"), "{lost}");
    assert!(!trap.exists());
    let commands: &[&[&str]] = &[
        &["status"],
        &["plan"],
        &["verify"],
        &["run"],
        &["run", "--dry-run"],
        &["report"],
        &["keys", "status"],
        &["quarantine", "retry"],
        &["promote", "--yes"],
        &["promote", "--external", "--yes"],
        &["promote", "--promote-command", "cat", "--yes"],
        &["finalize", "--yes"],
        &["rollback", "--yes"],
    ];
    for state in
        ["migrated", "promoting", "promoted", "finalizing", "rolling_back", "unpromoting", "rolled_back"]
    {
        db.execute(&format!(
            "UPDATE rekey.rotations SET state = '{state}', promoting_at = clock_timestamp()"
        ));
        for command in commands {
            for named in [true, false] {
                let command = rekey(&db, []).more(command);
                let command = if named {
                    command
                } else {
                    command.without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY")
                };
                let outcome = command.run();
                assert!(!trap.exists(), "{outcome}");
                assert!(outcome.code().is_some_and(|code| ![1, 101].contains(&code)), "{outcome}");
            }
        }
    }
    // The same text in this invocation's own hand is run.
    let named = format!("command:touch {}", trap.display());
    rekey(&db, ["keys", "fingerprint", &named]).exits(3);
    assert!(trap.exists());
}

#[test]
fn a_program_gets_no_secret_of_ours_and_none_is_repeated() {
    let (db, stand) = (Db::new(), Stand::new());
    Load::rows(10).into(&db);
    stand.program("keep", &format!("env >>environment\n{KEEP}"));
    kept(&stand, &db, &["run", "--also-key", "env:FORMER"])
        .env("FORMER", OTHER)
        .env("PGPASSWORD", "hunter2")
        .exits(0);
    let seen = stand.kept("environment");
    assert!(seen.contains("PATH="), "{seen}");
    for secret in [OLD, NEW, OTHER, "hunter2", "DATABASE_URL", "REKEY_"] {
        assert!(!seen.contains(secret), "{secret} in\n{seen}");
    }

    stand.program("keep", "echo \"the value $(cat encryption_key) is locked\" >&2; exit 3");
    let failed = kept(&stand, &db, &["verify"]).exits(3);
    assert!(failed.stderr.contains("the value (masked) is locked"), "{failed}");
    failed.says_none_of(&[OLD]);
    stand.program("keep", "exit 75");
    kept(&stand, &db, &["verify"]).exits(69);
}

#[test]
fn a_promote_command_may_fail_and_be_repeated() {
    let (db, stand) = (Db::new(), Stand::new());
    Load::rows(20).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    stand.program("keep", KEEP);
    kept(&stand, &db, &["run"]).exits(0);
    let cannot = kept(&stand, &db, &["promote", "--yes"]).exits(2);
    assert!(cannot.stderr.contains("--promote-command"), "{cannot}");
    let by_env =
        rekey(&db, ["promote", "--yes", "--target", "env:ENCRYPTION_KEY", "--promote-command", "true"])
            .exits(2);
    assert!(by_env.stderr.contains("--target"), "{by_env}");
    assert_eq!(state(&db), "migrated");

    let promote = |command: &str| {
        kept(&stand, &db, &["promote", "--yes", "--promote-command", command])
            .args(["--target", "command:keep get encryption_key"])
            .env("REKEY_OLD_KEY", "command:keep get encryption_key_old")
    };
    let failed = promote("sh -c 'echo no right to write >&2; exit 1'").exits(7);
    assert!(failed.stderr.contains("no right to write"), "{failed}");
    assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("promoting", OLD));
    promote("keep put encryption_key").exits(0);
    assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("promoted", NEW));
    // Once more is as good, and runs nothing.
    promote("false").exits(0);

    // Back by hand, where no command is given.
    let back = |arguments: &[&str]| {
        kept(&stand, &db, &["rollback", "--yes", "--target", "command:keep get encryption_key"])
            .more(arguments)
            .env("REKEY_OLD_KEY", "command:keep get encryption_key_old")
    };
    let by_hand = back(&[]).exits(7);
    assert!(by_hand.stderr.contains("`keep get encryption_key` reads it"), "{by_hand}");
    back(&["--promote-command", "keep put encryption_key"]).exits(0);
    assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("rolled_back", OLD));
    judge.all_on(&db, OLD);
}

/// Nor the variable that only the ledger names, once that was read.
#[test]
fn a_program_gets_no_key_that_only_the_ledger_names() {
    let (db, stand) = (Db::new(), Stand::new());
    Load::rows(10).into(&db);
    let with = |arguments: &[&str]| {
        let command = rekey(&db, []).more(arguments).env("FRESH", NEW).env("OTHERS", "a token");
        stand.on_path(command).env("REKEY_OLD_KEY", "command:keep get encryption_key")
    };
    stand.program("keep", KEEP);
    with(&["run", "--new-key", "env:FRESH"]).exits(0);
    stand.program("keep", &format!("env >>environment\n{KEEP}"));
    with(&["verify"]).exits(0);
    let seen = stand.kept("environment");
    assert!(seen.contains("OTHERS=a token"), "{seen}");
    assert!(!seen.contains(NEW), "{seen}");
}

/// A program keeps no former value: before it is run, the key that it replaces has to be somewhere else.
#[test]
fn a_program_never_overwrites_the_last_copy_of_a_key() {
    let (db, stand) = (Db::new(), Stand::new());
    Load::rows(20).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    stand.program("keep", &format!("echo $* >>asked\n{KEEP}"));
    kept(&stand, &db, &["run"]).exits(0);
    let promote = ["promote", "--yes", "--promote-command", "keep put encryption_key"];
    let link = stand.path("link");
    symlink(stand.path("encryption_key"), &link).unwrap();
    let (link, file) = (link.display(), stand.path("encryption_key"));
    let file = format!("file:{}", file.display());
    // By whatever name: the same words, the file that is linked to.
    for (target, old) in [
        ("command:keep get encryption_key", "command:keep  get 'encryption_key'".to_owned()),
        (file.as_str(), format!("file:{link}")),
    ] {
        let refused = kept(&stand, &db, &promote).args(["--target", target, "--old-key", &old]);
        // Recorded is the command, which this invocation does not name: the file is its only copy.
        let refused = refused.exits(7);
        assert!(refused.stderr.contains("is the only place where rekey finds the old key"), "{refused}");
        assert!(refused.stderr.contains("`--old-key SOURCE`"), "{refused}");
        assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("migrated", OLD));
    }
    assert!(!stand.kept("asked").contains("put"));

    // A copy that goes along with the change is none: the program puts the key back.
    stand.keep("copy", OLD);
    stand.program("keep", "case $1 in get) cat $2 ;; put) tee copy >$2 ;; esac");
    let both =
        |arguments: &[&str]| kept(&stand, &db, arguments).env("REKEY_OLD_KEY", "command:keep get copy");
    let back = both(&promote).args(["--target", "command:keep get encryption_key"]).exits(7);
    assert!(back.stderr.contains("replaced the key in command:keep get copy, too"), "{back}");
    assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("promoting", OLD));

    stand.program("keep", KEEP);
    both(&promote).args(["--target", "command:keep get encryption_key"]).exits(0);
    assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("promoted", NEW));

    // The way back overwrites the new key.
    fs::remove_file(stand.path("encryption_key_new")).unwrap();
    let rollback = ["rollback", "--yes", "--promote-command", "keep put encryption_key"];
    let rollback = || both(&rollback).args(["--target", "command:keep get encryption_key"]);
    let refused = rollback().exits(7);
    assert!(refused.stderr.contains("`--new-key SOURCE`"), "{refused}");
    assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("promoted", NEW));
    stand.keep("encryption_key_new", NEW);
    rollback().exits(0);
    assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("rolled_back", OLD));
    judge.all_on(&db, OLD);
}

/// Beside a dotenv file rekey keeps the copy itself, as it does where it writes the file.
#[test]
fn a_dotenv_file_that_a_program_writes_is_kept_before() {
    let (db, stand) = (Db::new(), Stand::new());
    Load::rows(20).into(&db);
    let file = stand.path(".env");
    fs::write(&file, format!("A=1\nENCRYPTION_KEY='{OLD}'\n")).unwrap();
    stand.program("put", "printf \"ENCRYPTION_KEY='%s'\\n\" \"$(cat)\" >.env");
    let source = format!("dotenv:{}#ENCRYPTION_KEY", file.display());
    let with = |arguments: &[&str]| {
        let command = rekey(&db, []).more(arguments).env("REKEY_OLD_KEY", source.as_str());
        stand.on_path(command).env("NEW_ENCRYPTION_KEY", NEW)
    };
    with(&["run"]).exits(0);
    let id: String = db.value("SELECT right(id::text, 8) FROM rekey.rotations");
    with(&["promote", "--yes", "--promote-command", "put"]).exits(0);
    assert!(stand.kept(".env").contains(NEW));
    assert!(stand.kept(&format!(".env.rekey-{id}.bak")).contains(OLD));
    with(&["rollback", "--yes", "--promote-command", "put"]).exits(0);
    assert!(stand.kept(".env").contains(OLD));
    assert!(!stand.path(&format!(".env.rekey-{id}.bak")).exists());
    with(&["run"]).exits(0);
    with(&["promote", "--yes", "--promote-command", "put"]).exits(0);
    with(&["finalize", "--yes"]).exits(0);
    let kept = fs::read_dir(stand.path("")).unwrap().flatten();
    let retired = kept.filter(|file| file.file_name().to_string_lossy().starts_with(".env.rekey-retired-"));
    assert_eq!(retired.count(), 1);
}

/// A program that ends well and changes nothing has promoted nothing.
#[test]
fn a_promote_command_must_have_changed_the_target() {
    let (db, stand) = (Db::new(), Stand::new());
    Load::rows(20).into(&db);
    stand.program("keep", KEEP);
    let target = ["--target", "command:keep get encryption_key"];
    let with = |arguments: &[&str]| {
        let command = kept(&stand, &db, arguments).args(target);
        command.env("REKEY_OLD_KEY", "command:keep get encryption_key_old")
    };
    kept(&stand, &db, &["run"]).env("REKEY_OLD_KEY", "command:keep get encryption_key_old").exits(0);
    let promote = |command: &str| with(&["promote", "--yes", "--promote-command", command]);
    // It puts the key somewhere else.
    for _ in 0..2 {
        let nothing = promote("keep put elsewhere").exits(7);
        assert!(nothing.stderr.contains("does not yield the key with fingerprint"), "{nothing}");
        assert!(nothing.stderr.contains("Check where the command puts the key"), "{nothing}");
        assert!(nothing.stderr.contains("rekey promote --yes"), "{nothing}");
        assert!(!nothing.stdout.contains("restart"), "{nothing}");
        nothing.says_none_of(&[OLD, NEW]);
        assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("promoting", OLD));
    }
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.events WHERE action = 'promoted'"), 0);
    promote("keep put encryption_key").exits(0);
    assert_eq!((state(&db).as_str(), stand.kept("encryption_key").as_str()), ("promoted", NEW));
}

#[test]
fn the_keys_commands_read_there_and_write_nowhere() {
    let stand = Stand::new();
    stand.program("keep", KEEP);
    let keys = |arguments: &[&str]| stand.on_path(rekey_without_database(["keys"])).more(arguments);
    let there = keys(&["fingerprint", "command:keep get encryption_key"]).exits(0).stdout;
    let file = format!("file:{}", stand.path("encryption_key").display());
    assert_eq!(there, keys(&["fingerprint", &file]).exits(0).stdout);
    keys(&["validate", "command:keep get encryption_key"]).exits(0);
    // What a pod of the application prints: kubectl exec … cat … | rekey keys fingerprint file:/dev/stdin
    let piped = keys(&["fingerprint", "file:/dev/stdin"]).env("SEEN", OLD);
    let piped = piped.through("sh", &["-c", "printf '%s\\n' \"$SEEN\" | \"$@\"", "sh"]).expect("a shell");
    assert_eq!(there, piped.exits(0).stdout);
    for refused in [
        keys(&["generate", "encryption", "--to", "command:keep put encryption_key"]).exits(2),
        keys(&["fingerprint", "command:keep get 'encryption_key"]).exits(2),
        keys(&["fingerprint", &format!("command:echo {OTHER}")]).exits(2),
    ] {
        refused.says_none_of(&[OTHER]);
    }
    assert_eq!(stand.kept("encryption_key"), OLD);
}

/// A Secret that is mounted into a pod: `key` is a link into `..data`, itself a link that the kubelet swaps at once.
#[test]
fn a_mounted_secret_is_waited_for() {
    let (db, stand) = (Db::new(), Stand::new());
    Load::rows(20).into(&db);
    stand.program("keep", KEEP);
    let mount = stand.path("mount");
    for (version, key) in [("..2026_1", OLD), ("..2026_2", NEW)] {
        fs::create_dir_all(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("key"), key).unwrap();
    }
    symlink("..2026_1", mount.join("..data")).unwrap();
    symlink("..data/key", mount.join("key")).unwrap();
    let mounted = format!("file:{}", mount.join("key").display());

    kept(&stand, &db, &["run", "--old-key", &mounted]).exits(0);
    // Such a file is the platform's to change.
    let never = kept(&stand, &db, &["promote", "--yes", "--old-key", &mounted]).exits(2);
    assert!(never.stderr.contains("--external") && never.stderr.contains("--promote-command"), "{never}");

    // The Job of a pod: it says what to change, and ends once the mounted file has changed.
    let swap = |version: &str| {
        symlink(version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    let job = ["promote", "--yes", "--external", "--target", &mounted, "--wait-for", &mounted];
    let waiting = kept(&stand, &db, &job).start();
    until("the promotion to begin", SOON, || (state(&db) == "promoting").then_some(()));
    swap("..2026_2");
    let done = waiting.wait().expect(0);
    assert!(done.stderr.contains("the key with fingerprint"), "{done}");
    assert!(done.stdout.contains("restart"), "{done}");
    let back = ["rollback", "--yes", "--target", &mounted];
    kept(&stand, &db, &back).exits(7);
    swap("..2026_1");
    kept(&stand, &db, &back).exits(0);
    kept(&stand, &db, &["run", "--old-key", &mounted]).exits(0);

    let target = "command:keep get encryption_key";
    let arguments = ["promote", "--yes", "--target", target, "--promote-command", "keep put encryption_key"];
    let short = kept(&stand, &db, &arguments).args(["--wait-for", &mounted, "--wait-limit", "0s"]).exits(7);
    assert!(short.stderr.contains("Don't restart the application yet"), "{short}");
    assert!(!short.stdout.contains("restart"), "{short}");
    assert_eq!(state(&db), "promoted");
    let waiting = kept(&stand, &db, &arguments).args(["--wait-for", &mounted]).start();
    swap("..2026_2");
    let seen = waiting.wait().expect(0);
    assert!(
        seen.stdout.contains(&format!("{mounted} yields it, too")) && seen.stdout.contains("restart"),
        "{seen}"
    );
    assert_eq!(fs::read_link(mount.join("key")).unwrap().to_str(), Some("..data/key"));
    kept(&stand, &db, &["promote", "--yes", "--wait-for", "env:ENCRYPTION_KEY"]).exits(2);
}
