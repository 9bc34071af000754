//! Dotenv files as they are met: nothing else in them changes, and what cannot be written is said.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::fingerprint;
use crate::support::{Outcome, rekey_without_database};

const KEY: &str = "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0";

fn force(file: &str, code: i32) -> Outcome {
    rekey_without_database(["keys", "generate", "encryption", "--env-file", file, "--force"]).exits(code)
}

#[test]
fn every_other_byte_stays() {
    for (before, after) in [
        ("ENCRYPTION_KEY=KEY\n", ("ENCRYPTION_KEY=", "\n")),
        (
            "# c\nA=1 # x\nENCRYPTION_KEY=KEY # note\nB='2'\n",
            ("# c\nA=1 # x\nENCRYPTION_KEY=", " # note\nB='2'\n"),
        ),
        ("export ENCRYPTION_KEY=\"KEY\"", ("export ENCRYPTION_KEY=", "")),
        ("A=1\r\nENCRYPTION_KEY='KEY'\r\nB=2\r\n", ("A=1\r\nENCRYPTION_KEY=", "\r\nB=2\r\n")),
        ("\u{feff}ENCRYPTION_KEY = KEY\n\n\n", ("\u{feff}ENCRYPTION_KEY = ", "\n\n\n")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        fs::write(
            &path,
            before.replace("KEY\n", &format!("{KEY}\n")).replace("\"KEY\"", &format!("\"{KEY}\"")),
        )
        .unwrap();
        force(path.to_str().unwrap(), 0);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(after.0) && text.ends_with(after.1), "{before:?} became {text:?}");
        assert_eq!(text.len(), after.0.len() + 32 + after.1.len(), "{before:?} became {text:?}");
    }
}

#[test]
fn a_link_stays_a_link() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    let (real, link) = (dir.path().join("real/.env"), dir.path().join(".env"));
    fs::write(&real, format!("ENCRYPTION_KEY={KEY}\n")).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real/.env", &link).unwrap();
    force(link.to_str().unwrap(), 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(!fs::read_to_string(&real).unwrap().contains(KEY));
    assert_eq!(fs::read_to_string(dir.path().join(".env.bak")).unwrap(), format!("ENCRYPTION_KEY={KEY}\n"));
}

/// Root may write anywhere, so the folder is read-only for everybody: a read-only mount.
#[test]
fn what_cannot_be_written_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let before = format!("ENCRYPTION_KEY={KEY}\n");
    for (options, filled, says) in [("size=64k,ro", false, "writable"), ("size=64k", true, "disk space")] {
        let folder = dir.path().join(options);
        fs::create_dir(&folder).unwrap();
        let mounted = |options: &str| {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&folder);
            mount.stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success())
        };
        if !mounted("size=64k") {
            crate::support::skipped(format_args!("a part of 1 test, mounting needs root"));
            return;
        }
        let path = folder.join(".env");
        fs::write(&path, &before).unwrap();
        if filled {
            let _ = fs::write(folder.join("full"), vec![0; 128 << 10]);
        } else {
            assert!(
                Command::new("mount").args(["-o", "remount,ro"]).arg(&folder).status().unwrap().success()
            );
        }
        let refused = rekey_without_database(["keys", "generate", "encryption", "--force", "--env-file"])
            .args([path.to_str().unwrap()])
            .run();
        let (text, left) = (fs::read_to_string(&path).unwrap(), fs::read_dir(&folder).unwrap().count());
        Command::new("umount").arg(&folder).status().unwrap();
        assert_eq!(refused.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains(says), "{refused}");
        assert_eq!((text, left), (before.clone(), if filled { 2 } else { 1 }), "{options}");
    }
}

#[test]
fn git_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Command::new("git").args(["init", "-q"]).arg(dir.path()).status().unwrap().success());
    let path = dir.path().join(".env.dev");
    fs::write(&path, format!("ENCRYPTION_KEY={KEY}\n")).unwrap();
    let done = force(path.to_str().unwrap(), 0);
    assert!(
        done.stderr.contains(".env.dev is in a git") && done.stderr.contains(".env.dev.bak is in a git"),
        "{done}"
    );
    // Moved aside, it holds keys as much.
    let done = force(path.to_str().unwrap(), 0);
    assert!(done.stderr.contains(".env.dev.bak.1 is in a git"), "{done}");
    fs::write(dir.path().join(".gitignore"), ".env.*\n").unwrap();
    let done = force(path.to_str().unwrap(), 0);
    assert!(!done.stderr.contains("git"), "{done}");
}

#[test]
fn a_fingerprint_names_a_key_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (file, dotenv) = (dir.path().join("key"), dir.path().join(".env"));
    fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(&dotenv, "K='0123456789abcdef0123456789abcdef'\n").unwrap();
    for source in
        [format!("file:{}", file.display()), format!("dotenv:{}#K", dotenv.display()), "env:K".into()]
    {
        let asked = rekey_without_database(["keys", "fingerprint", &source]);
        assert_eq!(fingerprint(asked.env("K", "0123456789abcdef0123456789abcdef")), "4df875cf543ca3cf");
    }
    let status = rekey_without_database(["keys", "status", "--env-file", dotenv.to_str().unwrap()]).json(3);
    assert!(status["keys"][0]["problem"].as_str().unwrap().contains("SECRET_KEY"));
    let source = format!("file:{}", file.display());
    let status = rekey_without_database(["keys", "status", &source]).json(0);
    assert_eq!(status["keys"][0]["fingerprint"], "4df875cf543ca3cf");
    assert_eq!((&status["keys"][0]["age_days"], &status["keys"][0]["overdue"]), (&0.into(), &false.into()));
}
