//! Keys in Secrets Manager: created, restored from deletion, staged, shown, destroyed.

use std::net::TcpListener;
use std::time::Duration;

use rekey::crypto::Fingerprint;
use rustix::process::Signal;

use crate::support::{SOON, block_on, rekey_without_database, until};
use crate::support_aws::Moto;
use crate::{fingerprint, on_aws};

const KEY: &str = "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0";
const NAME: &str = "dashtam/production/encryption_key";

fn at(moto: &Moto, name: &str, stage: &str) -> Option<String> {
    block_on(moto.at(name, stage))
}

#[test]
fn a_secret_is_created_kept_replaced_and_brought_back() {
    let moto = Moto::start();
    let to = format!("aws:{NAME}_new");
    let name = format!("{NAME}_new");
    on_aws(&moto, ["keys", "generate", "encryption", "--to", &to]).exits(0);
    let first = at(&moto, &name, "AWSCURRENT").unwrap();
    assert_eq!(first.len(), 32);
    let kept = on_aws(&moto, ["keys", "generate", "encryption", "--to", &to]).exits(0);
    assert!(kept.stdout.contains("already exists"), "{kept}");
    assert_eq!(at(&moto, &name, "AWSCURRENT").unwrap(), first);

    let forced = on_aws(&moto, ["keys", "generate", "encryption", "--to", &to, "--force"]).json(0);
    let second = at(&moto, &name, "AWSCURRENT").unwrap();
    assert_ne!(second, first);
    assert_eq!(at(&moto, &name, "AWSPREVIOUS").unwrap(), first);
    assert!(
        forced["keys"][0]["former_fingerprint"].is_string()
            && forced["keys"][0]["former_version"].is_string()
    );
    assert_eq!(at(&moto, &name, "rekey-set"), None);

    // The guide's temporary secret after its deletion: back out of the recovery window, with the key that it had.
    block_on(moto.sdk().delete_secret().secret_id(&name).recovery_window_in_days(7).send()).unwrap();
    let kept = on_aws(&moto, ["keys", "generate", "encryption", "--to", &to]).exits(0);
    assert!(kept.stdout.contains("already exists"), "{kept}");
    assert_eq!(at(&moto, &name, "AWSCURRENT").unwrap(), second);
    block_on(moto.sdk().delete_secret().secret_id(&name).recovery_window_in_days(7).send()).unwrap();
    on_aws(&moto, ["keys", "generate", "encryption", "--to", &to, "--force"]).exits(0);
    let third = at(&moto, &name, "AWSCURRENT").unwrap();
    assert!(third != second && third != first);

    // Each key that was replaced keeps a label of its own, until it is destroyed.
    for former in [&first, &second] {
        let fingerprint = Fingerprint::of(former.as_bytes()).to_string();
        assert_eq!(at(&moto, &name, &format!("rekey-former-{fingerprint}")).as_ref(), Some(former));
        let status = on_aws(&moto, ["keys", "status", &to]).json(0);
        assert!(status["keys"][0]["retired"].to_string().contains(&fingerprint), "{status:#}");
        on_aws(&moto, ["keys", "destroy", &to, "--fingerprint", &fingerprint, "--yes"]).exits(0);
        assert_eq!(at(&moto, &name, &format!("rekey-former-{fingerprint}")), None);
    }
}

