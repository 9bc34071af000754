//! The memory of a live process: who may read it at all, and whether a key is in it: while it works, and when the work is
//! done and the keys are dropped.
//!
//! Reading it takes root, for the process is not dumpable. It is held still by its own last act: its results go into a
//! pipe that is full and that nobody reads.

use std::fs::{File, Permissions};
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, geteuid, getuid};

use crate::support::cluster::server_user;
use crate::support::load::Load;
use crate::support::{
    Db, NEW, OLD, OTHER, Rekey, Running, SOON, rekey, rekey_without_database, state, until,
};

/// Where a command finds its keys: in files, for an environment would hold them as long as the process lives.
struct Keys {
    /// Removed when this is dropped.
    _folder: tempfile::TempDir,
    sources: [String; 2],
}

impl Keys {
    /// One file for each.
    fn in_files() -> Keys {
        let folder = tempfile::tempdir().expect("a folder");
        let sources = [("old", OLD), ("new", NEW)].map(|(name, key)| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("{key}\n")).expect("a key file");
            format!("file:{}", path.display())
        });
        Keys { _folder: folder, sources }
    }

    /// Both in one dotenv file, among other variables.
    fn in_a_dotenv_file() -> Keys {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        let text =
            format!("# The application's\nOLD_KEY={OLD}\nexport PORT=80\nNEW_KEY=\"{NEW}\"\nDEBUG=0\n");
        std::fs::write(&path, text).expect("a dotenv file");
        let sources = ["OLD_KEY", "NEW_KEY"].map(|name| format!("dotenv:{}#{name}", path.display()));
        Keys { _folder: folder, sources }
    }

    fn named(&self, command: Rekey) -> Rekey {
        let [old, new] = &self.sources;
        let sources = ["--old-key", old, "--new-key", new, "--output", "json"];
        command.without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY").args(sources)
    }
}

/// How often either half of a key stands in the writable memory of a process. Halves: AES-256 begins its key schedule
/// with them. Mappings come and go while the process works, but not most of them.
fn copies(pid: Pid, key: &str) -> usize {
    let pid = pid.as_raw_nonzero();
    let memory = File::open(format!("/proc/{pid}/mem")).expect("root may read it");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("root may read them");
    let (mut found, mut mapped, mut read) = (0, 0, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, access) = (words.next().expect("a range"), words.next().expect("its access"));
        if !access.starts_with("rw") || line.ends_with("[vvar]") {
            continue;
        }
        let (from, to) = range.split_once('-').expect("two addresses");
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).expect("in hex"));
        let mut bytes = vec![0; (to - from) as usize];
        let length = read_from(&memory, from, &mut bytes);
        (mapped, read) = (mapped + bytes.len(), read + length);
        for half in [&key.as_bytes()[..16], &key.as_bytes()[16..32]] {
            found += occurrences(&bytes[..length], half);
        }
    }
    assert!(mapped >= 1 << 20, "only {mapped} bytes are writable");
    assert!(read >= mapped / 10 * 9, "only {read} of {mapped} writable bytes were read");
    found
}

/// Reads on until nothing more comes; how many bytes there were.
fn read_from(memory: &File, from: u64, bytes: &mut [u8]) -> usize {
    let mut length = 0;
    while let Ok(more @ 1..) = memory.read_at(&mut bytes[length..], from + length as u64) {
        length += more;
    }
    length
}

fn occurrences(bytes: &[u8], wanted: &[u8]) -> usize {
    let first = wanted[0];
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
    starts.filter(|(at, _)| bytes[*at..].starts_with(wanted)).count()
}

/// A line of /proc/PID/status, in kB.
fn kilobytes(pid: Pid, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A pipe that takes not one byte more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    fcntl_setfl(&writer, OFlags::NONBLOCK).expect("the pipe takes flags");
    let filling = [b'.'; 4096];
    while writer.write(&filling).is_ok() {}
    while writer.write(b".").is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).expect("the pipe takes flags");
    (reader, writer)
}

/// Waits until the process hangs in its last act.
fn wait_for_its_last_act(run: &mut Running) {
    let path = format!("/proc/{}/syscall", run.pid().as_raw_nonzero());
    until("the process to print its results", SOON, || {
        assert!(run.running(), "it ended instead");
        let call = std::fs::read_to_string(&path).unwrap_or_default();
        let mut words = call.split(' ');
        // write(1, …), whose number is 1 here and 64 there.
        (matches!(words.next(), Some("1" | "64")) && words.next() == Some("0x1")).then_some(())
    });
}

