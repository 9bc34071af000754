//! rotate-secret-key and the way back, on both backends.

use std::fs;
use std::process::Command;

use crate::on_aws;
use crate::support::{block_on, rekey_without_database};
use crate::support_aws::Moto;

const KEY: &str = "Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODlfYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4";

#[test]
fn in_a_dotenv_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let before = format!("A=1\nSECRET_KEY={KEY}\nENCRYPTION_KEY=e\n");
    fs::write(&path, &before).unwrap();
    let rotate =
        || rekey_without_database(["keys", "rotate-secret-key", "--env-file", path.to_str().unwrap()]);
    rotate().exits(2);
    rotate().args(["--rollback", "--yes"]).exits(3);
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    let done = rotate().args(["--yes"]).exits(0);
    assert!(done.stderr.contains("signed out"), "{done}");
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("A=1\nSECRET_KEY=") && text.ends_with("\nENCRYPTION_KEY=e\n") && !text.contains(KEY)
    );
    // Once more: the former is now the one just made.
    rotate().args(["--yes"]).exits(0);
    rotate().args(["--rollback", "--yes"]).exits(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    rotate().args(["--rollback", "--yes"]).exits(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

/// What lasts is looked at, not only what it is called for a moment.
#[test]
fn git_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Command::new("git").args(["init", "-q"]).arg(dir.path()).status().unwrap().success());
    fs::write(dir.path().join(".gitignore"), ".env\n*.pending\n").unwrap();
    let path = dir.path().join(".env");
    fs::write(&path, format!("SECRET_KEY={KEY}\n")).unwrap();
    let rotate = || {
        rekey_without_database(["keys", "rotate-secret-key", "--yes", "--env-file", path.to_str().unwrap()])
            .exits(0)
    };
    let done = rotate();
    assert!(done.stderr.contains(".env.secret-key.bak is in a git"), "{done}");
    let done = rotate();
    assert!(done.stderr.contains(".env.secret-key.bak.1 is in a git"), "{done}");
}

#[test]
fn in_secrets_manager() {
    let moto = Moto::start();
    let name = "dashtam/production/secret_key";
    let version = block_on(moto.create(name, KEY));
    let rotate = || on_aws(&moto, ["keys", "rotate-secret-key"]);
    rotate().exits(2);
    let done = rotate().args(["--yes"]).json(0);
    assert_eq!(done["key"]["former_version"], version.as_str());
    assert_eq!(block_on(moto.at(name, "AWSPREVIOUS")).unwrap(), KEY);
    let new = block_on(moto.at(name, "AWSCURRENT")).unwrap();
    assert_eq!(new.len(), 64);
    for _ in 0..2 {
        rotate().args(["--rollback", "--yes"]).exits(0);
        assert_eq!(block_on(moto.at(name, "AWSCURRENT")).unwrap(), KEY);
    }
}

#[test]
fn in_a_json_secret_beside_an_encryption_key_that_a_rotation_needs() {
    let moto = Moto::start();
    let json =
        |secret: &str, more: &str| format!(r#"{{"encryption_key":"e", "secret_key":"{secret}"{more}}}"#);
    let version = block_on(moto.create("dashtam/production", &json(KEY, "")));
    block_on(moto.client().attach("dashtam/production", "rekey-old-00c0ffee", &version)).unwrap();
    let rotate = || on_aws(&moto, ["keys", "rotate-secret-key", "--yes", "--secret-layout", "json"]);
    rotate().exits(0);
    let now = block_on(moto.at("dashtam/production", "AWSCURRENT")).unwrap();
    assert!(now.starts_with(r#"{"encryption_key":"e", "secret_key":""#) && !now.contains(KEY));
    // A sibling that is changed in between stays changed.
    block_on(moto.put("dashtam/production", &now.replace('}', r#","n":1}"#)));
    rotate().args(["--rollback"]).exits(0);
    assert_eq!(block_on(moto.at("dashtam/production", "AWSCURRENT")).unwrap(), json(KEY, r#","n":1"#));
    on_aws(&moto, ["keys", "rotate-secret-key", "--yes", "aws:dashtam/production#encryption_key"]).exits(2);
}