#[test]
fn a_json_secret_changes_in_one_field_and_stages_its_new_key() {
    let moto = Moto::start();
    let json = format!(r#"{{"secret_key": "s",  "encryption_key":"{KEY}", "n":1.0}}"#);
    block_on(moto.create("dashtam/production", &json));
    let pending = "aws:dashtam/production#encryption_key@AWSPENDING";
    on_aws(&moto, ["keys", "generate", "--to", pending]).exits(0);
    assert_eq!(at(&moto, "dashtam/production", "AWSCURRENT").unwrap(), json);
    let staged = at(&moto, "dashtam/production", "AWSPENDING").unwrap();
    assert_eq!(staged.len(), json.len());
    assert!(
        staged.starts_with(r#"{"secret_key": "s",  "encryption_key":""#) && !staged.contains(KEY),
        "other bytes"
    );
    on_aws(&moto, ["keys", "generate", "--to", pending]).exits(0);
    assert_eq!(at(&moto, "dashtam/production", "AWSPENDING").unwrap(), staged);
    assert_ne!(
        fingerprint(on_aws(&moto, ["keys", "fingerprint", pending])),
        fingerprint(on_aws(&moto, ["keys", "fingerprint", "aws:dashtam/production#encryption_key"]))
    );
    // A whole JSON secret is never overwritten by a key.
    on_aws(&moto, ["keys", "generate", "encryption", "--to", "aws:dashtam/production", "--force"]).exits(3);
    on_aws(
        &moto,
        ["keys", "generate", "encryption", "--to", "aws:dashtam/production#encryption_key@AWSPREVIOUS"],
    )
    .exits(2);
    assert_eq!(at(&moto, "dashtam/production", "AWSCURRENT").unwrap(), json);
}

#[test]
fn a_json_secret_takes_a_field_that_it_had_not() {
    let moto = Moto::start();
    let json = "{\"secret_key\": \"s}\",  \"n\":1.0 }\n";
    let name = "dashtam/production";
    let version = block_on(moto.create(name, json));
    // Of a rotation whose key is in another field.
    block_on(moto.client().attach(name, "rekey-old-00c0ffee", &version)).unwrap();
    let (field, pending) =
        ("aws:dashtam/production#encryption_key", "aws:dashtam/production#encryption_key@AWSPENDING");
    let is_added = |content: &str| {
        let key = content.strip_prefix("{\"secret_key\": \"s}\",  \"n\":1.0 ,\"encryption_key\":\"");
        assert_eq!(key.and_then(|key| key.strip_suffix("\"}\n")).map(str::len), Some(32), "{content}");
    };
    on_aws(&moto, ["keys", "generate", "--to", pending]).exits(0);
    is_added(&at(&moto, name, "AWSPENDING").unwrap());
    assert_eq!(at(&moto, name, "AWSCURRENT").unwrap(), json);

    let done = on_aws(&moto, ["keys", "generate", "--to", field]).json(0);
    assert!(done["keys"][0]["former_fingerprint"].is_null(), "{done}");
    assert_eq!(done["keys"][0]["former_version"], version.as_str());
    let now = at(&moto, name, "AWSCURRENT").unwrap();
    is_added(&now);
    assert_eq!(at(&moto, name, "AWSPREVIOUS").unwrap(), json);
    let kept = on_aws(&moto, ["keys", "generate", "--to", field]).exits(0);
    assert!(kept.stdout.contains("already exists"), "{kept}");
    assert_eq!(at(&moto, name, "AWSCURRENT").unwrap(), now);
    // What is read has to be there.
    on_aws(&moto, ["keys", "fingerprint", "aws:dashtam/production#other"]).exits(3);
}

/// Nobody listens.
#[test]
fn an_endpoint_that_is_away_is_69() {
    let dir = tempfile::tempdir().unwrap();
    let (out, kept) = (dir.path().join("key.gpg"), dir.path().join("kept.gpg"));
    let (out, kept) = (out.to_str().unwrap(), kept.to_str().unwrap());
    let moto = Moto::start();
    block_on(moto.create("x", KEY));
    let backup = on_aws(&moto, ["keys", "backup", "aws:x", "--out", kept]);
    backup.env("REKEY_BACKUP_PASSPHRASE", "a long passphrase").exits(0);
    let commands: [&[&str]; 8] = [
        &["generate", "encryption", "--to", "aws:x"],
        &["validate", "aws:x"],
        &["status"],
        &["fingerprint", "aws:x"],
        &["backup", "aws:x", "--out", out],
        &["restore", kept, "--to", "aws:x", "--yes"],
        &["rotate-secret-key", "aws:x", "--yes"],
        &["destroy", "aws:x", "--fingerprint", "4df875cf543ca3cf", "--yes"],
    ];
    let start = |command: &&[&str]| {
        on_aws(&moto, ["keys"])
            .more(command)
            .args(["--retry-for", "2s"])
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            .env("REKEY_BACKUP_PASSPHRASE", "a long passphrase")
            .start()
    };
    let waiting: Vec<_> = commands.iter().map(start).collect();
    for process in waiting {
        process.wait().expect(69);
    }
    assert!(!std::fs::exists(out).unwrap());
}

/// A server that takes connections and says nothing.
#[test]
fn a_signal_ends_the_wait_for_an_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("key.gpg");
    let commands: [&[&str]; 5] = [
        &["generate", "encryption", "--to", "aws:x"],
        &["fingerprint", "aws:x"],
        &["backup", "aws:x", "--out", out.to_str().unwrap()],
        &["rotate-secret-key", "aws:x", "--yes"],
        &["destroy", "aws:x", "--fingerprint", "4df875cf543ca3cf", "--yes"],
    ];
    let start = |command: &&[&str]| {
        let process = rekey_without_database(["keys"])
            .more(command)
            .env("AWS_ENDPOINT_URL", &url)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("REKEY_BACKUP_PASSPHRASE", "a long passphrase")
            .start();
        let held = until("a connection", SOON, || silent.accept().ok());
        process.signal(Signal::TERM);
        (process, held)
    };
    // What may be half done is given its time: ten seconds, side by side.
    let waiting: Vec<_> = commands.iter().map(start).collect();
    for (process, _held) in waiting {
        process.wait_for(Duration::from_secs(25)).expect(75);
    }
    assert!(!out.exists());
}

#[test]
fn status_shows_age_schedule_pins_and_automatic_rotation() {
    let moto = Moto::start();
    let version = block_on(moto.create(NAME, KEY));
    block_on(moto.create(
        "dashtam/production/secret_key",
        "Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODlfYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4",
    ));
    block_on(moto.client().attach(NAME, "rekey-old-00c0ffee", &version)).unwrap();
    let status = on_aws(&moto, ["keys", "status"]).json(0);
    let key = &status["keys"][1];
    assert_eq!(key["key"], "ENCRYPTION_KEY");
    assert_eq!(key["version"], version.as_str());
    assert_eq!(key["pins"][0]["label"], "rekey-old-00c0ffee");
    assert_eq!(key["automatic_rotation"], false);
    assert_eq!(key["overdue"], false);
    let due = key["due"].as_str().unwrap();
    let wanted = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(90 * 24)).unwrap();
    assert_eq!(due, wanted.strftime("%Y-%m-%d").to_string());
    let text = on_aws(&moto, ["keys", "status"]).exits(0);
    assert!(text.stdout.contains("rekey-old-00c0ffee") && text.stdout.contains("every 90 days"), "{text}");
    text.says_none_of(&[KEY]);
    on_aws(&moto, ["keys", "validate"]).exits(0);
}

