//! Backups: with ourselves, with gpg in both directions, and everything that must stop a restore.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::on_aws;
use crate::support::{Rekey, block_on, rekey_without_database};
use crate::support_aws::Moto;

const KEY: &str = "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0";
const SECRET: &str = "Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODlfYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4";
const PASS: &str = "correct horse bättery staple";

fn with_pass<const N: usize>(arguments: [&str; N]) -> Rekey {
    rekey_without_database(arguments)
        .env("REKEY_BACKUP_PASSPHRASE", PASS)
        .env("ENCRYPTION_KEY", KEY)
        .env("SECRET_KEY", SECRET)
}

/// gpg without a keyring or an agent of anybody's.
fn gpg(arguments: &[&str]) -> Vec<u8> {
    // Of its own: the agent of the one before may be about to end. (Folders made so are 0700.)
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let mut command = Command::new("gpg");
    command.arg("--homedir").arg(home).args([
        "--batch",
        "--quiet",
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        PASS,
    ]);
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let _ = Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).status();
    output.stdout
}

#[test]
fn gpg_reads_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.gpg"), dir.path().join("two.gpg"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    with_pass(["keys", "backup", "env:ENCRYPTION_KEY", "--out", one]).exits(0).says_none_of(&[KEY, PASS]);
    assert_eq!(fs::metadata(one).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(gpg(&["--decrypt", one]), KEY.as_bytes());
    let packets = String::from_utf8(gpg(&["--list-packets", one])).unwrap();
    assert!(packets.contains("cipher 9") && packets.contains("mdc_method: 2"), "{packets}");

    with_pass(["keys", "backup", "env:ENCRYPTION_KEY", "env:SECRET_KEY", "--out", two]).exits(0);
    let list: serde_json::Value = serde_json::from_slice(&gpg(&["--decrypt", two])).unwrap();
    assert_eq!(list["keys"][1]["value"], SECRET);
    assert_eq!(list["keys"][0]["source"], "env:ENCRYPTION_KEY");

    let before = fs::read(one).unwrap();
    with_pass(["keys", "backup", "env:SECRET_KEY", "--out", one]).exits(2);
    assert_eq!(fs::read(one).unwrap(), before);
    // A key that cannot be read: no backup is made.
    let none = dir.path().join("none.gpg");
    with_pass(["keys", "backup", "env:SECRET_KEY", "env:ABSENT", "--out", none.to_str().unwrap()]).exits(3);
    assert!(!none.exists());
}

#[test]
fn ours_are_restored() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("keys.gpg");
    let backup = backup.to_str().unwrap();
    let env = dir.path().join(".env");
    with_pass(["keys", "backup", "env:ENCRYPTION_KEY", "env:SECRET_KEY", "--out", backup]).exits(0);
    let lost = "A=1\r\nENCRYPTION_KEY=N5uWe-1KjZb8oXtC_7rPq4MhSv9yFi2D\r\n";
    fs::write(&env, lost).unwrap();
    let to = format!("dotenv:{}#ENCRYPTION_KEY", env.display());
    let restore = || with_pass(["keys", "restore", backup, "--to", &to]);
    restore().exits(2);
    // Which of the two is not to be guessed.
    restore().args(["--yes"]).exits(3);
    restore().args(["--yes", "--from", "env:SECRET_KEY"]).exits(3);
    assert_eq!(fs::read_to_string(&env).unwrap(), lost);
    let done = restore().args(["--yes", "--from", "env:ENCRYPTION_KEY"]).exits(0);
    done.says_none_of(&[KEY, PASS]);
    assert_eq!(fs::read_to_string(&env).unwrap(), format!("A=1\r\nENCRYPTION_KEY={KEY}\r\n"));
    assert_eq!(fs::read_to_string(dir.path().join(".env.bak")).unwrap(), lost);
    let again = restore().args(["--yes", "--from", "env:ENCRYPTION_KEY"]).exits(0);
    assert!(again.stdout.contains("already"), "{again}");
    assert!(!dir.path().join(".env.bak.1").exists());
}

