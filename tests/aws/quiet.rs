//! At TRACE the SDK says much, and no secret: neither what is read nor what is written.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use rekey::secrets::{
    AwsSource, KeySource, Sources,
    aws::{Action, Replacement, Seen, refuse_sensitive_logging},
};
use uuid::Uuid;

use crate::support_aws::Moto;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_trace() {
    let moto = Moto::start();
    moto.create("s", r#"{"encryption_key":"canary-old","secret_key":"canary-sibling"}"#).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let client = moto.client();
    client.create("plain", "canary-created", Uuid::now_v7(), &rekey::secrets::aws::AS_USUAL).await.unwrap();
    let id = Uuid::now_v7();
    let target =
        AwsSource { secret_id: "s".into(), field: Some("encryption_key".into()), stage_or_version: None };
    let replacement =
        Replacement { target: &target, value: b"canary-new", id, action: Action::Promote, label: "private" };
    let judge = |k: &[u8]| if k == b"canary-new" { Seen::Wanted } else { Seen::Replaceable };
    client.replace(&replacement, judge, crate::unguarded).await.unwrap();
    let sources = Sources::with_client(client);
    sources.fetch(&KeySource::parse("aws:s#secret_key").unwrap()).await.map(drop).unwrap();
    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("TRACE") && log.contains("GetSecretValue"), "nothing was captured");
    if let Some(line) = log.lines().find(|l| l.contains("canary")) {
        panic!("{line}");
    }
}

#[test]
fn sensitive_logging_is_refused_by_whoever_asks() {
    // No such variable is set here; the binary's own test sets them.
    let set =
        ["LOG_SENSITIVE_BODIES", "LOG_SIGNABLE_BODY"].iter().any(|name| std::env::var_os(name).is_some());
    assert_eq!(refuse_sensitive_logging().is_err(), set);
}