fn may_look() -> bool {
    let root = geteuid().is_root();
    if !root {
        crate::support::skipped(format_args!("only root may read a process's memory"));
    }
    root
}

/// Runs a command to its last act, where none of the usual keys may be left; then to its end.
fn leaves_no_key_behind(command: Rekey) {
    leaves_none_behind(command, || [OLD, NEW, OTHER].map(str::to_owned).to_vec());
}

/// The same with keys that are known by then only.
fn leaves_none_behind(command: Rekey, keys: impl Fn() -> Vec<String>) {
    let (mut reader, writer) = full_pipe();
    let mut run = command.start_into(writer);
    wait_for_its_last_act(&mut run);
    let keys = keys();
    assert!(keys.iter().all(|key| key.len() >= 32), "a key is missing");
    // Tasks that were told to end let go of what they held a moment later.
    until("the keys to be gone", Duration::from_secs(10), || {
        let left: Vec<usize> = keys.iter().map(|key| copies(run.pid(), key)).collect();
        let none = left.iter().all(|copies| *copies == 0);
        if !none {
            println!("left: {left:?}");
        }
        none.then_some(())
    });
    let mut said = Vec::new();
    reader.read_to_end(&mut said).expect("it reads");
    run.wait().expect(0);
}

#[test]
fn a_run_holds_the_keys_while_it_works_and_not_a_moment_longer() {
    if !may_look() {
        return;
    }
    let (db, keys) = (Db::new(), Keys::in_files());
    Load::rows(6000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(50));
    let (mut reader, writer) = full_pipe();
    let steps = ["--chunk-rows", "400", "--batch-rows", "50", "--workers", "2"];
    let mut run = keys.named(rekey(&db, ["run"])).args(steps).start_into(writer);
    db.wait_moved(200);
    rekey(&db, ["pause"]).exits(0);
    let pid = run.pid();
    // Two halves each at least: the key schedule that the work needs. A thread that is opening or sealing at this very
    // moment has some of it on its stack as well.
    let working = [OLD, NEW].map(|key| copies(pid, key));
    assert!(working.iter().all(|halves| *halves >= 2), "halves of the keys at work: {working:?}");
    assert!(kilobytes(pid, "VmLck") >= 3 * 4, "key material is locked in memory");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");

    db.fast_commits();
    rekey(&db, ["resume"]).exits(0);
    wait_for_its_last_act(&mut run);
    assert_eq!(state(&db), "migrated");
    until("the keys to be gone", Duration::from_secs(10), || {
        (copies(pid, OLD) + copies(pid, NEW) == 0).then_some(())
    });
    assert_eq!(kilobytes(pid, "VmLck"), 0);
    std::io::copy(&mut reader, &mut std::io::sink()).expect("it reads");
    run.wait().expect(0);
}

/// Whose a process's environment is, and with it all that only its user may look at.
fn owner(pid: i32) -> u32 {
    std::fs::metadata(format!("/proc/{pid}/environ")).expect("it lives").uid()
}

/// Whether a program of this user, or of ours, can read a file.
fn reads(user: Option<(u32, u32)>, path: &str) -> bool {
    let mut program = Command::new("head");
    program.args(["-c", "1", path]).stdout(Stdio::null()).stderr(Stdio::null());
    as_user(&mut program, user);
    program.status().expect("head starts").success()
}

fn as_user(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
}

/// Its environment and its memory belong to root, whoever runs it: no other process of the same user may look at them,
/// as it may at those of any other program.
#[test]
fn no_other_process_of_its_user_may_look() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("modes change");
    let db = Db::new();
    Load::rows(2000).into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(50));
    let mut command = rekey(&db, ["run", "--batch-rows", "50"]);
    // Root may look at everything.
    let user = server_user();
    if let Some(user) = user {
        command = command.run_by(user, folder.path());
    }
    let run = command.start();
    db.wait_moved(50);
    rekey(&db, ["pause"]).exits(0);
    let pid = run.pid().as_raw_nonzero();
    assert_eq!(owner(pid.get()), 0);
    for file in ["environ", "maps"] {
        assert!(!reads(user, &format!("/proc/{pid}/{file}")), "{file}");
    }

    let mut other = Command::new("sleep");
    as_user(other.arg("60"), user);
    let mut other = other.spawn().expect("sleep starts");
    let path = format!("/proc/{}/environ", other.id());
    until("sleep to be at it", SOON, || reads(user, &path).then_some(()));
    assert_eq!(owner(other.id() as i32), user.map_or(getuid().as_raw(), |(user, _)| user));
    other.kill().expect("it takes a signal");
    other.wait().expect("it ends");
    db.fast_commits();
    rekey(&db, ["resume"]).exits(0);
    run.wait().expect(0);
}