#[test]
fn gpgs_are_restored_whatever_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("secret_key.backup.txt");
    // As `aws … --output text > file` writes it: with a line end.
    fs::write(&plain, format!("{SECRET}\n")).unwrap();
    let plain = plain.to_str().unwrap();
    for (i, options) in [
        &["--cipher-algo", "AES256"][..],
        &["--armor", "--cipher-algo", "AES256", "--compress-algo", "none"],
        &["--cipher-algo", "AES256", "--compress-algo", "zlib", "--s2k-count", "65011712"],
        &["--cipher-algo", "AES128", "--s2k-digest-algo", "SHA512"],
    ]
    .iter()
    .enumerate()
    {
        let (file, key) = (dir.path().join(format!("{i}.gpg")), dir.path().join(format!("secret_key{i}")));
        let mut arguments = vec!["--output", file.to_str().unwrap(), "--symmetric"];
        arguments.extend_from_slice(options);
        arguments.push(plain);
        gpg(&arguments);
        let to = format!("file:{}", key.display());
        with_pass(["keys", "restore", file.to_str().unwrap(), "--yes", "--to", &to]).exits(0);
        assert_eq!(fs::read_to_string(&key).unwrap(), format!("{SECRET}\n"), "{options:?}");
    }
    // A common gpg.conf: what is wrong is said, and the file is not called damaged.
    let file = dir.path().join("bzip2.gpg");
    gpg(&["--compress-algo", "bzip2", "--output", file.to_str().unwrap(), "--symmetric", plain]);
    let to = format!("file:{}", dir.path().join("none").display());
    let refused = with_pass(["keys", "restore", file.to_str().unwrap(), "--yes", "--to", &to]).exits(3);
    assert!(refused.stderr.contains("compressed with bzip2"), "{refused}");
    // Encrypted in the old way, without integrity protection: nobody knows what it is that would be restored.
    let file = dir.path().join("weak.gpg");
    let mut weak = vec![0xc3, 13, 4, 9, 3, 8, 1, 2, 3, 4, 5, 6, 7, 8, 96, 0xc9, 40];
    weak.extend([7; 40]);
    fs::write(&file, weak).unwrap();
    let to = format!("file:{}", dir.path().join("secret_key_weak").display());
    let refused = with_pass(["keys", "restore", file.to_str().unwrap(), "--yes", "--to", &to]).exits(3);
    assert!(refused.stderr.contains("integrity"), "{refused}");
}

#[test]
fn a_wrong_passphrase_is_found_before_the_target_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("k.gpg");
    let backup = backup.to_str().unwrap();
    with_pass(["keys", "backup", "env:ENCRYPTION_KEY", "--out", backup]).exits(0);
    // Nobody listens there: looking would be 69, after a minute.
    let away = |r: Rekey| {
        r.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
    };
    let restore = || away(with_pass(["keys", "restore", backup, "--yes", "--to", "aws:encryption_key"]));
    let wrong = restore().env("REKEY_BACKUP_PASSPHRASE", "canary-wrong").exits(3);
    assert!(wrong.stderr.contains("passphrase is wrong"), "{wrong}");
    wrong.says_none_of(&["canary-wrong"]);
    restore().without("REKEY_BACKUP_PASSPHRASE").exits(2);
    restore().env("REKEY_BACKUP_PASSPHRASE", "").exits(2);
    let mut damaged = fs::read(backup).unwrap();
    let last = damaged.len() - 3;
    damaged[last] ^= 1;
    fs::write(backup, damaged).unwrap();
    restore().exits(3);
    for junk in ["", "not a message", "-----BEGIN PGP MESSAGE-----\n\n"] {
        fs::write(backup, junk).unwrap();
        restore().exits(3);
    }
    fs::remove_file(backup).unwrap();
    restore().exits(3);
}

