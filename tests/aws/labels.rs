//! Labels, creation and deletion: each primitive twice, and each killed at every message and repeated.

use rekey::crypto::Fingerprint;
use rekey::secrets::aws::{AS_USUAL, Deletion, SecretsManager, new_pin, old_pin, retired_label};
use uuid::Uuid;

use crate::support_aws::{
    Moto, limits,
    relay::{Lose, Relay},
    settings,
};

#[tokio::test]
async fn labels_move_once_and_come_off_once() {
    let moto = Moto::start();
    let client = moto.client();
    let rotation = Uuid::now_v7();
    let one = moto.create("s", "one").await;
    assert!(client.attach("s", &old_pin(rotation), &one).await.unwrap());
    assert!(!client.attach("s", &old_pin(rotation), &one).await.unwrap());
    let two = moto.put("s", "two").await;
    assert!(client.attach("s", &new_pin(rotation), &one).await.unwrap());
    assert!(client.attach("s", &new_pin(rotation), &two).await.unwrap());
    let info = client.describe("s").await.unwrap();
    assert_eq!(info.holder(&old_pin(rotation)), Some(one.as_str()));
    assert_eq!(info.holder(&new_pin(rotation)), Some(two.as_str()));
    assert_eq!(info.holder("AWSPREVIOUS"), Some(one.as_str()));
    client.attach("s", &retired_label(Fingerprint::of(b"k")), &one).await.unwrap();
    assert_eq!(client.detach_all("s", rotation).await.unwrap().len(), 2);
    assert_eq!(client.detach_all("s", rotation).await.unwrap().len(), 0);
    assert!(!client.detach("s", &old_pin(rotation)).await.unwrap());
    assert_eq!(
        client.describe("s").await.unwrap().holder(&retired_label(Fingerprint::of(b"k"))),
        Some(one.as_str())
    );
}

#[tokio::test]
async fn a_lost_answer_to_a_label_move_is_no_error() {
    let moto = Moto::start();
    let one = moto.create("s", "one").await;
    let two = moto.put("s", "two").await;
    for n in 0..2 {
        let (from, to) = if n == 0 { (&one, &two) } else { (&two, &one) };
        moto.client().attach("s", "pin", from).await.unwrap();
        let relay = Relay::start(&moto.url, Lose::Answer(n)).await;
        let client = SecretsManager::new(&settings(&relay.url), limits(3));
        client.attach("s", "pin", to).await.unwrap();
        assert_eq!(moto.client().describe("s").await.unwrap().holder("pin"), Some(to.as_str()));
    }
}

#[tokio::test]
async fn secrets_are_created_once_and_deleted_once() {
    let moto = Moto::start();
    let client = moto.client();
    let id = Uuid::now_v7();
    let stored = client.create("s", "one", id, &AS_USUAL).await.unwrap().unwrap();
    assert_eq!(stored.version_id, id.to_string());
    assert!(client.create("s", "two", Uuid::now_v7(), &AS_USUAL).await.unwrap().is_none());
    assert!(!client.undelete("s").await.unwrap());
    assert!(matches!(client.schedule_deletion("s", 30).await.unwrap(), Deletion::Scheduled(Some(_))));
    assert!(matches!(client.schedule_deletion("s", 30).await.unwrap(), Deletion::AlreadyScheduled(_)));
    assert_eq!(client.schedule_deletion("absent", 30).await.unwrap(), Deletion::Gone);
    assert!(client.create("s", "two", Uuid::now_v7(), &AS_USUAL).await.unwrap().is_none());
    assert!(client.undelete("s").await.unwrap());
    assert_eq!(moto.at("s", "AWSCURRENT").await.as_deref(), Some("one"));
}
