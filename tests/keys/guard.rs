//! What an unfinished rotation needs is not overwritten; and the audit trail, where there is one.

use std::fs;
use std::process::{Command, Stdio};

use crate::on_aws;
use crate::support::load::Load;
use crate::support::{Db, NEW, OLD, OTHER, block_on, rekey, rekey_without_database};
use crate::support_aws::Moto;

#[test]
fn the_database_protects_both_keys_until_the_rotation_is_over() {
    let db = Db::new();
    Load::rows(50).into(&db);
    rekey(&db, ["run"]).exits(0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    for key in [OLD, NEW] {
        let text =
            format!("SECRET_KEY=your-secret-key-will-be-generated-by-make-keys\nENCRYPTION_KEY={key}\n");
        fs::write(&path, &text).unwrap();
        let refused =
            rekey(&db, ["keys", "generate", "--force", "--env-file", path.to_str().unwrap()]).exits(7);
        assert!(refused.stderr.contains("unfinished rotation"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
    fs::write(&path, format!("ENCRYPTION_KEY={OTHER}\n")).unwrap();
    rekey(&db, ["keys", "generate", "encryption", "--force", "--env-file", path.to_str().unwrap()]).exits(0);

    // Restore is held to the same.
    let backup = dir.path().join("k.gpg");
    let pass = "REKEY_BACKUP_PASSPHRASE";
    rekey(&db, ["keys", "backup", "env:K", "--out", backup.to_str().unwrap()])
        .env("K", OTHER)
        .env(pass, "a long passphrase")
        .exits(0);
    fs::write(&path, format!("ENCRYPTION_KEY={NEW}\n")).unwrap();
    let to = format!("dotenv:{}#ENCRYPTION_KEY", path.display());
    let restore = || {
        rekey(&db, ["keys", "restore", backup.to_str().unwrap(), "--yes", "--to", &to])
            .env(pass, "a long passphrase")
    };
    restore().exits(7);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    restore().exits(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("ENCRYPTION_KEY={OTHER}\n"));
}

#[test]
fn pins_protect_without_a_database() {
    let moto = Moto::start();
    let name = "dashtam/production/encryption_key";
    let version = block_on(moto.create(name, OLD));
    block_on(moto.client().attach(name, "rekey-old-00c0ffee", &version)).unwrap();
    let to = format!("aws:{name}");
    let force = || on_aws(&moto, ["keys", "generate", "--to", &to, "--force"]);
    let refused = force().exits(7);
    assert!(refused.stderr.contains("rekey-old-00c0ffee"), "{refused}");
    assert_eq!(block_on(moto.at(name, "AWSCURRENT")).unwrap(), OLD);
    block_on(moto.client().detach(name, "rekey-old-00c0ffee")).unwrap();
    force().exits(0);
}

#[test]
fn events_are_appended_and_hold_no_key() {
    let db = Db::new();
    Load::rows(10).into(&db);
    rekey(&db, ["run"]).exits(0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let file = path.to_str().unwrap();
    let backup = dir.path().join("k.gpg");
    let backup = backup.to_str().unwrap();
    let as_eve = ["--operator", "eve", "--reason", "quarterly"];
    let pass = |r: crate::support::Rekey| r.env("REKEY_BACKUP_PASSPHRASE", "a long passphrase").args(as_eve);
    let done = pass(rekey(&db, ["keys", "generate", "--env-file", file])).exits(0);
    let last = done.stdout.lines().last().unwrap();
    let head: String = db.value("SELECT seq || ':' || encode(hash, 'hex') FROM rekey.chain");
    assert_eq!(last, format!("audit chain head: {head}"));
    pass(rekey(&db, ["keys", "fingerprint", "env:ENCRYPTION_KEY"])).exits(0);
    pass(rekey(&db, ["keys", "backup", "env:ENCRYPTION_KEY", "--out", backup])).exits(0);
    pass(rekey(&db, ["keys", "rotate-secret-key", "--yes", "--env-file", file])).exits(0);
    let actions: Vec<String> = db.column(
        "SELECT action FROM rekey.events WHERE operator = 'eve' AND reason = 'quarterly' ORDER BY seq",
    );
    assert_eq!(actions, ["generate", "access", "backup", "rotate_secret_key"]);
    let theirs: Vec<String> = db.column(
        "SELECT action FROM audit_logs WHERE resource_type = 'secret' AND resource_id IS NULL ORDER BY id",
    );
    assert_eq!(theirs, ["KEY_GENERATED", "KEY_ACCESSED", "KEY_BACKED_UP", "SECRET_KEY_ROTATED"]);
    let text = fs::read_to_string(&path).unwrap();
    let detail: String = db.value("SELECT string_agg(detail::text, '') FROM rekey.events");
    for key in text.lines().map(|l| l.split_once('=').unwrap().1).chain([OLD, NEW]) {
        assert!(!detail.contains(key));
    }
    // Stdout is the keys' alone.
    let printed = rekey(&db, ["keys", "generate", "encryption", "--stdout"]).exits(0);
    assert_eq!(printed.stdout.trim_end().len(), 32);
    let head: String = db.value("SELECT seq || ':' || encode(hash, 'hex') FROM rekey.chain");
    assert!(printed.stderr.lines().any(|line| line == format!("audit chain head: {head}")), "{printed}");
}

/// A disk with room for one more page: the first key's new file takes it for a moment, the second's backup for good.
#[test]
fn what_was_changed_before_a_failure_is_said_and_recorded() {
    let db = Db::new();
    Load::rows(10).into(&db);
    rekey(&db, ["run"]).exits(0);
    let dir = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(dir.path()).stderr(Stdio::null());
    if !mount.status().is_ok_and(|status| status.success()) {
        crate::support::skipped(format_args!("a part of 1 test, mounting needs root"));
        return;
    }
    let path = dir.path().join(".env");
    let placeholder = "your-secret-key-will-be-generated-by-make-keys";
    fs::write(&path, format!("SECRET_KEY={placeholder}\nENCRYPTION_KEY={OTHER}\n")).unwrap();
    fs::write(dir.path().join("full"), vec![0; 14 * 4096]).unwrap();
    let half = rekey(&db, ["keys", "generate", "--force", "--env-file", path.to_str().unwrap()]).run();
    let text = fs::read_to_string(&path).unwrap();
    Command::new("umount").arg(dir.path()).status().unwrap();
    let half = half.expect(2);
    assert!(half.stderr.contains("disk space"), "{half}");
    assert!(!text.contains(placeholder) && text.contains(OTHER), "{half}");
    assert!(half.stdout.contains("SECRET_KEY in") && !half.stdout.contains("ENCRYPTION_KEY in"), "{half}");
    assert!(half.stdout.lines().last().unwrap().starts_with("audit chain head: "), "{half}");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM rekey.events WHERE action = 'generate'"), 1);
}

/// Where nothing is overwritten, a database that is away is said and no more; where a key is, it may be a rotation's.
#[test]
fn a_database_that_is_away_keeps_keys_from_being_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let file = path.to_str().unwrap();
    let away = |rekey: crate::support::Rekey| {
        rekey
            .env("DATABASE_URL", "postgresql://dashtam:canary@127.0.0.1:9/dashtam")
            .env("REKEY_BACKUP_PASSPHRASE", "a long passphrase")
    };
    let done = away(rekey_without_database(["keys", "generate", "--env-file", file])).exits(0);
    assert!(done.stderr.contains("audit trail got no entry"), "{done}");
    done.says_none_of(&["canary"]);

    let backup = dir.path().join("k.gpg");
    let backup = backup.to_str().unwrap();
    away(rekey_without_database(["keys", "backup", "env:K", "--out", backup])).env("K", OTHER).exits(0);
    let text = fs::read_to_string(&path).unwrap();
    let to = format!("dotenv:{file}#ENCRYPTION_KEY");
    for arguments in [
        &["keys", "generate", "--force", "--env-file", file][..],
        &["keys", "restore", backup, "--yes", "--to", &to],
        &["keys", "rotate-secret-key", "--yes", "--env-file", file],
    ] {
        let refused = away(rekey_without_database([]).more(arguments)).exits(69);
        assert!(refused.stderr.contains("nothing was overwritten"), "{refused}");
        refused.says_none_of(&["canary"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "{arguments:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "{arguments:?}");
    }

    // A placeholder is nothing that could be lost.
    fs::write(&path, "ENCRYPTION_KEY=your-encryption-key-will-be-generated-by-make-keys\n").unwrap();
    away(rekey_without_database(["keys", "generate", "encryption", "--env-file", file])).exits(0);
}

/// Neither a new file nor a rollback makes a key new: what the ledger knows of it does not change.
#[test]
fn a_key_is_as_old_as_the_ledger_knows() {
    let db = Db::new();
    Load::rows(10).into(&db);
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["rollback", "--yes"]).exits(0);
    db.execute("UPDATE rekey.rotations SET created_at = created_at - interval '100 days'");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, OLD).unwrap();
    let place = format!("file:{}", path.display());
    let status = rekey(&db, ["keys", "status", &place, "env:ENCRYPTION_KEY"]).json(0);
    for key in status["keys"].as_array().unwrap() {
        assert_eq!((&key["age_days"], &key["due_in_days"]), (&100.into(), &(-10).into()), "{status:#}");
    }
    let text = rekey(&db, ["keys", "status", &place]).exits(0);
    assert!(text.stdout.contains("10 days overdue"), "{text}");
}
