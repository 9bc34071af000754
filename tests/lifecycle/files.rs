//! A rotation whose keys are in a dotenv file: promoted, rolled back and finalized there, and killed at every file
//! operation.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::load::{Load, some_ids, store};
use crate::support::{Db, Judge, NEW, OLD, OTHER, Rekey, rekey, rekey_without_database, skipped};

/// A database and a dotenv file with the old key in it.
struct Deployment {
    db: Db,
    judge: Judge,
    dir: tempfile::TempDir,
}

const BEFORE: &str = "\u{feff}# keys of production\r\nexport SECRET_KEY='s' # signs\r\nexport ENCRYPTION_KEY = \"KEY\" # rows\r\n\r\nB=2";

fn before() -> String {
    BEFORE.replace("KEY\" #", &format!("{OLD}\" #"))
}

/// The value stands unquoted unless it must be quoted.
fn after() -> String {
    BEFORE.replace("\"KEY\" #", &format!("{NEW} #"))
}

impl Deployment {
    fn new() -> Deployment {
        let db = Db::new();
        Load::rows(12).into(&db);
        let judge = Judge::look(&db, &[OLD]);
        let deployment = Deployment { db, judge, dir: tempfile::tempdir().unwrap() };
        fs::write(deployment.path(), before()).unwrap();
        fs::set_permissions(deployment.path(), fs::Permissions::from_mode(0o640)).unwrap();
        deployment
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(".env.prod")
    }

    fn rekey(&self, command: &[&str]) -> Rekey {
        let old = format!("dotenv:{}#ENCRYPTION_KEY", self.path().display());
        rekey(&self.db, []).more(command).without("ENCRYPTION_KEY").env("REKEY_OLD_KEY", old)
    }

    fn read(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// Backups of ours beside the file.
    fn backups(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path()).unwrap().flatten().map(|e| e.path());
        entries.filter(|p| p.to_string_lossy().contains(".rekey-")).collect()
    }

    fn state(&self) -> String {
        self.db.value("SELECT state FROM rekey.rotations ORDER BY id DESC LIMIT 1")
    }
}

#[test]
fn there_and_back_and_to_the_end() {
    let mut d = Deployment::new();
    d.rekey(&["run"]).exits(0);
    d.rekey(&["promote", "--yes"]).exits(0);
    assert_eq!(d.read(), after());
    let backup = d.backups();
    assert_eq!((backup.len(), fs::read_to_string(&backup[0]).unwrap()), (1, before()));
    assert!(backup[0].extension().unwrap() == "bak");
    assert_eq!(fs::metadata(&backup[0]).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(d.path()).unwrap().permissions().mode() & 0o777, 0o640);
    d.rekey(&["promote", "--yes"]).exits(0);
    assert_eq!((d.read(), d.backups()), (after(), backup));
    // The old key is in the backup alone, and is found there.
    d.rekey(&["run"]).exits(0);
    // Another line is changed meanwhile: it survives the way back.
    fs::write(d.path(), after().replace("B=2", "B=3")).unwrap();
    d.rekey(&["rollback", "--yes"]).exits(0);
    assert_eq!(d.read(), after().replace(NEW, OLD).replace("B=2", "B=3"));
    assert_eq!(d.backups(), Vec::<PathBuf>::new());
    d.judge.all_on(&d.db, OLD);

    d.rekey(&["run"]).exits(0);
    d.rekey(&["promote", "--yes"]).exits(0);
    d.rekey(&["finalize", "--yes"]).exits(0);
    let fingerprint: String = d.db.value("SELECT old_fingerprint FROM rekey.rotations LIMIT 1");
    let retired = PathBuf::from(format!("{}.rekey-retired-{fingerprint}", d.path().display()));
    assert_eq!((d.state().as_str(), d.backups()), ("finalized", vec![retired.clone()]));
    d.judge.all_on(&d.db, NEW);

    // Database backups from before need the old key: it is listed, it opens, and it is removed when that is asked for.
    assert_eq!(fs::metadata(&retired).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = format!("dotenv:{}#ENCRYPTION_KEY", retired.display());
    assert_eq!(d.rekey(&["keys", "fingerprint", &copy]).json(0)["fingerprint"], fingerprint);
    let source = format!("dotenv:{}#ENCRYPTION_KEY", d.path().display());
    let listed = d.rekey(&["keys", "status", &source]).json(0);
    assert_eq!(listed["keys"][0]["retired_files"][0]["fingerprint"], fingerprint, "{listed:#}");
    let destroy = ["keys", "destroy", &source, "--fingerprint", &fingerprint];
    d.rekey(&destroy).env("REKEY_YES", "1").exits(2);
    assert!(retired.exists());
    d.rekey(&destroy).args(["--yes"]).exits(0);
    assert_eq!(d.backups(), Vec::<PathBuf>::new());
    d.rekey(&destroy).args(["--yes"]).exits(3);
    let events: i64 = d.db.value("SELECT count(*) FROM rekey.events WHERE action = 'destroy'");
    assert_eq!(events, 1);
}

/// Whoever may write the file decides which key the application uses.
#[test]
fn a_file_that_every_user_may_write() {
    let d = Deployment::new();
    let open = |mode| fs::set_permissions(d.path(), fs::Permissions::from_mode(mode)).unwrap();
    open(0o662);
    for command in ["plan", "run"] {
        let refused = d.rekey(&[command]).exits(4);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("open-file") && said.contains("chmod o-w"), "{refused}");
        assert!(!d.db.has_rekey_schema());
    }
    let warned = d.rekey(&["plan", "--environment", "development"]).exits(0);
    assert!(warned.stdout.contains("open-file"), "{warned}");
    // Its group is another matter.
    open(0o660);
    assert!(!d.rekey(&["plan"]).exits(0).stdout.contains("open-file"));
    open(0o666);
    d.rekey(&["run", "--allow", "open-file"]).exits(0);
    d.rekey(&["run"]).exits(4);
}

