//! The key management guide, replayed: every command of its production rotation, its rollback and its
//! troubleshooting table, with rekey's, on PostgreSQL, Secrets Manager and Redis. docs/key-management.md shows both
//! side by side.

use std::fs;
use std::process::Command;

use crate::application::{Application, Shape};
use crate::server::Redis;
use crate::support::load::{Load, some_ids, store};
use crate::support::{Db, NEW, OLD, Rekey, block_on, rekey, rekey_without_database};

/// The guide's 2.1, 3.2 and 6.2: a developer's file.
#[test]
fn development() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env.dev");
    let file = path.to_str().unwrap();
    fs::write(
        &path,
        "SECRET_KEY=your-secret-key-will-be-generated-by-make-keys\nENCRYPTION_KEY=your-encryption-key-will-be-generated-by-make-keys\n",
    )
    .unwrap();
    let keys =
        |more: &[&str]| rekey_without_database(["keys"]).more(more).args(["--environment", "development"]);
    // make keys-validate ENV=dev, before there are any.
    keys(&["validate", "--env-file", file]).exits(3);
    // make keys-generate ENV=dev; again: they stay.
    keys(&["generate", "--env-file", file]).exits(0);
    let made = fs::read_to_string(&path).unwrap();
    keys(&["generate", "--env-file", file]).exits(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), made);
    let valid = keys(&["validate", "--env-file", file]).exits(0);
    assert!(valid.stdout.contains("64 bytes") && valid.stdout.contains("32 bytes"), "{valid}");
    // make keys-generate ENV=dev FORCE=1, which keeps the backup that the guide's rollback copies.
    keys(&["generate", "--env-file", file, "--force"]).exits(0);
    assert_ne!(fs::read_to_string(&path).unwrap(), made);
    assert_eq!(fs::read_to_string(dir.path().join(".env.dev.bak")).unwrap(), made);
    fs::copy(dir.path().join(".env.dev.bak"), &path).unwrap();
    keys(&["validate", "--env-file", file]).exits(0);
    // 2.2: the fixed test keys are for testing alone.
    fs::write(
        &path,
        "SECRET_KEY=test-secret-key-for-automated-testing-only-never-use-in-production\nENCRYPTION_KEY=test-key-for-encryption-32-ch!@#\n",
    )
    .unwrap();
    rekey_without_database(["keys", "validate", "--env-file", file, "--environment", "testing"]).exits(0);
    rekey_without_database(["keys", "validate", "--env-file", file, "--environment", "production"]).exits(3);
    // 2.3: values for GitHub's secrets go through a pipe, never to a terminal.
    let piped = rekey_without_database(["keys", "generate", "encryption", "--stdout"]).exits(0).stdout;
    assert_eq!(piped.trim_end().len(), 32);
}

fn at(app: &Application, name: &str, stage: &str) -> Option<String> {
    block_on(app.moto.at(name, stage))
}

