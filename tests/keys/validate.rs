//! Every rule at once.

use std::fs;

use crate::support::rekey_without_database;

#[test]
fn all_findings_come_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env.prod");
    let file = path.to_str().unwrap();
    fs::write(&path, "SECRET_KEY=mysecret\nENCRYPTION_KEY=AES-256-key-for-provider-cred!\n").unwrap();
    let found = rekey_without_database(["keys", "validate", "--env-file", file]).json(3);
    let rules = |key: usize| -> Vec<String> {
        let list = found["keys"][key]["findings"].as_array().unwrap();
        list.iter().map(|f| f["rule"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(rules(0), ["length", "published"]);
    assert_eq!(rules(1), ["length", "characters", "published"]);
    assert_eq!(found["keys"][1]["bytes"], 30);

    fs::write(&path, "SECRET_KEY=\nOTHER=1\n").unwrap();
    let found = rekey_without_database(["keys", "validate", "--env-file", file]).json(3);
    assert_eq!(found["keys"][0]["findings"][0]["rule"], "readable");
    assert_eq!(found["keys"][1]["findings"][0]["rule"], "readable");
}

#[test]
fn what_is_too_regular_is_for_other_environments() {
    for key in [
        "12345678901234567890123456789012",
        "abcdefghabcdefghabcdefghabcdefgh",
        "abcdefghijklmnopqrstuvwxyz012345",
    ] {
        for (environment, code) in [("production", 3), ("development", 0)] {
            let validate = rekey_without_database([
                "keys",
                "validate",
                "env:ENCRYPTION_KEY",
                "--environment",
                environment,
            ]);
            let done = validate.env("ENCRYPTION_KEY", key).exits(code);
            assert!(done.stdout.contains("too regular"), "{done}");
        }
    }
}

#[test]
fn the_fixed_test_keys_are_for_tests_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env.test");
    let file = path.to_str().unwrap();
    let keys = "SECRET_KEY=test-secret-key-for-automated-testing-only-never-use-in-production\n\
                ENCRYPTION_KEY=test-key-for-encryption-32-ch!@#\n";
    fs::write(&path, keys).unwrap();
    fs::write(dir.path().join(".env.test.example"), keys).unwrap();
    for (environment, code) in [("testing", 0), ("ci", 3), ("development", 3), ("production", 3)] {
        let done =
            rekey_without_database(["keys", "validate", "--env-file", file, "--environment", environment]);
        let done = done.exits(code);
        done.says_none_of(&["test-key-for-encryption", "test-secret-key"]);
        assert!(done.stdout.contains("published"), "{done}");
    }
}

#[test]
fn one_key_has_one_purpose_and_one_environment() {
    let dir = tempfile::tempdir().unwrap();
    let key = "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0";
    let long = "Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODlfYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4";
    let prod = dir.path().join(".env.prod");
    fs::write(&prod, format!("SECRET_KEY={long}\nENCRYPTION_KEY={key}\n")).unwrap();
    rekey_without_database(["keys", "validate", "--env-file", prod.to_str().unwrap()]).exits(0);
    let dev = dir.path().join(".env.dev");
    fs::write(&dev, format!("SECRET_KEY={key}{key}\nENCRYPTION_KEY={key}\n")).unwrap();
    let done = rekey_without_database(["keys", "validate", "--env-file", dev.to_str().unwrap()]).exits(3);
    assert!(done.stdout.contains("purpose") && done.stdout.contains("reuse"), "{done}");
    assert!(done.stdout.contains(".env.prod"), "{done}");
    // A backup of the file itself is no other environment.
    fs::remove_file(&dev).unwrap();
    fs::copy(&prod, dir.path().join(".env.prod.bak")).unwrap();
    rekey_without_database(["keys", "validate", "--env-file", prod.to_str().unwrap()]).exits(0);
}

#[test]
fn the_default_is_where_the_application_looks() {
    let key = "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0";
    let done = rekey_without_database(["keys", "validate"])
        .env("SECRET_KEY", "Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODlfYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4")
        .env("ENCRYPTION_KEY", key)
        .exits(0);
    done.says_none_of(&[key]);
    rekey_without_database(["keys", "validate", "env:K"]).env("K", key).exits(0);
    rekey_without_database(["keys", "validate", "env:K", "--as", "secret"]).env("K", &key[1..]).exits(3);
    rekey_without_database(["keys", "validate", "env:K"]).exits(3);
    // 16 characters, 32 bytes.
    let done = rekey_without_database(["keys", "validate", "env:K"]).env("K", "ÄÖÜäöüßéèêëïîôûù").exits(3);
    assert!(done.stdout.contains("16 characters are 32 bytes"), "{done}");
}

#[test]
fn a_file_that_everybody_may_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    fs::write(&path, "ENCRYPTION_KEY=xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0\n").unwrap();
    let source = format!("dotenv:{}#ENCRYPTION_KEY", path.display());
    for (mode, environment, code) in
        [(0o646, "production", 3), (0o646, "development", 0), (0o664, "production", 0)]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let validate = ["keys", "validate", &source, "--environment", environment];
        let found = rekey_without_database(validate).json(code);
        let told = found["keys"][0]["findings"].to_string().contains("permissions");
        assert_eq!(told, mode & 0o002 != 0, "{mode:o} {environment}: {found:#}");
    }
}