#[test]
fn a_retired_key_is_destroyed_and_one_in_use_is_not() {
    let moto = Moto::start();
    let old = block_on(moto.create(NAME, KEY));
    let source = format!("aws:{NAME}");
    let retired = fingerprint(on_aws(&moto, ["keys", "fingerprint", &source]));
    let label = format!("rekey-retired-{retired}");
    let destroy = || on_aws(&moto, ["keys", "destroy", "--fingerprint", &retired]);
    destroy().exits(2);
    destroy().args(["--yes"]).exits(3);
    block_on(moto.client().attach(NAME, &label, &old)).unwrap();
    destroy().args(["--yes"]).exits(7);
    block_on(moto.put(NAME, "N5uWe-1KjZb8oXtC_7rPq4MhSv9yFi2D"));
    let done = destroy().args(["--yes"]).exits(0);
    assert!(done.stdout.contains("AWSPREVIOUS"), "{done}");
    assert_eq!(at(&moto, NAME, &label), None);
    destroy().args(["--yes"]).exits(3);
    let typed = on_aws(&moto, ["keys", "destroy", "--yes", "--fingerprint", KEY]).exits(2);
    typed.says_none_of(&[KEY]);
}

/// Somebody rotates another field of the same secret: the version that waits for that is not this key's to unlabel.
#[test]
fn a_version_that_waits_for_another_change_keeps_its_label() {
    let moto = Moto::start();
    let name = "dashtam/production";
    let content = |secret: &str| format!(r#"{{"secret_key":"{secret}","encryption_key":"{KEY}"}}"#);
    block_on(moto.create(name, &content("s1")));
    let put = moto.sdk().put_secret_value().secret_id(name).version_stages("AWSPENDING");
    let pending = block_on(put.secret_string(content("s2")).send()).unwrap().version_id;
    let holder = || block_on(moto.client().describe(name)).unwrap().holder("AWSPENDING").map(str::to_owned);
    let to = "aws:dashtam/production#encryption_key@AWSPENDING";
    for force in [&[][..], &["--force"]] {
        let refused = on_aws(&moto, ["keys", "generate", "encryption", "--to", to]).more(force).exits(7);
        assert!(refused.stderr.contains("waits to become current"), "{refused}");
        assert_eq!(holder(), pending);
    }
    // A version that differs in nothing waits for nothing.
    let put = moto.sdk().put_secret_value().secret_id(name).version_stages("AWSPENDING");
    block_on(put.secret_string(content("s1")).send()).unwrap();
    on_aws(&moto, ["keys", "generate", "encryption", "--to", to]).exits(0);
}

/// What is there already keeps the KMS key and the tags that it has.
#[test]
fn a_secret_is_created_with_a_kms_key_and_tags() {
    let moto = Moto::start();
    let to = format!("aws:{NAME}_new");
    let with = ["--kms-key-id", "alias/dashtam", "--tag", "team=payments", "--tag", "owner=alice"];
    on_aws(&moto, ["keys", "generate", "encryption", "--to", &to]).more(&with).exits(0);
    let made = block_on(moto.sdk().describe_secret().secret_id(format!("{NAME}_new")).send()).unwrap();
    assert_eq!(made.kms_key_id(), Some("alias/dashtam"));
    let tags: Vec<_> = made.tags().iter().map(|tag| (tag.key().unwrap(), tag.value().unwrap())).collect();
    assert_eq!(tags, [("team", "payments"), ("owner", "alice")]);
    on_aws(&moto, ["keys", "generate", "encryption", "--to", &to, "--tag", "none"]).exits(2);
}