/// 2.4 and 3.3: SECRET_KEY in Secrets Manager, replaced and brought back.
#[test]
fn secret_key_in_production() {
    let app = Application::new(Shape::Plain, 12);
    let name = format!("{}/secret_key", app.name);
    let source = format!("aws:{name}");
    let redis = Redis::start(&[]);
    redis.fill("secrets:", 5);
    // aws secretsmanager create-secret --name …/secret_key --secret-string "$(python3 …)"
    app.rekey(["keys", "generate", "--to", &source]).exits(0);
    let first = at(&app, &name, "AWSCURRENT").unwrap();
    assert_eq!(first.len(), 64);
    // Preparation 3: backup of the current key.
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("secret_key.gpg");
    let pass = |r: Rekey| r.env("REKEY_BACKUP_PASSPHRASE", "a strong passphrase");
    pass(app.rekey(["keys", "backup", &source, "--out", backup.to_str().unwrap()])).exits(0);
    // Step 1: aws secretsmanager update-secret --secret-id …/secret_key --secret-string "$(…)"
    app.rekey(["init"]).exits(0);
    let rotated =
        app.rekey(["keys", "rotate-secret-key", "--yes", "--reason", "Quarterly rotation"]).exits(0);
    assert!(rotated.stderr.contains("Every user will be signed out"), "{rotated}");
    let second = at(&app, &name, "AWSCURRENT").unwrap();
    assert!(second != first && at(&app, &name, "AWSPREVIOUS").as_deref() == Some(&first));
    // Step 2: await cache.clear("secrets:*")
    app.rekey(["cache", "purge", "--yes"]).env("REDIS_URL", redis.url()).exits(0);
    assert_eq!(redis.size(), 0);
    // 7.2: the guide's entry, in the application's own trail.
    let entry: String = app.db.value(
        "SELECT json_build_array(resource_type, context->>'secret', context->>'reason', context->>'old_version' IS NOT NULL,
                context->>'new_version' IS NOT NULL)::text FROM audit_logs WHERE action = 'SECRET_KEY_ROTATED'",
    );
    assert_eq!(entry.replace(' ', ""), format!(r#"["secret","{source}","Quarterlyrotation",true,true]"#));
    // Rollback: aws secretsmanager update-secret-version-stage … --move-to-version-id <old-version-id>
    app.rekey(["keys", "rotate-secret-key", "--yes", "--rollback"]).exits(0);
    assert_eq!(at(&app, &name, "AWSCURRENT").unwrap(), first);
    // 4.2, recovery: update-secret --secret-string file://secret_key.backup.txt
    let delete = app.moto.sdk().delete_secret().secret_id(&name).force_delete_without_recovery(true);
    block_on(delete.send()).unwrap();
    pass(app.rekey(["keys", "restore", backup.to_str().unwrap(), "--yes", "--to", &source])).exits(0);
    assert_eq!(at(&app, &name, "AWSCURRENT").unwrap(), first);
    app.rekey(["keys", "validate", &source]).exits(0);
}

/// 3.4: ENCRYPTION_KEY in Secrets Manager, step by step, its rollback, and once more to the end.
#[test]
fn encryption_key_in_production() {
    let mut app = Application::new(Shape::Plain, 200);
    let redis = Redis::start(&[]);
    redis.fill("dashtam:provider:conn:", 50);
    // Preparation: backup of the key (4.2), a rehearsal, everything that stands in the way.
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("encryption_key.gpg");
    let source = format!("aws:{}", app.secret());
    let pass = |r: Rekey| r.env("REKEY_BACKUP_PASSPHRASE", "a strong passphrase");
    pass(app.rekey(["keys", "backup", &source, "--out", backup.to_str().unwrap()])).exits(0);
    gpg_opens(&backup, dir.path(), OLD);
    // Step 1: create-secret --name …/encryption_key_new. It is there; generate leaves it, and says so.
    let made =
        app.rekey(["keys", "generate", "encryption", "--to", &format!("aws:{}", app.temporary())]).json(0);
    assert_eq!(made["keys"][0]["changed"], false);
    app.rekey(["plan", "--rehearse", "50"]).exits(0);
    app.rekey(["run", "--dry-run"]).exits(0);
    // Step 2: python scripts/rotate_encryption_key.py
    app.rekey(["run"]).exits(0);
    app.judge.all_on(&app.db, NEW);
    // Step 5, which proves something: SELECT id, LENGTH(encrypted_credentials) …
    app.rekey(["verify"]).exits(0);
    // Step 3: update-secret --secret-id …/encryption_key; Step 4 is the application's restart.
    app.rekey(["promote", "--yes"]).env("REDIS_URL", redis.url()).exits(0);
    assert_eq!((app.at("AWSCURRENT"), app.at("AWSPREVIOUS"), redis.size()), (NEW.into(), OLD.into(), 0));

    // Rollback: no pg_restore, no write since is lost; update-secret-version-stage is part of it.
    let id = some_ids(&app.db, 1, 2)[0];
    store(&app.db, id, NEW, b"written after the promotion");
    app.judge.expect(id, b"written after the promotion");
    app.judge.expect_touched(id);
    app.rekey(["rollback", "--yes"]).env("REDIS_URL", redis.url()).exits(0);
    app.judge.all_on(&app.db, OLD);
    assert_eq!(app.at("AWSCURRENT"), OLD);

    // Once more, to the end: delete-secret …/encryption_key_new, with a recovery window, after a clean verify.
    for command in [&["run"][..], &["verify"], &["promote", "--yes"], &["finalize", "--yes"]] {
        app.rekey([]).more(command).env("REDIS_URL", redis.url()).exits(0);
    }
    app.judge.all_on(&app.db, NEW);
    let temporary = block_on(app.moto.client().describe(&app.temporary())).unwrap();
    assert!(temporary.deletion.is_some());
    // 7: evidence, and the CloudTrail query.
    let report = app.rekey(["report", "--all"]).json(0);
    assert_eq!(report["rotations"].as_array().unwrap().len(), 2);
    assert!(report["cloudtrail"].to_string().contains("lookup-events"));
    // 3.1: when it is due again.
    let status = app.rekey(["keys", "status", &source]).json(0);
    assert_eq!(status["keys"][0]["overdue"], false);
    // 4.2, recovery of the old key for a database backup of then: beside the live one.
    let old = format!("aws:{}_for_the_backup", app.secret());
    pass(app.rekey(["keys", "restore", backup.to_str().unwrap(), "--yes", "--to", &old])).exits(0);
}

/// gpg --decrypt opens what rekey keys backup wrote (4.2).
fn gpg_opens(backup: &std::path::Path, dir: &std::path::Path, key: &str) {
    let home = dir.join("gnupg");
    fs::create_dir_all(&home).unwrap();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut gpg = Command::new("gpg");
    gpg.arg("--homedir").arg(&home).args([
        "--batch",
        "--quiet",
        "--pinentry-mode",
        "loopback",
        "--passphrase",
    ]);
    let output = gpg.args(["a strong passphrase", "--decrypt"]).arg(backup).output().unwrap();
    assert_eq!(output.stdout, key.as_bytes(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// 6.1: the troubleshooting table, symptom by symptom.
#[test]
fn troubleshooting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let file = path.to_str().unwrap();
    let validate = |secret: &str, encryption: &str| {
        fs::write(&path, format!("SECRET_KEY={secret}\nENCRYPTION_KEY={encryption}\n")).unwrap();
        rekey_without_database(["keys", "validate", "--env-file", file]).json(3)
    };
    let says = |found: &serde_json::Value, key: usize, what: &str| {
        let findings = found["keys"][key]["findings"].to_string();
        assert!(findings.contains(what), "{found:#}");
    };
    // "secret_key must be at least 32 characters"; the way out is another one.
    says(&validate("mysecret", OLD), 0, "32");
    // "encryption_key must be exactly 32 characters": the guide's own examples are miscounted.
    let long = "Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODlfYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4";
    says(&validate(long, "AES-256-key-for-provider-cred!"), 1, "30");
    validate(long, "this-is-way-too-long-for-aes-256");
    rekey_without_database(["keys", "generate", "--force", "--env-file", file]).exits(0);
    rekey_without_database(["keys", "validate", "--env-file", file]).exits(0);

    // "DecryptionError: Authentication tag verification failed": which key is it?
    let db = Db::new();
    Load::rows(40).into(&db);
    let wrong = rekey(&db, ["run"]).env("ENCRYPTION_KEY", crate::support::OTHER).exits(3);
    assert!(wrong.stderr.contains("wrong-key"), "{wrong}");
    let of =
        |key: &str| rekey(&db, ["keys", "fingerprint", "env:K"]).env("K", key).json(0)["fingerprint"].clone();
    assert_ne!(of(OLD), of(NEW));
    // Option 1, the old key is back; option 2, everything moves to the new one.
    rekey(&db, ["run"]).exits(0);
    rekey(&db, ["verify"]).exits(0);
    // Option 3, the last resort: who has to reconnect.
    assert_eq!(rekey(&db, ["report", "--affected"]).json(0)["affected"].as_array().unwrap().len(), 40);

    // Keys not loading from Secrets Manager: the name, the permission, the region, the backend.
    let app = Application::new(Shape::Plain, 12);
    let missing = app.rekey(["keys", "status", "aws:dashtam/absent/encryption_key"]).exits(3);
    assert!(format!("{}{}", missing.stdout, missing.stderr).contains("no such secret"), "{missing}");
    let elsewhere = app.rekey(["run"]).without("AWS_REGION").exits(2);
    assert!(elsewhere.stderr.contains("AWS_REGION"), "{elsewhere}");
    let backend = app.rekey(["run"]).env("SECRETS_BACKEND", "vault").exits(2);
    assert!(backend.stderr.contains("SECRETS_BACKEND"), "{backend}");
    app.rekey(["keys", "fingerprint", &format!("aws:{}", app.secret())]).exits(0);
}
