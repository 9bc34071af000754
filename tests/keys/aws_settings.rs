//! AWS's settings, each named for what is wrong with it, and none of them a panic.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Outcome, Rekey, SOON, block_on, rekey_without_database, until};
use crate::support_aws::Moto;
use crate::{fingerprint, on_aws};

const KEY: &str = "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0";

/// With no settings of the AWS CLI but those in this folder. No instance answers, and none is asked for.
fn asked(home: &Path) -> Rekey {
    rekey_without_database(["keys", "fingerprint", "aws:s", "--retry-for", "3s"])
        .env("HOME", home)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .env("AWS_REGION", "us-east-1")
}

fn configured(config: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    fs::write(home.path().join(".aws/config"), config).unwrap();
    home
}

fn says(outcome: &Outcome, words: &[&str]) {
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    for word in words {
        assert!(outcome.stderr.contains(word), "{word} is missing:\n{outcome}");
    }
}

#[test]
fn a_line_end_in_a_setting_is_named() {
    let home = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "test\n"),
        ("AWS_ACCESS_KEY_ID", "te\rst"),
        ("AWS_SECRET_ACCESS_KEY", "test\n"),
        ("AWS_SESSION_TOKEN", "token\r\n"),
        ("AWS_REGION", "us-east-1\n"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1\n"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1\r"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:1"),
        ("AWS_PROFILE", "production\n"),
        ("AWS_PROFILE", "no-such-profile"),
        ("AWS_CA_BUNDLE", "/no/such/file"),
    ] {
        let outcome = asked(home.path())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env(name, value)
            .exits(2);
        says(&outcome, &[name]);
        assert!(outcome.took < Duration::from_secs(10), "{name}: {outcome}");
    }
    let spoilt = asked(home.path()).env("AWS_REGION", "us east 1").env("AWS_ACCESS_KEY_ID", "test");
    says(&spoilt.env("AWS_SECRET_ACCESS_KEY", "test").exits(2), &["AWS_REGION"]);
}

#[test]
fn a_line_end_from_a_credential_process_is_named() {
    let home = configured("");
    let program = home.path().join("program");
    let printed = r#"{"Version":1,"AccessKeyId":"te\nst","SecretAccessKey":"test"}"#;
    fs::write(&program, format!("#!/bin/sh\nprintf '%s' '{printed}'\n")).unwrap();
    let config = format!("[default]\ncredential_process = sh {}\n", program.display());
    fs::write(home.path().join(".aws/config"), config).unwrap();
    says(&asked(home.path()).exits(2), &["credential_process"]);
}

#[test]
fn an_sso_session_without_a_token_is_named() {
    let home = configured(
        "[profile sso]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = admin\n\
         [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.awsapps.com/start\n",
    );
    says(&asked(home.path()).env("AWS_PROFILE", "sso").exits(2), &["aws sso login --profile sso"]);
}

#[test]
fn a_silent_pod_identity_service_is_named() {
    let home = tempfile::tempdir().unwrap();
    let service = "http://user:canary-1@127.0.0.1:1/v1/canary-2?token=canary-3";
    let outcome = asked(home.path()).env("AWS_CONTAINER_CREDENTIALS_FULL_URI", service).exits(69);
    says(&outcome, &["at http://127.0.0.1:1 (AWS_CONTAINER_CREDENTIALS_FULL_URI: Pod Identity"]);
    outcome.says_none_of(&["canary"]);
}

/// A URL may hold a password or a token: of one that does not work the server is named, at any level of the log.
#[test]
fn no_url_of_the_environment_is_shown_whole() {
    let home = configured(
        "[profile sso]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = admin\n\
         [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.awsapps.com/canary\n",
    );
    let keys = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
    let away = "http://user:canary@127.0.0.1:1/canary?token=canary#canary";
    for (name, value, with) in [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", away, &[][..]),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://nowhere.invalid/canary?token=canary", &[]),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "canary", &[]),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/canary?token=canary", &[]),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "canary:canary", &[]),
        ("AWS_ENDPOINT_URL", away, &keys),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "canary", &keys),
        ("HTTP_PROXY", away, &keys),
        ("HTTP_PROXY", "canary:canary@", &keys),
        ("AWS_PROFILE", "sso", &[]),
    ] {
        for log in ["", "trace"] {
            let asked = with.iter().fold(asked(home.path()), |asked, (name, value)| asked.env(name, *value));
            let outcome = asked.env(name, value).env("RUST_LOG", log).env("REKEY_RETRY_FOR", "1s").run();
            assert!(outcome.code().is_some_and(|code| [2, 69].contains(&code)), "{name}: {outcome}");
            outcome.says_none_of(&["canary"]);
        }
    }
    for (name, value) in [
        ("REDIS_URL", "redis://user:canary@127.0.0.1:1/0?x=canary#canary"),
        ("REDIS_URL", "redis://user:canary@127.0.0.1:x"),
        ("DATABASE_URL", "postgresql://user:canary@127.0.0.1:1/dashtam"),
        ("DATABASE_URL", "postgresql://user:canary@127.0.0.1:1/dashtam?x=canary#canary"),
    ] {
        for log in ["", "trace"] {
            let command: &[&str] =
                if name == "REDIS_URL" { &["cache", "purge", "--yes"] } else { &["status"] };
            let command = rekey_without_database([]).more(command).args(["--retry-for", "1s"]);
            command.env(name, value).env("RUST_LOG", log).run().says_none_of(&["canary"]);
        }
    }
}

/// A server with a certificate of its own CA.
struct Tls(Child, u16);

impl Tls {
    fn start(folder: &Path) -> Tls {
        let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem \
                        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign \
                      && openssl req -newkey rsa:2048 -nodes -subj /CN=aws -keyout key.pem -out req.pem \
                      && openssl x509 -req -days 2 -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out cert.pem";
        fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        let done = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-cert", "cert.pem", "-key", "key.pem"])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the server to listen", SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Tls(process, port)
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_named_at_once() {
    let home = tempfile::tempdir().unwrap();
    let server = Tls::start(home.path());
    let asked = || {
        asked(home.path())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_ENDPOINT_URL", format!("https://127.0.0.1:{}", server.1))
    };
    let refused = asked().exits(2);
    says(&refused, &["not trusted", "AWS_CA_BUNDLE", "SSL_CERT_FILE"]);
    // Trusted, it turns out to be no Secrets Manager.
    let ca = home.path().join("ca.pem");
    let answered = asked().env("AWS_CA_BUNDLE", &ca).run();
    assert!(!answered.stderr.contains("not trusted"), "{answered}");
    assert_ne!(answered.code(), Some(2), "{answered}");
    let key = home.path().join("key.pem");
    says(&asked().env("AWS_CA_BUNDLE", key).exits(2), &["AWS_CA_BUNDLE"]);
}

#[test]
fn an_arn_of_another_region_is_asked_there() {
    let moto = Moto::start();
    block_on(moto.create("s", KEY));
    let arn = block_on(moto.client().describe("s")).unwrap().arn;
    let here = fingerprint(on_aws(&moto, ["keys", "fingerprint", "aws:s"]));
    let elsewhere =
        |source: &str| on_aws(&moto, ["keys", "fingerprint", source]).env("AWS_REGION", "eu-west-1");
    assert_eq!(fingerprint(elsewhere(&format!("aws:{arn}"))), here);
    elsewhere("aws:s").exits(3);
}