#[test]
fn the_passphrase_may_come_from_a_descriptor_or_a_person() {
    let dir = tempfile::tempdir().unwrap();
    let (pass, out) = (dir.path().join("pass"), dir.path().join("a.gpg"));
    fs::write(&pass, format!("{PASS}\nsecond line\n")).unwrap();
    let rekey = env!("CARGO_BIN_EXE_rekey");
    let run = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("ENCRYPTION_KEY", KEY).stdin(Stdio::null()).output().unwrap()
    };
    let (out, pass) = (out.display(), pass.display());
    let done = run(&format!("{rekey} keys backup env:ENCRYPTION_KEY --out {out} --passphrase-fd 3 3<{pass}"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let to = dir.path().join("encryption_key");
    let done = run(&format!(
        "cat {pass} | {rekey} keys restore {out} --yes --passphrase-fd 0 --to file:{}",
        to.display()
    ));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(fs::read_to_string(&to).unwrap(), format!("{KEY}\n"));

    // A person at a terminal, who answers what is asked and is not echoed.
    let asked = dir.path().join("asked.gpg");
    let command = format!("{rekey} keys backup env:ENCRYPTION_KEY --out {}", asked.display());
    let mut person = Command::new("script");
    person.args(["-qec", &command, "/dev/null"]).env("ENCRYPTION_KEY", KEY);
    let mut person = person.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keyboard, mut display) = (person.stdin.take().unwrap(), person.stdout.take().unwrap());
    let mut screen = String::new();
    for question in ["Backup passphrase: ", "Repeat the passphrase: "] {
        let mut byte = [0];
        while !screen.ends_with(question) && display.read(&mut byte).unwrap() == 1 {
            screen.push(char::from(byte[0]));
        }
        keyboard.write_all(b"typed passphrase\n").unwrap();
    }
    display.read_to_string(&mut screen).unwrap();
    assert!(person.wait().unwrap().success() && asked.exists(), "{screen}");
    assert!(!screen.contains("typed passphrase"), "{screen}");
}