#[test]
fn other_commands_leave_no_key_behind() {
    if may_look() {
        no_command_leaves_a_key_behind(&Keys::in_files());
    }
}

#[test]
fn nor_does_a_key_from_a_dotenv_file_stay() {
    if may_look() {
        no_command_leaves_a_key_behind(&Keys::in_a_dotenv_file());
    }
}

/// They read the whole file, write it anew with the new key in it, keep a copy, and remove the copy.
#[test]
fn nor_do_promote_finalize_and_destroy_in_a_dotenv_file() {
    if !may_look() {
        return;
    }
    let (db, keys) = (Db::new(), Keys::in_a_dotenv_file());
    Load::rows(500).into(&db);
    keys.named(rekey(&db, ["run"])).exits(0);
    for command in ["promote", "finalize"] {
        println!("{command}");
        leaves_no_key_behind(keys.named(rekey(&db, [command, "--yes"])));
    }
    assert_eq!(state(&db), "finalized");
    // The copy with the old key in it is read to see that it is the one, and removed.
    let retired: String = db.value("SELECT old_fingerprint FROM rekey.rotations");
    let destroy =
        ["keys", "destroy", &keys.sources[0], "--fingerprint", &retired, "--yes", "--output", "json"];
    leaves_no_key_behind(
        rekey(&db, []).more(&destroy).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY"),
    );
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.events WHERE action = 'destroy'"), 1);
}

fn no_command_leaves_a_key_behind(keys: &Keys) {
    let db = Db::new();
    Load::rows(500).into(&db);
    for command in [&["plan"][..], &["run", "--dry-run"], &["run"], &["verify"], &["rollback", "--yes"]] {
        println!("{command:?}");
        leaves_no_key_behind(keys.named(rekey(&db, []).more(command)));
    }
}

/// Nor the still older key of rows that were left behind by a rotation before.
#[test]
fn nor_does_a_retry_with_a_still_older_key() {
    if !may_look() {
        return;
    }
    let (db, keys) = (Db::new(), Keys::in_files());
    Load::rows(500).into(&db);
    Load::rows(20).key(OTHER).seed(9).into(&db);
    keys.named(rekey(&db, ["run"])).exits(5);
    let folder = tempfile::tempdir().expect("a folder");
    let older = folder.path().join("older");
    std::fs::write(&older, OTHER).expect("a key file");
    let retry = rekey(&db, ["quarantine", "retry", "--also-key", &format!("file:{}", older.display())]);
    leaves_no_key_behind(keys.named(retry));
    assert_eq!(state(&db), "migrated");
}

/// Those that make keys, judge and replace them. Not `backup` and `restore`: the OpenPGP library has copies of its own,
/// freed and not wiped (src/secrets/backup/mod.rs).
#[test]
fn nor_do_the_commands_for_keys() {
    if !may_look() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(".env");
    let file = path.to_str().expect("a path in UTF-8");
    let of = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).expect("a dotenv file");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
        line.trim_start_matches('=').trim_matches('"').to_owned()
    };
    let there = || ["SECRET_KEY", "ENCRYPTION_KEY"].map(|name| of(file, name)).to_vec();
    let source = format!("dotenv:{file}#ENCRYPTION_KEY");
    let silent = |arguments: &[&str]| {
        let command = rekey_without_database(["--output", "json"]).more(arguments);
        println!("{arguments:?}");
        command.without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY")
    };
    leaves_none_behind(silent(&["keys", "generate", "--env-file", file]), there);
    leaves_none_behind(silent(&["keys", "validate", "--env-file", file]), there);
    leaves_none_behind(silent(&["keys", "status", "--env-file", file]), there);
    leaves_none_behind(silent(&["keys", "fingerprint", &source]), there);
    let secrets = || {
        let former = format!("{file}.secret-key.bak");
        vec![of(file, "SECRET_KEY"), of(&former, "SECRET_KEY")]
    };
    let rotate = ["keys", "rotate-secret-key", "--env-file", file, "--yes"];
    leaves_none_behind(silent(&rotate), secrets);
    leaves_none_behind(silent(&[&rotate[..], &["--rollback"]].concat()), secrets);
}
