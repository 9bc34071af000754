//! `jobs::keys` on files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rekey::crypto::Fingerprint;
use rekey::error::Exit;
use rekey::jobs::keys::backup::{BackupRequest, backup};
use rekey::jobs::keys::generate::{GenerateRequest, Generated, generate, to_hand_out};
use rekey::jobs::keys::restore::{RestoreRequest, Restored, SealedBackup, restore};
use rekey::jobs::keys::rotate_secret_key::{Change, SecretKeyChanged, rotate};
use rekey::jobs::keys::status::status;
use rekey::jobs::keys::subject::{BOTH, Subject, both};
use rekey::jobs::keys::validate::validate;
use rekey::secrets::aws::Creation;
use rekey::secrets::backup::{Passphrase, Short};
use rekey::secrets::{AppKey, AppSettings, KeySource};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{never, session};

const KEY: &str = "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0";
const SECRET: &str = "Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODlfYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn generated(path: &Path, force: bool) -> rekey::error::Result<Generated> {
    let subjects = BOTH.into_iter().map(|kind| Subject::dotenv(path, kind)).collect();
    let (_source, mut stop) = never();
    generate(&session(), GenerateRequest { subjects, force, creation: Creation::default() }, &mut stop).await
}

#[tokio::test]
async fn generate_fills_what_is_absent_and_leaves_what_is_there() {
    let dir = folder();
    let path = dir.path().join(".env");
    fs::write(&path, format!("A=1\nENCRYPTION_KEY={KEY}\n")).unwrap();
    let done = generated(&path, false).await.unwrap();
    let changed: Vec<bool> = done.keys.iter().map(|(_, written)| written.changed).collect();
    assert_eq!(changed, [true, false]);
    assert_eq!(done.keys[1].1.fingerprint, Fingerprint::of(KEY.as_bytes()));
    assert!(done.failed.is_none() && done.head.is_none());
    let now = read(&path);
    assert!(now.contains("A=1\n") && now.contains(KEY) && now.contains("SECRET_KEY="), "{now}");
}