#[test]
fn a_lost_secret_comes_back() {
    let moto = Moto::start();
    let name = "dashtam/production/encryption_key";
    let source = format!("aws:{name}");
    block_on(moto.create(name, KEY));
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("k.gpg");
    let backup = backup.to_str().unwrap();
    let pass = |r: Rekey| r.env("REKEY_BACKUP_PASSPHRASE", PASS);
    pass(on_aws(&moto, ["keys", "backup", &source, "--out", backup])).exits(0);
    let restore = || pass(on_aws(&moto, ["keys", "restore", backup, "--yes", "--to", &source]));
    // Overwritten, deleted with and without a recovery window.
    block_on(moto.put(name, "N5uWe-1KjZb8oXtC_7rPq4MhSv9yFi2D"));
    restore().exits(0);
    assert_eq!(block_on(moto.at(name, "AWSCURRENT")).unwrap(), KEY);
    assert_eq!(block_on(moto.at(name, "AWSPREVIOUS")).unwrap(), "N5uWe-1KjZb8oXtC_7rPq4MhSv9yFi2D");
    block_on(moto.sdk().delete_secret().secret_id(name).recovery_window_in_days(7).send()).unwrap();
    restore().exits(0);
    assert_eq!(block_on(moto.at(name, "AWSCURRENT")).unwrap(), KEY);
    block_on(moto.sdk().delete_secret().secret_id(name).force_delete_without_recovery(true).send()).unwrap();
    restore().exits(0);
    assert_eq!(block_on(moto.at(name, "AWSCURRENT")).unwrap(), KEY);
    // Into one field of the JSON secret: its sibling stays.
    block_on(moto.create("dashtam/production", r#"{"secret_key":"s","encryption_key":"lost"}"#));
    let to = "aws:dashtam/production#encryption_key";
    pass(on_aws(&moto, ["keys", "restore", backup, "--yes", "--to", to])).exits(0);
    let want = format!(r#"{{"secret_key":"s","encryption_key":"{KEY}"}}"#);
    assert_eq!(block_on(moto.at("dashtam/production", "AWSCURRENT")).unwrap(), want);
    // Into one that has lost the field.
    block_on(moto.put("dashtam/production", r#"{"secret_key":"s"}"#));
    pass(on_aws(&moto, ["keys", "restore", backup, "--yes", "--to", to])).exits(0);
    assert_eq!(block_on(moto.at("dashtam/production", "AWSCURRENT")).unwrap(), want);
}

/// What was exported by hand is judged before anything is written, and the key for the place is taken out of it.
#[test]
fn an_exported_secret_is_judged_before_it_is_written() {
    let moto = Moto::start();
    let name = "dashtam/production/encryption_key";
    let before = "N5uWe-1KjZb8oXtC_7rPq4MhSv9yFi2D";
    block_on(moto.create(name, before));
    let dir = tempfile::tempdir().unwrap();
    let encrypted = |text: &str| {
        let (plain, file) = (dir.path().join("plain"), dir.path().join("exported.gpg"));
        fs::write(&plain, text).unwrap();
        let _ = fs::remove_file(&file);
        gpg(&[
            "--cipher-algo",
            "AES256",
            "--output",
            file.to_str().unwrap(),
            "--symmetric",
            plain.to_str().unwrap(),
        ]);
        file
    };
    let restore = |file: &std::path::Path| {
        let to = format!("aws:{name}");
        let arguments = ["keys", "restore", file.to_str().unwrap(), "--yes", "--to", &to];
        on_aws(&moto, arguments).env("REKEY_BACKUP_PASSPHRASE", PASS)
    };
    for text in [r#"{"secret_key":"s"}"#, r#"{"SecretString":"{\"secret_key\":\"s\"}"}"#, "\"too short\""] {
        let versions = block_on(moto.client().describe(name)).unwrap().versions;
        let refused = restore(&encrypted(text)).exits(3);
        assert!(refused.stderr.contains("nothing was changed"), "{refused}");
        assert_eq!(block_on(moto.client().describe(name)).unwrap().versions, versions, "{text}");
    }
    let answer = format!("{{\n  \"Name\": \"{name}\",\n  \"SecretString\": \"{KEY}\"\n}}\n");
    restore(&encrypted(&answer)).exits(0).says_none_of(&[KEY]);
    assert_eq!(block_on(moto.at(name, "AWSCURRENT")).unwrap(), KEY);
    restore(&encrypted(&format!("\"{before}\"\n"))).exits(0);
    assert_eq!(block_on(moto.at(name, "AWSCURRENT")).unwrap(), before);
}

/// A Kubernetes secret made with `echo` ends with a line end; what opens the backup on the day does not.
#[test]
fn a_passphrase_is_the_same_whatever_it_is_read_from() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("k.gpg");
    let backup = |passphrase: &str, more: &[&str]| {
        let _ = fs::remove_file(&out);
        with_pass(["keys", "backup", "env:ENCRYPTION_KEY", "--out", out.to_str().unwrap()])
            .more(more)
            .env("REKEY_BACKUP_PASSPHRASE", passphrase)
    };
    backup(&format!("{PASS}\n"), &[]).exits(0);
    assert_eq!(gpg(&["--decrypt", out.to_str().unwrap()]), KEY.as_bytes());
    for refused in ["eleven char", "a long\tpassphrase", "a long\npassphrase"] {
        let done = backup(refused, &[]).exits(2);
        done.says_none_of(&[refused]);
        assert!(!out.exists(), "{refused:?}");
    }
    backup("eleven char", &["--allow-weak-passphrase"]).exits(0);
}

/// Ctrl-C at the prompt: the terminal echoes again, and nothing is written.
#[test]
fn an_interrupt_at_the_prompt_restores_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("k.gpg");
    let rekey = env!("CARGO_BIN_EXE_rekey");
    let command = format!(
        "trap : INT; stty -a; {rekey} keys backup env:ENCRYPTION_KEY --out {}; echo code $?; stty -a",
        out.display()
    );
    let mut person = Command::new("script");
    person.args(["-qec", &command, "/dev/null"]).env("ENCRYPTION_KEY", KEY).env("SHELL", "/bin/sh");
    let mut person = person.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keyboard, mut display) = (person.stdin.take().unwrap(), person.stdout.take().unwrap());
    let (mut screen, mut byte) = (String::new(), [0]);
    while !screen.ends_with("Backup passphrase: ") && display.read(&mut byte).unwrap() == 1 {
        screen.push(char::from(byte[0]));
    }
    keyboard.write_all(b"\x03").unwrap();
    display.read_to_string(&mut screen).unwrap();
    person.wait().unwrap();
    assert!(screen.contains("code 75"), "{screen}");
    let modes: Vec<&str> = screen.match_indices(" echo ").map(|(_, mode)| mode).collect();
    assert_eq!(modes.len(), 2, "{screen}");
    assert!(!screen.contains("-echo ") && !out.exists(), "{screen}");
}
