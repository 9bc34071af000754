//! Promotion's and rollback's core: right, repeated, raced, and killed at every message.

use aws_sdk_secretsmanager::primitives::Blob;
use rekey::{
    error::{Error, Exit},
    secrets::{
        AwsSource, SourceError,
        aws::{Action, Current, Replacement, SecretsManager, Seen, promote_label, rollback_label},
    },
};
use uuid::Uuid;

use crate::support_aws::{
    Moto, limits,
    relay::{Lose, Relay},
    settings,
};

const OLD: &str = "old-key-old-key-old-key-old-key!";
const NEW: &str = "new-key-new-key-new-key-new-key!";

fn json(key: &str, sibling: &str) -> String {
    format!("{{\n  \"secret_key\" : \"{sibling}\",\t\"encryption_key\":\"{key}\", \"n\": 1.0}}")
}

fn target(field: bool) -> AwsSource {
    AwsSource { secret_id: "s".into(), field: field.then(|| "encryption_key".into()), stage_or_version: None }
}

fn content(field: bool, key: &str) -> String {
    if field { json(key, "a") } else { key.to_owned() }
}

async fn act(client: &SecretsManager, field: bool, id: Uuid, action: Action) -> Result<Current, SourceError> {
    let (wanted, other) = if action == Action::Rollback { (OLD, NEW) } else { (NEW, OLD) };
    let label = if action == Action::Rollback { rollback_label(id) } else { promote_label(id) };
    let replacement =
        Replacement { target: &target(field), value: wanted.as_bytes(), id, action, label: &label };
    let judge = |seen: &[u8]| match seen {
        k if k == wanted.as_bytes() => Seen::Wanted,
        k if k == other.as_bytes() => Seen::Replaceable,
        _ => Seen::Foreign,
    };
    client.replace(&replacement, judge, crate::unguarded).await
}

async fn versions(moto: &Moto) -> usize {
    moto.client().describe("s").await.unwrap().versions.len()
}

#[tokio::test]
async fn promote_and_rollback_in_both_shapes() {
    for field in [false, true] {
        let moto = Moto::start();
        let client = moto.client();
        let id = Uuid::now_v7();
        let v0 = moto.create("s", &content(field, OLD)).await;
        let promoted = act(&client, field, id, Action::Promote).await.unwrap();
        assert_eq!(promoted.moved_from.as_deref(), Some(v0.as_str()));
        assert_eq!(moto.at("s", "AWSCURRENT").await.unwrap(), content(field, NEW));
        assert_eq!(moto.at("s", "AWSPREVIOUS").await.unwrap(), content(field, OLD));
        assert_eq!(versions(&moto).await, 2);
        let again = act(&client, field, id, Action::Promote).await.unwrap();
        assert_eq!((again.version_id, again.moved_from), (promoted.version_id.clone(), None));
        assert_eq!(versions(&moto).await, 2, "promote twice makes one version");

        // A sibling changed since: it survives the way back.
        let sibling = if field { json(NEW, "changed since") } else { NEW.to_owned() };
        moto.put("s", &sibling).await;
        let back = act(&client, field, id, Action::Rollback).await.unwrap();
        let want = if field { json(OLD, "changed since") } else { OLD.to_owned() };
        assert_eq!(moto.at("s", "AWSCURRENT").await.unwrap(), want);
        assert_ne!(back.version_id, v0, "a fresh version, not the first one");
        assert_eq!(act(&client, field, id, Action::Rollback).await.unwrap().moved_from, None);
        assert_eq!(client.detach_all("s", id).await.unwrap().len(), 2);
    }
}

