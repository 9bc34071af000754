//! With everything logged that can be, no key and no passphrase shows: in no encoding that a log would use.

use std::fs;

use wiremock::matchers::{any, header};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::on_aws;
use crate::support::{Db, Rekey, block_on, rekey, rekey_without_database};
use crate::support_aws::Moto;

const KEY: &str = "canary_K9-mQ2vT7pL4wR8nB3cF6hJ1d";
const SECRET: &str = "canary_S-Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODlfYWJjZGVmZ2hpamtsbW5vcHF";
const PASS: &str = "canary_passphrase_of_the_backup";

fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
    let list: Vec<String> = secret.bytes().map(|b| b.to_string()).collect();
    vec![secret.to_owned(), hex.to_uppercase(), hex, list.join(", ")]
}

#[test]
fn no_command_shows_a_key() {
    let moto = Moto::start();
    block_on(moto.create("dashtam/production/encryption_key", KEY));
    block_on(moto.create("dashtam/production/secret_key", SECRET));
    let dir = tempfile::tempdir().unwrap();
    let env = dir.path().join(".env");
    fs::write(&env, format!("SECRET_KEY={SECRET}\nENCRYPTION_KEY={KEY}\n")).unwrap();
    let (env, backup) = (env.to_str().unwrap(), dir.path().join("k.gpg"));
    let backup = backup.to_str().unwrap();
    let loud = |r: Rekey| r.env("RUST_LOG", "trace").env("REKEY_BACKUP_PASSPHRASE", PASS);
    let (aws, to) = ("aws:dashtam/production/encryption_key", "aws:dashtam/production/encryption_key_2");
    let commands: &[(&[&str], i32)] = &[
        (&["keys", "validate"], 0),
        (&["keys", "validate", "--env-file", env], 0),
        (&["keys", "status"], 0),
        (&["keys", "fingerprint", aws], 0),
        (&["keys", "backup", aws, "aws:dashtam/production/secret_key", "--out", backup], 0),
        (&["keys", "restore", backup, "--yes", "--to", to, "--from", aws], 0),
        (&["keys", "restore", backup, "--yes", "--to", aws], 0),
        (&["keys", "generate", "--env-file", env], 0),
        (&["keys", "generate", "--force", "--env-file", env], 0),
        (&["keys", "rotate-secret-key", "--yes"], 0),
        (&["keys", "rotate-secret-key", "--yes", "--rollback"], 0),
        (&["keys", "fingerprint", KEY], 2),
        (&["keys", "generate", "encryption", "--to", KEY], 2),
    ];
    for (arguments, code) in commands {
        let mut rekey = loud(on_aws(&moto, []));
        for argument in *arguments {
            rekey = rekey.args([argument]);
        }
        let done = rekey.exits(*code);
        for secret in [KEY, SECRET, PASS] {
            let forms = forms(secret);
            done.says_none_of(&forms.iter().map(String::as_str).collect::<Vec<_>>());
        }
        if *code == 0 && arguments.contains(&"fingerprint") {
            assert!(done.stderr.contains("TRACE"), "nothing was logged");
        }
    }
    assert_eq!(block_on(moto.at("dashtam/production/encryption_key_2", "AWSCURRENT")).unwrap(), KEY);
}

/// What may be a key is refused unread, whatever it stands behind; and what yielded nothing is on no record.
#[test]
fn a_key_behind_a_scheme_goes_nowhere() {
    let db = Db::new();
    rekey(&db, ["init"]).exits(0);
    let keys = [
        KEY,
        "b115f95a86f052185186bbb6f21adba4",
        "JAlZovVz5IzRW/mOl1n/1LH3LdPgDTdN",
        "4v5o+sQ+IhdJdMyYYmxbp/tMY/HHi1BKfKeS0Mba8HI=",
    ];
    for (key, scheme) in keys.iter().flat_map(|key| [(key, "aws"), (key, "file")]) {
        let source = format!("{scheme}:{key}");
        let commands: [&[&str]; 6] = [
            &["keys", "validate", &source],
            &["keys", "status", &source],
            &["keys", "fingerprint", &source],
            &["keys", "generate", "encryption", "--to", &source],
            &["run", "--old-key", &source],
            &["promote", "--yes", "--target", &source],
        ];
        for command in commands {
            rekey(&db, []).more(command).exits(2).says_none_of(&[key]);
        }
    }
    let seen = || -> String {
        db.value(
            "SELECT concat((SELECT string_agg(detail::text, ' ') FROM rekey.events), ' ', \
             (SELECT string_agg(context::text, ' ') FROM audit_logs))",
        )
    };
    for command in ["validate", "status"] {
        rekey(&db, ["keys", command, "file:/nowhere/encryption_key"]).exits(3);
    }
    let record = seen();
    assert!(!record.contains("nowhere") && keys.iter().all(|key| !record.contains(key)), "{record}");
    for command in ["validate", "status"] {
        rekey(&db, ["keys", command, "env:OTHER_KEY"]).env("OTHER_KEY", KEY).exits(0);
    }
    assert_eq!(seen().matches("env:OTHER_KEY").count(), 4);
}