#[tokio::test]
async fn generate_by_force_keeps_the_former_keys_in_one_backup() {
    let dir = folder();
    let path = dir.path().join(".env");
    let before = format!("SECRET_KEY={SECRET}\nENCRYPTION_KEY={KEY}\n");
    fs::write(&path, &before).unwrap();
    let done = generated(&path, true).await.unwrap();
    assert!(done.keys.iter().all(|(_, written)| written.changed));
    assert_eq!(done.keys[1].1.former_fingerprint, Some(Fingerprint::of(KEY.as_bytes())));
    let kept = dir.path().join(".env.bak");
    assert_eq!((read(&kept), mode(&kept)), (before, 0o600));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn generate_refuses_a_place_that_says_no_kind_or_cannot_be_written() {
    let (_source, mut stop) = never();
    for (source, kind) in [("file:somewhere", None), ("env:SECRET_KEY", Some(AppKey::Secret))] {
        let subjects = vec![Subject::given(KeySource::parse(source).unwrap(), kind)];
        let refused = generate(
            &session(),
            GenerateRequest { subjects, force: true, creation: Creation::default() },
            &mut stop,
        )
        .await;
        assert_eq!(refused.map(|_| ()).unwrap_err().exit, Exit::Usage, "{source}");
    }
}

#[tokio::test]
async fn keys_to_hand_out_are_both_or_the_one_asked_for() {
    let (_source, mut stop) = never();
    let new = to_hand_out(&session(), None, &mut stop).await.unwrap();
    let lengths: Vec<(AppKey, usize)> = new.keys.iter().map(|(kind, value)| (*kind, value.len())).collect();
    assert_eq!(lengths, [(AppKey::Secret, 64), (AppKey::Encryption, 32)]);
    let new = to_hand_out(&session(), Some(AppKey::Encryption), &mut stop).await.unwrap();
    assert_eq!(new.keys.len(), 1);
}

#[tokio::test]
async fn validate_tells_every_finding_at_once() {
    let dir = folder();
    let path = dir.path().join(".env.prod");
    fs::write(&path, format!("SECRET_KEY=short\nENCRYPTION_KEY={KEY}\n")).unwrap();
    fs::write(dir.path().join(".env.dev"), format!("ENCRYPTION_KEY={KEY}\n")).unwrap();
    let subjects = both(Some(&path), None, &AppSettings::default()).unwrap();
    let done = validate(&session(), subjects).await.unwrap();
    let rules: Vec<Vec<&str>> =
        done.keys.iter().map(|key| key.findings.iter().map(|f| f.rule).collect()).collect();
    assert_eq!(rules[1], ["reuse"]);
    assert!(rules[0].contains(&"length"), "{rules:?}");
    assert!(done.errors() >= 2);
    assert_eq!(done.keys[1].seen, Some((32, Fingerprint::of(KEY.as_bytes()))));
    let sound = dir.path().join(".env");
    fs::write(&sound, format!("SECRET_KEY={SECRET}\nENCRYPTION_KEY={}\n", KEY.replace('x', "y"))).unwrap();
    let subjects = both(Some(&sound), None, &AppSettings::default()).unwrap();
    assert_eq!(validate(&session(), subjects).await.unwrap().errors(), 0);
}

const PASSPHRASE: &[u8] = b"correct horse battery";

async fn backed_up(dir: &Path, key: &str) -> std::path::PathBuf {
    let (from, out) = (dir.join("key"), dir.join("key.gpg"));
    fs::write(&from, key).unwrap();
    let sources = vec![KeySource::parse(&format!("file:{}", from.display())).unwrap()];
    let passphrase = Passphrase::to_make(Zeroizing::new(PASSPHRASE.to_vec()), Short::Refused).unwrap();
    let request = BackupRequest { sources, out: out.clone(), passphrase };
    let (_source, mut stop) = never();
    let done = backup(&session(), request, &mut stop).await.unwrap();
    assert_eq!(done.keys[0].fingerprint, Fingerprint::of(key.as_bytes()));
    assert_eq!(mode(&out), 0o600);
    out
}

async fn restored(file: &Path, target: &str, passphrase: &[u8]) -> rekey::error::Result<Restored> {
    let request = RestoreRequest {
        backup: SealedBackup::read(file.to_path_buf())?,
        passphrase: Passphrase::to_open(Zeroizing::new(passphrase.to_vec()))?,
        from: None,
        target: KeySource::parse(target).unwrap(),
    };
    let (_source, mut stop) = never();
    restore(&session(), request, &mut stop).await
}

#[tokio::test]
async fn restore_puts_the_key_back_once_and_keeps_what_was_there() {
    let dir = folder();
    let out = backed_up(dir.path(), KEY).await;
    let path = dir.path().join(".env");
    let before = "ENCRYPTION_KEY=aK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0\n";
    fs::write(&path, before).unwrap();
    let target = format!("dotenv:{}#ENCRYPTION_KEY", path.display());
    let done = restored(&out, &target, PASSPHRASE).await.unwrap();
    assert!(done.written.changed);
    assert_eq!(read(&path), format!("ENCRYPTION_KEY={KEY}\n"));
    assert_eq!(done.written.backup.map(read).as_deref(), Some(before));
    assert!(!restored(&out, &target, PASSPHRASE).await.unwrap().written.changed);
}

#[tokio::test]
async fn restore_with_a_wrong_passphrase_or_another_kind_of_key_changes_nothing() {
    let dir = folder();
    let out = backed_up(dir.path(), KEY).await;
    let path = dir.path().join(".env");
    let before = format!("SECRET_KEY={SECRET}\nENCRYPTION_KEY=aK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0\n");
    fs::write(&path, &before).unwrap();
    let target = format!("dotenv:{}#ENCRYPTION_KEY", path.display());
    let refused = restored(&out, &target, b"wrong horse battery").await.map(|_| ()).unwrap_err();
    assert_eq!(refused.exit, Exit::Key);
    let short = folder();
    let out = backed_up(short.path(), &KEY[..31]).await;
    let refused = restored(&out, &target, PASSPHRASE).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.exit, Exit::Key);
    assert_eq!(read(&path), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

/// A copy that was made for a sibling's sake, and one of another key.
#[tokio::test]
async fn a_key_is_as_old_as_the_oldest_copy_of_it() {
    let dir = folder();
    let path = dir.path().join(".env");
    let days_ago = |days: u64| SystemTime::now() - Duration::from_secs(days * 24 * 3600 + 60);
    for (name, key, age) in [(".env", KEY, 0), (".env.secret-key.bak", KEY, 100), (".env.bak", SECRET, 300)] {
        let file = dir.path().join(name);
        fs::write(&file, format!("ENCRYPTION_KEY={key}\n")).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(days_ago(age)).unwrap();
    }
    let found = status(&session(), vec![Subject::dotenv(&path, AppKey::Encryption)]).await;
    let key = &found.keys[0];
    assert_eq!((key.age_days, key.due_in_days, key.overdue), (Some(100), Some(-10), Some(true)));
}

async fn rotated(path: &Path, change: Change) -> rekey::error::Result<SecretKeyChanged> {
    let (_source, mut stop) = never();
    rotate(&session(), &KeySource::dotenv_variable(path, "SECRET_KEY"), change, &mut stop).await
}

#[tokio::test]
async fn a_secret_key_is_replaced_and_brought_back() {
    let dir = folder();
    let path = dir.path().join(".env");
    let before = format!("SECRET_KEY={SECRET}\nENCRYPTION_KEY={KEY}\n");
    fs::write(&path, &before).unwrap();
    let former = Fingerprint::of(SECRET.as_bytes());
    let done = rotated(&path, Change::Replace).await.unwrap().written;
    assert_eq!((done.changed, done.former_fingerprint), (true, Some(former)));
    assert!(read(&path).ends_with(&format!("ENCRYPTION_KEY={KEY}\n")));
    assert_eq!(done.backup, Some(dir.path().join(".env.secret-key.bak")));
    let done = rotated(&path, Change::BringBack).await.unwrap().written;
    assert_eq!((done.changed, done.fingerprint), (true, former));
    assert_eq!(read(&path), before);
    assert!(!rotated(&path, Change::BringBack).await.unwrap().written.changed);
}

#[tokio::test]
async fn there_must_be_a_secret_key_to_replace_and_a_former_one_to_bring_back() {
    let dir = folder();
    let path = dir.path().join(".env");
    fs::write(&path, "A=1\n").unwrap();
    for change in [Change::Replace, Change::BringBack] {
        assert_eq!(rotated(&path, change).await.map(|_| ()).unwrap_err().exit, Exit::Key, "{change:?}");
    }
    assert_eq!(read(&path), "A=1\n");
    let (_source, mut stop) = never();
    let target = KeySource::dotenv_variable(&path, "ENCRYPTION_KEY");
    let refused = rotate(&session(), &target, Change::Replace, &mut stop).await;
    assert_eq!(refused.map(|_| ()).unwrap_err().exit, Exit::Usage);
}