/// A raw key in SecretBinary: its readers look there, before and after.
#[tokio::test]
async fn what_is_binary_stays_binary_there_and_back() {
    let moto = Moto::start();
    let (client, sdk, target) = (moto.client(), moto.sdk(), target(false));
    let old: Vec<u8> = OLD.bytes().map(|b| b | 0x80).collect();
    let create = sdk.create_secret().name("s").secret_binary(Blob::new(old.clone()));
    create.send().await.unwrap();
    let act = async |id, action, wanted: &[u8]| {
        let label = if action == Action::Rollback { rollback_label(id) } else { promote_label(id) };
        let replacement = Replacement { target: &target, value: wanted, id, action, label: &label };
        let judge = |seen: &[u8]| if seen == wanted { Seen::Wanted } else { Seen::Replaceable };
        client.replace(&replacement, judge, crate::unguarded).await.unwrap();
        let now = sdk.get_secret_value().secret_id("s").version_stage("AWSCURRENT").send().await.unwrap();
        (now.secret_binary.map(Blob::into_inner), now.secret_string)
    };
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    client.takes(&target, NEW.as_bytes()).await.unwrap();
    assert_eq!(act(one, Action::Promote, NEW.as_bytes()).await, (Some(NEW.into()), None));
    assert_eq!(act(one, Action::Rollback, &old).await, (Some(old.clone()), None));
    // Somebody makes a string of it after it was promoted: the old key comes back all the same.
    act(two, Action::Promote, NEW.as_bytes()).await;
    moto.put("s", NEW).await;
    assert_eq!(act(two, Action::Rollback, &old).await, (Some(old.clone()), None));
    // A string stays a string, and takes no other bytes.
    moto.put("s", OLD).await;
    let refused = Error::from(client.takes(&target, &old).await.unwrap_err());
    assert_eq!(refused.exit, Exit::Key, "{refused:?}");
}

#[tokio::test]
async fn somebodys_get_then_put_is_repaired_by_promoting_again() {
    let moto = Moto::start();
    let id = Uuid::now_v7();
    moto.create("s", OLD).await;
    act(&moto.client(), false, id, Action::Promote).await.unwrap();
    moto.put("s", OLD).await;
    assert!(act(&moto.client(), false, id, Action::Promote).await.unwrap().moved_from.is_some());
    assert_eq!(moto.at("s", "AWSCURRENT").await.unwrap(), NEW);
    // The label moved back by hand: the version that was put for it is found again by its token.
    let info = moto.client().describe("s").await.unwrap();
    let (current, previous) = (info.holder("AWSCURRENT").unwrap(), info.holder("AWSPREVIOUS").unwrap());
    let request = moto.sdk().update_secret_version_stage().secret_id("s").version_stage("AWSCURRENT");
    request.remove_from_version_id(current).move_to_version_id(previous).send().await.unwrap();
    assert_eq!(act(&moto.client(), false, id, Action::Promote).await.unwrap().version_id, current);
}

#[tokio::test]
async fn a_foreign_value_is_not_touched() {
    let moto = Moto::start();
    moto.create("s", "somebody else's key, 32 bytes !!").await;
    let before = moto.client().describe("s").await.unwrap();
    for action in [Action::Promote, Action::Rollback] {
        let error = Error::from(act(&moto.client(), false, Uuid::now_v7(), action).await.unwrap_err());
        assert_eq!(error.exit, Exit::Key);
        assert!(!format!("{error:?}").contains("somebody else's"), "{error:?}");
    }
    assert_eq!(moto.client().describe("s").await.unwrap(), before);
}

#[tokio::test]
async fn the_late_move_of_a_killed_promote_fails() {
    let moto = Moto::start();
    let id = Uuid::now_v7();
    let v0 = moto.create("s", OLD).await;
    // Killed after the put, with the move on the wire: the old key still looks current.
    let relay = Relay::start(&moto.url, Lose::RequestsFrom(2)).await;
    act(&SecretsManager::new(&settings(&relay.url), limits(1)), false, id, Action::Promote)
        .await
        .unwrap_err();
    let info = moto.client().describe("s").await.unwrap();
    assert_eq!(info.holder("AWSCURRENT"), Some(v0.as_str()));
    let put = info.holder(&promote_label(id)).unwrap().to_owned();

    let back = act(&moto.client(), false, id, Action::Rollback).await.unwrap();
    assert_eq!(back.moved_from.as_deref(), Some(v0.as_str()));
    let late = moto.sdk().update_secret_version_stage().secret_id("s").version_stage("AWSCURRENT");
    late.remove_from_version_id(&v0).move_to_version_id(&put).send().await.unwrap_err();
    assert_eq!(moto.at("s", "AWSCURRENT").await.unwrap(), OLD);
}