/// git is asked whether it would commit a file with keys; it is not told the keys.
#[test]
fn a_child_inherits_no_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let git = dir.path().join("bin/git");
    fs::create_dir_all(git.parent().unwrap()).unwrap();
    fs::write(&git, format!("#!/bin/sh\n{{ env; echo \"$@\"; }} >>'{}'\nexit 1\n", told.display())).unwrap();
    fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.path().join(".git")).unwrap();
    let env = dir.path().join(".env");
    let path = format!("{}:{}", git.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let done = rekey_without_database(["keys", "generate", "--env-file", env.to_str().unwrap()])
        .env("PATH", path)
        .env("ENCRYPTION_KEY", KEY)
        .env("SECRET_KEY", SECRET)
        .env("REKEY_BACKUP_PASSPHRASE", PASS)
        .env("DATABASE_URL", format!("postgresql://u:{PASS}@127.0.0.1:1/x"))
        .args(["--retry-for", "1s"])
        .exits(0);
    assert!(done.stderr.contains("git"), "git says that the file would be committed: {done}");
    let told = fs::read_to_string(told).expect("git was asked");
    assert!(told.contains("check-ignore") && told.contains("PATH="), "{told}");
    for secret in [KEY, SECRET, PASS] {
        assert!(!told.contains(secret), "{told}");
    }
}

/// What went wrong may quote what it went wrong with: a value that was refused, an answer that broke off.
#[test]
fn no_failing_call_shows_a_key() {
    let absent = r#"{"__type":"ResourceNotFoundException","Message":"no"}"#;
    let refused =
        format!(r#"{{"__type":"ValidationException","Message":"Value '{KEY}' at 'secretString'"}}"#);
    let failing = format!(r#"{{"__type":"InternalServiceError","Message":"while at {KEY}"}}"#);
    let broken = format!(r#"{{"ARN":"arn:s","VersionId":"v","SecretString":"{KEY}"#);
    let incomplete = format!(r#"{{"SecretString":"{KEY}"}}"#);
    let generate: &[&str] = &["keys", "generate", "encryption", "--to", "aws:x"];
    let fingerprint: &[&str] = &["keys", "fingerprint", "aws:x"];
    for (action, status, body, arguments) in [
        ("CreateSecret", 400, &refused, generate),
        ("CreateSecret", 500, &failing, generate),
        ("GetSecretValue", 400, &refused, fingerprint),
        ("GetSecretValue", 200, &broken, fingerprint),
        ("GetSecretValue", 200, &incomplete, fingerprint),
    ] {
        let server = block_on(MockServer::start());
        let answer = ResponseTemplate::new(status).set_body_string(body);
        let asked = header("x-amz-target", format!("secretsmanager.{action}"));
        block_on(Mock::given(asked).respond_with(answer).with_priority(1).mount(&server));
        let answer = ResponseTemplate::new(400).set_body_string(absent);
        block_on(Mock::given(any()).respond_with(answer).mount(&server));
        for filter in ["trace", "aws_smithy_runtime::client::orchestrator::http=trace,trace"] {
            let failed = rekey_without_database([])
                .more(arguments)
                .args(["--retry-for", "5s"])
                .env("AWS_ENDPOINT_URL", server.uri())
                .env("AWS_REGION", "us-east-1")
                .env("AWS_ACCESS_KEY_ID", "test")
                .env("AWS_SECRET_ACCESS_KEY", "test")
                .env("RUST_LOG", filter)
                .run();
            assert!(failed.code().is_some_and(|code| code != 0), "{failed}");
            assert!(failed.stderr.contains("TRACE"), "nothing was logged");
            let forms = forms(KEY);
            failed.says_none_of(&forms.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let requests = block_on(server.received_requests()).unwrap_or_default();
        let target = format!("secretsmanager.{action}");
        assert!(
            requests.iter().any(|r| r.headers.get("x-amz-target").is_some_and(|t| t == &target)),
            "{action}"
        );
    }
}
