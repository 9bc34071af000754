//! Keys in Secrets Manager: created, restored from deletion, staged, shown, destroyed.

use crate::support::block_on;
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
    assert!(kept.stdout.contains("is there already"), "{kept}");
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

    // The guide's temporary secret after its deletion: back out of the recovery window, with a new key.
    block_on(moto.sdk().delete_secret().secret_id(&name).recovery_window_in_days(7).send()).unwrap();
    on_aws(&moto, ["keys", "generate", "encryption", "--to", &to]).exits(0);
    let third = at(&moto, &name, "AWSCURRENT").unwrap();
    assert!(third != second && third != first);
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