/// A line that a later one overrides holds a third key: it is overwritten with the rest, and that is said.
#[test]
fn a_third_key_in_an_overridden_line() {
    let d = Deployment::new();
    fs::write(d.path(), format!("ENCRYPTION_KEY={OTHER}\nENCRYPTION_KEY={OLD}\n")).unwrap();
    d.rekey(&["run"]).exits(0);
    let warned = d.rekey(&["promote", "--yes"]).exits(0);
    assert!(warned.stderr.contains("another value in line 1"), "{warned}");
    assert!(!d.read().contains(OTHER));
    let finalized = d.rekey(&["finalize", "--yes"]).exits(0);
    // The copy that stays has it still.
    assert!(fs::read_to_string(&d.backups()[0]).unwrap().contains(OTHER), "{finalized}");
}

/// A file that is mounted by itself, as containers do it, cannot be replaced: that is found before anything is recorded.
#[test]
fn what_cannot_be_replaced_is_found_before_promoting() {
    let d = Deployment::new();
    d.rekey(&["run"]).exits(0);
    let path = d.path();
    let promote = || d.rekey(&["promote", "--yes"]).run();
    let mut mount = Command::new("mount");
    mount.arg("--bind").arg(&path).arg(&path).stderr(Stdio::null());
    if mount.status().is_ok_and(|status| status.success()) {
        let refused = promote();
        Command::new("umount").arg(&path).status().unwrap();
        assert!(refused.stderr.contains("mount point") && refused.stderr.contains("--external"), "{refused}");
        assert_eq!((refused.code(), d.state().as_str(), d.read()), (Some(2), "migrated", before()));
    } else {
        skipped(format_args!("a part of 1 test, mounting needs root"));
    }
}

/// What an earlier rekey began and could not write, its owner changes.
#[test]
fn an_owner_takes_over_a_promotion_that_could_not_be_written() {
    let mut d = Deployment::new();
    d.rekey(&["run"]).exits(0);
    d.db.execute(
        "UPDATE rekey.rotations SET state = 'promoting', promoting_at = clock_timestamp(), target_source = old_source;
         SELECT rekey.append_event(id, state, 'killed', NULL, jsonb_build_object('target', target_source))
             FROM rekey.rotations",
    );
    let external = ["promote", "--external", "--yes"];
    let asked = d.rekey(&external).exits(7);
    assert!(asked.stderr.contains("write the key with fingerprint"), "{asked}");
    assert_eq!(d.read(), before());
    fs::write(d.path(), after()).unwrap();
    d.rekey(&external).exits(0);
    assert_eq!(d.state(), "promoted");
    d.judge.all_on(&d.db, NEW);
}

