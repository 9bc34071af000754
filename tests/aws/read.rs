//! Reading: every form of the grammar, every shape of secret, and what is said when nothing is there.

use rekey::{
    error::{Error, Exit},
    secrets::{KeySource, Search, Sources},
};

use crate::support_aws::Moto;

fn source(text: &str) -> KeySource {
    KeySource::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[tokio::test]
async fn every_form_reads_its_version() {
    let moto = Moto::start();
    let sdk = moto.sdk();
    let one = moto.create("dashtam/production/encryption_key", "first").await;
    let two = moto.put("dashtam/production/encryption_key", "second").await;
    moto.create("/dashtam/production/security/encryption_key", "path").await;
    moto.create("team@bank", "at").await;
    moto.create("dashtam/production", r#"{"secret_key":"s","encryption_key":"cur","n":1}"#).await;
    sdk.put_secret_value()
        .secret_id("dashtam/production")
        .secret_string(r#"{"encryption_key":"pend\u0069ng"}"#)
        .version_stages("AWSPENDING")
        .send()
        .await
        .unwrap();
    let arn = sdk.describe_secret().secret_id("dashtam/production").send().await.unwrap().arn.unwrap();

    let sources = Sources::with_client(moto.client());
    for (text, want) in [
        ("aws:dashtam/production/encryption_key".to_owned(), "second"),
        ("aws:dashtam/production/encryption_key@AWSPREVIOUS".to_owned(), "first"),
        (format!("aws:dashtam/production/encryption_key@{one}"), "first"),
        (format!("aws:dashtam/production/encryption_key@{two}"), "second"),
        ("aws:/dashtam/production/security/encryption_key".to_owned(), "path"),
        ("aws:team%40bank".to_owned(), "at"),
        ("aws:dashtam/production#encryption_key".to_owned(), "cur"),
        ("aws:dashtam/production#encryption_key@AWSPENDING".to_owned(), "pending"),
        (format!("aws:{arn}#secret_key"), "s"),
        (format!("aws:{arn}#encryption_key@AWSCURRENT"), "cur"),
    ] {
        let fetched = sources.fetch(&source(&text)).await.unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(fetched.value.as_slice(), want.as_bytes(), "{text}");
        assert!(fetched.arn.is_some() && fetched.version_id.is_some(), "{text}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named_and_is_a_key_error() {
    let moto = Moto::start();
    moto.create("json", r#"{"a":"canary","n":1}"#).await;
    moto.create("plain", "canary").await;
    moto.create("gone", "canary").await;
    moto.sdk().delete_secret().secret_id("gone").recovery_window_in_days(7).send().await.unwrap();
    let sources = Sources::with_client(moto.client());
    for (text, hint) in [
        ("aws:absent", "AWS_REGION"),
        ("aws:plain@rekey-old-00000000", "AWS_REGION"),
        ("aws:plain@0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c", "AWS_REGION"),
        ("aws:json", "aws:json#encryption_key"),
        ("aws:json#b", "field's name"),
        ("aws:json#n", "field's name"),
        ("aws:plain#a", "field's name"),
        ("aws:gone", "restore-secret"),
    ] {
        let error = Error::from(sources.fetch(&source(text)).await.map(drop).unwrap_err());
        assert_eq!(error.exit, Exit::Key, "{text}: {error:?}");
        let name = text.split(['#', '@']).next().unwrap();
        assert!(error.message.contains(name), "{text}: {error:?}");
        assert!(error.hint.as_deref().unwrap().contains(hint), "{text}: {error:?}");
        assert!(!format!("{error:?}").contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn a_key_is_found_wherever_it_went() {
    let moto = Moto::start();
    moto.create("s", "old").await;
    moto.put("s", "new").await;
    let sources = Sources::with_client(moto.client());
    let places = ["aws:absent", "aws:s@rekey-old-00000000", "aws:s", "aws:s@AWSPREVIOUS"].map(source);
    match sources.find(&places, |v| v == b"old").await.unwrap() {
        Search::Found { source, .. } => assert_eq!(source.to_string(), "aws:s@AWSPREVIOUS"),
        Search::Nowhere { looked } => panic!("{looked:?}"),
    }
    match sources.find(&places, |_| false).await.unwrap() {
        Search::Found { .. } => panic!("found"),
        Search::Nowhere { looked } => {
            assert_eq!(looked[0], "aws:absent (not found)");
            assert_eq!(looked[2], "aws:s (another key)");
        }
    }
}