/// A loses-one-message run, then a clean one: for every n, both ways of losing, both directions, both shapes.
#[tokio::test]
async fn killed_at_every_message_and_repeated_it_ends_right() {
    let moto = Moto::start();
    for (field, action) in [
        (false, Action::Promote),
        (true, Action::Promote),
        (false, Action::Rollback),
        (true, Action::Rollback),
    ] {
        for lose in [Lose::RequestsFrom, Lose::AnswersFrom, Lose::Answer] {
            for n in 0.. {
                assert!(n < 20, "never ends");
                let id = Uuid::now_v7();
                let start = if action == Action::Rollback { NEW } else { OLD };
                let v0 = moto.create("s", &content(field, start)).await;
                let relay = Relay::start(&moto.url, lose(n)).await;
                let tries = if matches!(lose(n), Lose::Answer(_)) { 3 } else { 1 };
                let killed = SecretsManager::new(&settings(&relay.url), limits(tries));
                let first = act(&killed, field, id, action).await;
                if tries > 1 {
                    let done = first.unwrap_or_else(|e| panic!("{:?} {action:?}: {e}", lose(n)));
                    // It was this call, whichever answer got lost.
                    assert_eq!(done.moved_from, Some(v0), "{:?} {action:?}", lose(n));
                }
                // Somebody else changes a sibling before we come back.
                if field && let Some(now) = moto.at("s", "AWSCURRENT").await {
                    moto.put("s", &now.replace("\"a\"", "\"b\"")).await;
                }
                act(&moto.client(), field, id, action).await.unwrap();
                let want = if action == Action::Rollback { OLD } else { NEW };
                let want = if field { json(want, "b") } else { want.to_owned() };
                assert_eq!(moto.at("s", "AWSCURRENT").await.unwrap(), want, "{:?} {action:?}", lose(n));
                let delete = moto.sdk().delete_secret().secret_id("s");
                delete.force_delete_without_recovery(true).send().await.unwrap();
                if n >= relay.count() {
                    break;
                }
            }
        }
    }
}

/// A promotion whose session was ended, while a rollback came and went: its next look finds the old key in a version that
/// it could replace, and it has no right to any more.
#[tokio::test]
async fn who_lost_the_right_to_replace_stops() {
    let moto = Moto::start();
    let client = moto.client();
    let id = Uuid::now_v7();
    moto.create("s", OLD).await;
    let (target, label) = (target(false), promote_label(id));
    let replacement =
        Replacement { target: &target, value: NEW.as_bytes(), id, action: Action::Promote, label: &label };
    let judge = |seen: &[u8]| if seen == NEW.as_bytes() { Seen::Wanted } else { Seen::Replaceable };
    let mut asked = 0;
    let guard = async || {
        asked += 1;
        if asked == 1 {
            // It still had it when it looked; then the rollback moves AWSCURRENT before it does.
            act(&moto.client(), false, id, Action::Rollback).await?;
            return Ok(());
        }
        Err(SourceError::Contended { resource: "the right to replace".into(), attempts: 0 })
    };
    client.replace(&replacement, judge, guard).await.unwrap_err();
    assert_eq!(asked, 2);
    assert_eq!(moto.at("s", "AWSCURRENT").await.unwrap(), OLD);
}

/// Writers who follow the same protocol, and promote, at once: no write is lost.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_lose_nothing() {
    let moto = Moto::start();
    moto.create("s", &json(OLD, "0")).await;
    let url = moto.url.clone();
    let writer = tokio::spawn(async move {
        let client = SecretsManager::new(&settings(&url), limits(3));
        let sibling = AwsSource { field: Some("secret_key".into()), ..target(true) };
        for i in 1..=5 {
            let value = i.to_string();
            let replacement = Replacement {
                target: &sibling,
                value: value.as_bytes(),
                id: Uuid::now_v7(),
                action: Action::Set,
                label: "sibling",
            };
            let judge = |seen: &[u8]| if seen == value.as_bytes() { Seen::Wanted } else { Seen::Replaceable };
            client.replace(&replacement, judge, crate::unguarded).await.unwrap();
        }
    });
    act(&moto.client(), true, Uuid::now_v7(), Action::Promote).await.unwrap();
    writer.await.unwrap();
    assert_eq!(moto.at("s", "AWSCURRENT").await.unwrap(), json(NEW, "5"));
}