/// Without the database nothing says that the key is needed: the copy that is kept then is where it is found again.
#[test]
fn a_key_replaced_by_force_is_found_in_the_copy() {
    let mut d = Deployment::new();
    d.rekey(&["run"]).exits(0);
    let path = d.path();
    let force = ["keys", "generate", "encryption", "--force", "--env-file", path.to_str().unwrap()];
    rekey_without_database(force).exits(0);
    d.rekey(&["rollback", "--yes"]).exits(0);
    d.judge.all_on(&d.db, OLD);
}

/// The application's file is where the new key is, and nothing else has it: not lost by the way back, nor is a row that was
/// saved under it before the application was restarted.
#[test]
fn the_way_back_loses_no_key() {
    let mut d = Deployment::new();
    d.rekey(&["run"]).exits(0);
    d.rekey(&["promote", "--yes"]).exits(0);
    let back = |d: &Deployment| {
        let done = d.rekey(&["rollback", "--yes"]).without("NEW_ENCRYPTION_KEY").exits(0);
        assert!(done.stderr.contains("is the only known copy of the new key"), "{done}");
        let kept = d.backups();
        assert_eq!((kept.len(), fs::read_to_string(&kept[0]).unwrap()), (1, after()));
        assert_eq!(fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(d.read(), after().replace(NEW, OLD));
    };
    back(&d);
    let id = some_ids(&d.db, 1, 3)[0];
    store(&d.db, id, NEW, b"saved by an application that was not restarted yet");
    d.judge.expect(id, b"saved by an application that was not restarted yet");
    back(&d);
    d.judge.all_on(&d.db, OLD);
    // Where the key is elsewhere as well, the copy goes.
    d.rekey(&["rollback", "--yes"]).exits(0);
    assert_eq!(d.backups(), Vec::<PathBuf>::new());
}

/// Somebody put the new key there without rekey, and thought better of it.
#[test]
fn a_promotion_by_hand_is_taken_back_by_hand() {
    let mut d = Deployment::new();
    d.rekey(&["run"]).exits(0);
    fs::write(d.path(), after()).unwrap();
    let back =
        |code| d.rekey(&["rollback", "--yes", "--old-key", "env:FORMER"]).env("FORMER", OLD).exits(code);
    let refused = back(7);
    assert!(refused.stderr.contains("does not hold that key yet"), "{refused}");
    assert_eq!((d.state().as_str(), d.read()), ("rolling_back", after()));
    fs::write(d.path(), before()).unwrap();
    back(0);
    assert_eq!(d.state(), "rolled_back");
    d.judge.all_on(&d.db, OLD);
}

/// What is to be typed then is accepted as it stands, also where the old key is compromised.
#[test]
fn taken_back_by_hand_with_a_compromised_key() {
    let d = Deployment::new();
    d.rekey(&["run", "--compromised"]).exits(0);
    fs::write(d.path(), after()).unwrap();
    let known = ["--i-know-the-old-key-is-compromised", "--old-key", "env:FORMER"];
    let refused = d.rekey(&["rollback", "--yes"]).args(known).env("FORMER", OLD).exits(7);
    let (_, hint) = refused.stderr.split_once("run `rekey ").expect("a command in backquotes");
    let (typed, _) = hint.split_once('`').unwrap();
    fs::write(d.path(), before()).unwrap();
    let typed: Vec<_> = typed.split(' ').collect();
    d.rekey(&typed).args(["--old-key", "env:FORMER"]).env("FORMER", OLD).exits(0);
    assert_eq!(d.state(), "rolled_back");
}

#[test]
fn a_link_is_followed_and_git_is_watched() {
    let mut d = Deployment::new();
    let real = d.dir.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::rename(d.path(), real.join("env")).unwrap();
    symlink("real/env", d.path()).unwrap();
    let git = Command::new("git").args(["init", "-q"]).arg(d.dir.path()).status().unwrap();
    assert!(git.success());
    d.rekey(&["run"]).exits(0);
    let warned = d.rekey(&["promote", "--yes"]).exits(0);
    assert!(warned.stderr.contains("not ignored"), "{warned}");
    assert!(fs::symlink_metadata(d.path()).unwrap().is_symlink());
    assert_eq!(d.read(), after());
    d.judge.all_on(&d.db, NEW);
    let warned = d.rekey(&["rollback", "--yes"]).without("NEW_ENCRYPTION_KEY").exits(0);
    assert!(warned.stderr.contains(".new.bak is in a git work tree and is not ignored"), "{warned}");
    assert!(fs::symlink_metadata(d.path()).unwrap().is_symlink());
    d.judge.all_on(&d.db, OLD);
}

/// Root may write anywhere: a read-only mount, and a full one.
#[test]
fn a_folder_that_cannot_be_written_to() {
    for (options, filled) in [("ro", false), ("size=64k", true)] {
        let mut d = Deployment::new();
        let mount = |options: &str| {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(d.dir.path()).stderr(Stdio::null());
            mount.status().is_ok_and(|s| s.success())
        };
        if !mount("size=64k") {
            crate::support::skipped(format_args!("a part of 1 test, mounting needs root"));
            return;
        }
        fs::write(d.path(), before()).unwrap();
        d.rekey(&["run"]).exits(0);
        if filled {
            let _ = fs::write(d.dir.path().join("full"), vec![0; 128 << 10]);
        } else {
            let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(d.dir.path()).status();
            assert!(remount.unwrap().success());
        }
        let refused = d.rekey(&["promote", "--yes"]).run();
        let (content, left) = (d.read(), d.backups());
        let state = d.state();
        if filled {
            fs::remove_file(d.dir.path().join("full")).unwrap();
        } else {
            let remount = Command::new("mount").args(["-o", "remount,rw"]).arg(d.dir.path()).status();
            assert!(remount.unwrap().success());
        }
        let promoted = d.rekey(&["promote", "--yes"]).run();
        let now = d.read();
        let _ = Command::new("umount").arg("-l").arg(d.dir.path()).status();
        let refused = refused.expect(2);
        assert!(refused.stderr.contains("Nothing was changed"), "{refused}");
        assert_eq!((content, left, state.as_str()), (before(), vec![], "migrated"), "{options}");
        promoted.expect(0);
        assert_eq!(now, after());
        d.judge.all_on(&d.db, NEW);
    }
}

/// The system calls that change files. strace kills the process as it enters the n-th of them.
const CHANGES: &str = "rename,renameat,renameat2,unlink,unlinkat,link,linkat,fsync,fchmod,fchown";

/// Kills it at the n-th change of a file; `None` where strace is not to be had, `false` where it ran to its end.
fn killed(command: Rekey, n: usize) -> Option<bool> {
    let (trace, inject) = (format!("trace={CHANGES}"), format!("inject={CHANGES}:signal=KILL:when={n}"));
    let outcome =
        command.through("strace", &["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject])?.run();
    match outcome.code() {
        Some(0) => Some(false),
        Some(137) | None => Some(true),
        _ => panic!("{outcome}"),
    }
}

fn nothing_temporary(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!name.ends_with("tmp"), "{name} is left over");
    }
}

#[test]
fn killed_at_every_file_operation() {
    for (prepare, command) in [
        (&[&["run"][..]][..], &["promote", "--yes"][..]),
        (&[&["run"], &["promote", "--yes"]], &["rollback", "--yes"]),
        (&[&["run"], &["promote", "--yes"]], &["finalize", "--yes"]),
    ] {
        let mut kills = 0;
        for n in 1.. {
            assert!(n < 40, "never ends");
            let mut d = Deployment::new();
            prepare.iter().for_each(|step| drop(d.rekey(step).exits(0)));
            let Some(was_killed) = killed(d.rekey(command), n) else {
                crate::support::skipped(format_args!("a part of 1 test, strace is not to be had"));
                return;
            };
            kills += usize::from(was_killed);
            d.db.wait_alone();
            // Never neither: whatever the file says now, one of its keys opens every row.
            let now = d.read();
            assert!(now == before() || now == after() || now == after().replace(NEW, OLD), "{n}: {now}");
            let over = d.state() == "finalized";
            d.rekey(command).exits(if over { 7 } else { 0 });
            nothing_temporary(d.dir.path());
            let key = if command[0] == "rollback" { OLD } else { NEW };
            assert!(d.read().contains(key), "{n}");
            let kept = d.backups();
            assert_eq!(kept.len(), usize::from(command[0] != "rollback"), "{n}");
            assert!(kept.iter().all(|copy| fs::read_to_string(copy).unwrap() == before()), "{n}");
            d.judge.all_on(&d.db, key);
            if !was_killed {
                break;
            }
        }
        assert!(kills >= 1, "{command:?}: {kills} kills");
    }
}
