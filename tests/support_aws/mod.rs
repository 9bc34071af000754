//! A Secrets Manager to test against: moto as a process of its own, with its known faults mended, and a relay
//! that can lose any one message between us and it.
//!
//! moto is looked for with `$MOTO_PYTHON`, else `python3`; `pip install 'moto[server]'` provides it.
#![allow(dead_code, reason = "each test crate uses a part")]

pub mod relay;

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::{Credentials, SharedCredentialsProvider};
use rekey::secrets::aws::{ClientSettings, SecretsManager};

/// A running moto; ends with this value, or with the test process.
pub struct Moto {
    process: Child,
    _alive: ChildStdin,
    pub url: String,
}

impl Moto {
    pub fn start() -> Moto {
        let python = std::env::var("MOTO_PYTHON").unwrap_or_else(|_| "python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support_aws/moto_mended.py");
        let mut process = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {python}: {e}"));
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        assert!(!port.trim().is_empty(), "moto did not start with {python}: pip install 'moto[server]'");
        let alive = process.stdin.take().unwrap();
        Moto { process, _alive: alive, url: format!("http://127.0.0.1:{}", port.trim()) }
    }

    /// Our client, as the binary builds it.
    pub fn client(&self) -> SecretsManager {
        SecretsManager::new(&settings(&self.url), limits(3))
    }

    /// The SDK's client, to play the application and its administrators.
    pub fn sdk(&self) -> aws_sdk_secretsmanager::Client {
        aws_sdk_secretsmanager::Client::new(&settings(&self.url))
    }

    /// Forgets every secret, as if just started.
    pub fn forget(&self) {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!(
            "POST /moto-api/reset HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// Creates a secret and returns its first version's id.
    pub async fn create(&self, name: &str, value: &str) -> String {
        let answer = self.sdk().create_secret().name(name).secret_string(value).send().await.unwrap();
        answer.version_id.unwrap()
    }

    /// A get-then-put by somebody else: a new current version; returns its id.
    pub async fn put(&self, name: &str, value: &str) -> String {
        let answer = self.sdk().put_secret_value().secret_id(name).secret_string(value).send().await.unwrap();
        answer.version_id.unwrap()
    }

    /// What stands at a stage.
    pub async fn at(&self, name: &str, stage: &str) -> Option<String> {
        let answer = self.sdk().get_secret_value().secret_id(name).version_stage(stage).send().await;
        answer.ok().and_then(|a| a.secret_string)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// SDK settings for an endpoint on this machine.
pub fn settings(url: &str) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "test", "test", None, None, "test",
        )))
        .sleep_impl(aws_sdk_secretsmanager::config::SharedAsyncSleep::new(TokioSleep))
        .build()
}

/// So many attempts, and more time for them than a machine that has other things to do takes.
pub fn limits(attempts: u32) -> ClientSettings {
    ClientSettings { attempt: Duration::from_secs(30), operation: Duration::from_secs(120), attempts }
}

#[derive(Debug)]
struct TokioSleep;

impl aws_sdk_secretsmanager::config::AsyncSleep for TokioSleep {
    fn sleep(&self, duration: Duration) -> aws_sdk_secretsmanager::config::Sleep {
        aws_sdk_secretsmanager::config::Sleep::new(tokio::time::sleep(duration))
    }
}
