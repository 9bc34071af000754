//! A life with everything in it, in each of the three shapes, with default names and no arguments in between.

use aws_sdk_secretsmanager::primitives::Blob;
use serde_json::Value;
use uuid::Uuid;

use crate::application::{Application, Shape};
use crate::support::load::{insert, some_ids, store};
use crate::support::{NEW, OLD, block_on, rekey};

#[test]
fn plain_secrets() {
    life(Shape::Plain);
}

#[test]
fn one_json_secret() {
    life(Shape::Json);
}

#[test]
fn the_paths_of_the_applications_code() {
    life(Shape::Path);
}

fn life(shape: Shape) {
    let mut app = Application::new(shape, 60);
    app.rekey(["run"]).exits(0);
    app.judge.all_on(&app.db, NEW);
    pinned(&app);

    promote(&mut app);

    // The application goes on: a token refresh under the new key, a new connection, a changed sibling.
    let id = some_ids(&app.db, 1, 7)[0];
    store(&app.db, id, NEW, b"refreshed under the new key");
    app.judge.expect(id, b"refreshed under the new key");
    app.judge.expect_touched(id);
    let inserted = Uuid::now_v7();
    insert(&app.db, inserted, NEW, b"connected under the new key");
    app.judge.expect(inserted, b"connected under the new key");
    let content = app.content(NEW, "s2");
    app.put(&content);
    app.rekey(["verify"]).exits(0);

    roll_back(&mut app);
    let id8 = rotations(&app);
    app.rekey(["run"]).exits(0);
    app.judge.all_on(&app.db, NEW);
    assert_ne!(id8, rotations(&app), "a new rotation");
    app.rekey(["promote", "--yes"]).exits(0);
    assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s2"));

    finalize(&mut app);
}

fn rotations(app: &Application) -> i64 {
    app.db.value("SELECT count(*) FROM rekey.rotations")
}

/// Both versions bear our pins before the first batch.
fn pinned(app: &Application) {
    let old = app.versions(&app.secret());
    assert!(old[&app.first].iter().any(|l| l.starts_with("rekey-old-")), "{old:?}");
    let new = match app.shape {
        Shape::Json => old,
        Shape::Plain | Shape::Path => app.versions(&app.temporary()),
    };
    let pinned = new.values().find(|labels| labels.iter().any(|l| l.starts_with("rekey-new-")));
    let stage = if app.shape == Shape::Json { "AWSPENDING" } else { "AWSCURRENT" };
    assert!(pinned.unwrap().iter().any(|l| l == stage), "{new:?}");
    assert_eq!(app.holder("AWSCURRENT").as_ref(), Some(&app.first), "run changes no key");
}

fn promote(app: &mut Application) {
    let done = app.rekey(["promote", "--yes"]).json(0);
    assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s1"));
    assert_eq!(app.at("AWSPREVIOUS"), app.content(OLD, "s1"));
    assert_eq!(app.holder("AWSPREVIOUS").as_ref(), Some(&app.first));
    assert_eq!(done["version_id"].as_str(), app.holder("AWSCURRENT").as_deref());
    assert_eq!(app.state(), "promoted");
    // Twice makes one version.
    let before = app.versions(&app.secret());
    let again = app.rekey(["promote", "--yes"]).json(0);
    assert_eq!((again["already"].as_bool(), &again["version_id"]), (Some(true), &done["version_id"]));
    assert_eq!(app.versions(&app.secret()), before);
    // Both default names yield the new key now, and everything still finds the old one by its fingerprint.
    app.rekey(["verify"]).exits(0);
    app.rekey(["run"]).exits(0);
    assert_eq!(app.state(), "promoted");
    // Somebody's own get-then-put brings the old key back: promote looks again, and repeats.
    app.put(&app.content(OLD, "s1"));
    let repeated = app.rekey(["promote", "--yes"]).json(0);
    assert_eq!(repeated["already"], false);
    assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s1"));
    let events: i64 = app.db.value("SELECT count(*) FROM rekey.events WHERE action = 'promoted'");
    assert_eq!(events, 2);
}

fn roll_back(app: &mut Application) {
    let promoted = app.holder("AWSCURRENT").unwrap();
    app.rekey(["rollback", "--yes"]).exits(0);
    app.judge.all_on(&app.db, OLD);
    assert_eq!(app.at("AWSCURRENT"), app.content(OLD, "s2"), "the sibling changed since survives");
    assert_eq!(app.holder("AWSPREVIOUS"), Some(promoted));
    assert_ne!(app.holder("AWSCURRENT").as_ref(), Some(&app.first), "a fresh version");
    assert_eq!(app.our_labels(), Vec::<String>::new());
    assert_eq!(app.state(), "rolled_back");
    let before = app.versions(&app.secret());
    app.rekey(["verify"]).exits(0);
    // Again: sweeps, and ends where it was.
    app.rekey(["rollback", "--yes"]).exits(0);
    assert_eq!(app.versions(&app.secret()), before);
}

fn finalize(app: &mut Application) {
    let old = app.db.value::<String>("SELECT old_version FROM rekey.rotations ORDER BY id DESC LIMIT 1");
    let current = app.holder("AWSCURRENT").unwrap();
    let done = app.rekey(["finalize", "--yes", "--recovery-window", "7"]).json(0);
    app.judge.all_on(&app.db, NEW);
    assert_eq!((app.state().as_str(), app.holder("AWSCURRENT")), ("finalized", Some(current)));
    assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s2"));
    let fingerprint: String =
        app.db.value("SELECT old_fingerprint FROM rekey.rotations ORDER BY id DESC LIMIT 1");
    assert_eq!(app.holder(&format!("rekey-retired-{fingerprint}")), Some(old));
    assert_eq!(app.our_labels(), Vec::<String>::new());
    // On a version that is not current it would block AWS's own rotation.
    assert!(app.holder("AWSPENDING").is_none_or(|pending| app.holder("AWSCURRENT") == Some(pending)));
    let deletion = |secret: &str| block_on(app.moto.client().describe(secret)).unwrap().deletion;
    assert_eq!(deletion(&app.secret()), None);
    match app.shape {
        Shape::Json => assert!(done["ending"]["deletion_scheduled"].is_null(), "{done:#}"),
        Shape::Plain | Shape::Path => {
            let temporary = block_on(app.moto.client().describe(&app.temporary())).unwrap();
            assert!(temporary.deletion.is_some());
            assert_eq!(done["ending"]["deletion_scheduled"], temporary.arn);
        }
    }
    app.rekey(["verify"]).exits(0);
    // There is no way back, and to say so needs no key.
    for command in [["rollback", "--yes"], ["promote", "--yes"], ["finalize", "--yes"]] {
        let keyless = rekey(&app.db, command).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY");
        keyless.exits(7);
    }
}

/// The next quarter: the name of the temporary secret is used again, still in its recovery window.
#[test]
fn the_next_rotation_finds_its_names_free() {
    for shape in [Shape::Plain, Shape::Json] {
        let mut app = Application::new(shape, 30);
        let waiting = match shape {
            Shape::Json => format!("aws:{}#encryption_key@AWSPENDING", app.secret()),
            _ => format!("aws:{}", app.temporary()),
        };
        for command in [&["run"][..], &["promote", "--yes"], &["finalize", "--yes"]] {
            app.rekey([]).more(command).exits(0);
        }
        // Without a fresh key there is none to go to.
        app.rekey(["run"]).exits(3);
        // What comes back out of the recovery window is kept unless it is replaced by force.
        let force: &[&str] = if matches!(shape, Shape::Json) { &[] } else { &["--force"] };
        if !force.is_empty() {
            let kept = app.rekey(["keys", "generate", "encryption", "--to", &waiting]).json(0);
            assert_eq!(kept["keys"][0]["changed"], false, "{kept:#}");
        }
        let made = app.rekey(["keys", "generate", "encryption", "--to", &waiting]).more(force).json(0);
        assert_eq!(made["keys"][0]["changed"], true, "{made:#}");
        let again = app.rekey(["keys", "generate", "encryption", "--to", &waiting]).json(0);
        assert_eq!(again["keys"][0]["changed"], false, "{again:#}");
        for command in [&["run"][..], &["promote", "--yes"], &["finalize", "--yes"]] {
            app.rekey([]).more(command).exits(0);
        }
        let content = app.at("AWSCURRENT");
        let third = match shape {
            Shape::Json => serde_json::from_str::<serde_json::Value>(&content).unwrap()["encryption_key"]
                .as_str()
                .unwrap()
                .to_owned(),
            _ => content,
        };
        assert!(third != OLD && third != NEW);
        app.judge.all_on(&app.db, &third);
        // The retired keys are told apart by their fingerprints; each stays until it is destroyed.
        let retired = |app: &Application| {
            let all = app.versions(&app.secret()).into_values().flatten();
            all.filter(|l| l.starts_with("rekey-retired-")).count()
        };
        assert_eq!(retired(&app), 2);
        let fingerprint: String =
            app.db.value("SELECT old_fingerprint FROM rekey.rotations ORDER BY id LIMIT 1");
        app.rekey(["keys", "destroy", "--fingerprint", &fingerprint]).exits(2);
        app.rekey(["keys", "destroy", "--fingerprint", &fingerprint, "--yes"]).exits(0);
        assert_eq!(retired(&app), 1);
    }
}

/// The guide deletes the temporary secret at once, and a console moves the label back: the version that promote made
/// is still known.
#[test]
fn the_new_key_is_found_where_promote_put_it() {
    let mut app = Application::new(Shape::Plain, 30);
    app.rekey(["run"]).exits(0);
    let promoted = app.rekey(["promote", "--yes"]).json(0)["version_id"].as_str().unwrap().to_owned();
    let arn = block_on(app.moto.client().describe(&app.temporary())).unwrap().arn;
    let delete =
        app.moto.sdk().delete_secret().secret_id(app.temporary()).force_delete_without_recovery(true);
    block_on(delete.send()).unwrap();
    let back =
        app.moto.sdk().update_secret_version_stage().secret_id(app.secret()).version_stage("AWSCURRENT");
    block_on(back.remove_from_version_id(&promoted).move_to_version_id(&app.first).send()).unwrap();
    assert_eq!(app.at("AWSCURRENT"), OLD);
    app.rekey(["verify"]).exits(0);
    app.rekey(["finalize", "--yes"]).exits(7);
    app.rekey(["promote", "--yes"]).exits(0);
    assert_eq!(app.at("AWSCURRENT"), NEW);
    let ending = &app.rekey(["finalize", "--yes"]).json(0)["ending"];
    assert_eq!((&ending["deletion_scheduled"], &ending["deleted_at"]), (&Value::Null, &Value::Null));
    assert_eq!(ending["already_gone"], arn);
    app.judge.all_on(&app.db, NEW);
}

/// The application looks in SecretBinary, and goes on to.
#[test]
fn a_binary_secret() {
    let mut app = Application::new(Shape::Plain, 12);
    let put = app.moto.sdk().put_secret_value().secret_id(app.secret()).secret_binary(Blob::new(OLD));
    block_on(put.send()).unwrap();
    let current = |app: &Application| {
        let get = app.moto.sdk().get_secret_value().secret_id(app.secret()).version_stage("AWSCURRENT");
        block_on(get.send()).unwrap().secret_binary.map(Blob::into_inner)
    };
    app.rekey(["run"]).exits(0);
    app.rekey(["promote", "--yes"]).exits(0);
    assert_eq!(current(&app), Some(NEW.into()));
    app.rekey(["rollback", "--yes"]).exits(0);
    assert_eq!(current(&app), Some(OLD.into()));
    app.judge.all_on(&app.db, OLD);
}

/// A raw key fits into no string: that is found before anything says that the promotion has begun.
#[test]
fn a_key_that_the_secret_cannot_hold() {
    let mut app = Application::new(Shape::Plain, 12);
    let dir = tempfile::tempdir().unwrap();
    let raw: Vec<u8> = NEW.bytes().map(|b| b | 0x80).collect();
    std::fs::write(dir.path().join("raw"), raw).unwrap();
    let new = format!("file:{}", dir.path().join("raw").display());
    app.rekey(["run", "--new-key", &new]).exits(0);
    let refused = app.rekey(["promote", "--yes"]).exits(3);
    assert!(refused.stderr.contains("UTF-8"), "{refused}");
    assert_eq!(app.state(), "migrated");
    app.rekey(["rollback", "--yes"]).exits(0);
    app.judge.all_on(&app.db, OLD);
}

/// A target that yields neither key is nobody's to overwrite; another secret with both is found by its ARN.
#[test]
fn a_foreign_value_is_3_and_changes_nothing() {
    let app = Application::new(Shape::Json, 30);
    app.rekey(["run"]).exits(0);
    let foreign = app.content("somebody-elses-key-of-32-bytes-!", "s1");
    app.put(&foreign);
    let before = app.versions(&app.secret());
    let refused = app.rekey(["promote", "--yes"]).exits(3);
    refused.says_none_of(&["somebody-elses-key"]);
    assert_eq!((app.versions(&app.secret()), app.state().as_str()), (before, "migrated"));
    // Named whole, as an ARN, with field and version.
    let arn = block_on(app.moto.client().describe(&app.secret())).unwrap().arn;
    let (old, new) =
        (format!("aws:{arn}#encryption_key@{}", app.first), format!("aws:{arn}#encryption_key@AWSPENDING"));
    app.rekey(["verify", "--old-key", &old, "--new-key", &new]).exits(0);
    // Roles never swap.
    app.rekey(["verify", "--old-key", &new, "--new-key", &old]).exits(3);
}

/// `--target` with an `@` in its name; the place is fixed once promoting was written, and rollback cleans up there.
#[test]
fn another_target() {
    let mut app = Application::new(Shape::Plain, 30);
    app.rekey(["run"]).exits(0);
    let elsewhere = format!("{}@elsewhere", app.name);
    block_on(app.moto.create(&elsewhere, OLD));
    let target = format!("aws:{}", elsewhere.replace('@', "%40"));
    app.rekey(["promote", "--yes", "--target", &target]).exits(0);
    assert_eq!(block_on(app.moto.at(&elsewhere, "AWSCURRENT")).unwrap(), NEW);
    assert_eq!(app.at("AWSCURRENT"), OLD);
    app.rekey(["promote", "--yes", "--target", &format!("aws:{}", app.secret())]).exits(7);
    app.rekey(["promote", "--yes"]).exits(0);
    app.rekey(["rollback", "--yes"]).exits(0);
    app.judge.all_on(&app.db, OLD);
    assert_eq!(block_on(app.moto.at(&elsewhere, "AWSCURRENT")).unwrap(), OLD);
    let left = app.versions(&elsewhere).into_values().flatten().any(|l| l.starts_with("rekey-"));
    assert!(!left && app.our_labels().is_empty(), "{:?}", app.versions(&elsewhere));
}

/// ECS and others put the secret into the environment: `run` reads it there, and promote writes where it came from.
/// Whatever becomes of the secret afterwards, the old key is found at the pin.
#[test]
fn the_old_key_came_from_the_environment() {
    let app = Application::new(Shape::Json, 30);
    let (target, new) = (
        format!("aws:{}#encryption_key", app.secret()),
        format!("aws:{}#encryption_key@AWSPENDING", app.secret()),
    );
    let rekey = |arguments: &[&str], key: &str| {
        app.rekey([])
            .more(arguments)
            .args(["--old-key", "env:ENCRYPTION_KEY", "--new-key", &new])
            .env("ENCRYPTION_KEY", key)
    };
    rekey(&["run"], OLD).exits(0);
    rekey(&["promote", "--yes", "--target", &target], OLD).exits(0);
    let pin = app.our_labels().into_iter().find(|label| label.starts_with("rekey-old-")).expect("a pin");
    assert_eq!(app.holder(&pin), Some(app.first.clone()));
    // A change of the other field moves AWSPREVIOUS on; the environment yields the new key by now.
    app.put(&app.content(NEW, "s2"));
    assert_ne!(app.holder("AWSPREVIOUS"), Some(app.first.clone()));
    rekey(&["rollback", "--yes"], NEW).exits(0);
    assert_eq!(app.at("AWSCURRENT"), app.content(OLD, "s2"));
    rekey(&["run"], OLD).exits(0);
    rekey(&["promote", "--yes", "--target", &target], OLD).exits(0);
    rekey(&["finalize", "--yes"], NEW).exits(0);
    let fingerprint: String = app.db.value("SELECT old_fingerprint FROM rekey.rotations LIMIT 1");
    let retired = app.holder(&format!("rekey-retired-{fingerprint}")).expect("kept for backups");
    let kept = app.moto.sdk().get_secret_value().secret_id(app.secret()).version_id(retired);
    assert!(block_on(kept.send()).unwrap().secret_string().unwrap().contains(OLD));
}

/// The guide's 2.4: AWS would swap the key without re-encrypting.
#[test]
fn automatic_rotation_is_refused() {
    let app = Application::new(Shape::Plain, 30);
    let rotate = app
        .moto
        .sdk()
        .rotate_secret()
        .secret_id(app.secret())
        .rotation_lambda_arn("arn:aws:lambda:us-east-1:123456789012:function:rotate");
    let rules =
        aws_sdk_secretsmanager::types::RotationRulesType::builder().automatically_after_days(30).build();
    // moto switches it on, and then misses the function.
    block_on(rotate.rotation_rules(rules).send()).ok();
    if !block_on(app.moto.client().describe(&app.secret())).unwrap().rotation_enabled {
        crate::support::skipped(format_args!("1 test, this moto does not say that a secret rotates"));
        return;
    }
    let refused = app.rekey(["run"]).exits(4);
    assert!(refused.stderr.contains("automatic-rotation: "), "{refused}");
    assert!(!app.db.has_rekey_schema());
    // Each command that depends on it asks for itself: it may have been switched on in between.
    app.rekey(["run", "--allow", "automatic-rotation"]).exits(0);
    app.rekey(["run"]).exits(4);
    app.rekey(["promote", "--yes"]).exits(4);
    assert_eq!(app.state(), "migrated");
    app.rekey(["promote", "--yes", "--allow", "automatic-rotation"]).exits(0);
}

/// What is begun in a replica's region could be neither labelled nor promoted: nothing is recorded, and the primary is named.
#[test]
fn a_rotation_is_not_begun_in_a_replicas_region() {
    let app = Application::new(Shape::Plain, 12);
    let replica = aws_sdk_secretsmanager::types::ReplicaRegionType::builder().region("eu-west-1").build();
    for secret in [app.secret(), app.temporary()] {
        let replicate = app.moto.sdk().replicate_secret_to_regions().secret_id(secret);
        block_on(replicate.add_replica_regions(replica.clone()).send()).expect("moto replicates");
    }
    for command in ["plan", "run"] {
        let refused = app.rekey([command]).env("AWS_REGION", "eu-west-1").exits(4);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        for word in ["replica-secret", "us-east-1", "AWS_REGION=us-east-1"] {
            assert!(said.contains(word), "{word} is missing:\n{refused}");
        }
        assert!(!app.db.has_rekey_schema());
    }
    app.rekey(["run"]).exits(0);
    // So are a promotion and a rollback from there, before anything is recorded.
    let there = |command: &str| {
        let refused = app.rekey([command, "--yes"]).env("AWS_REGION", "eu-west-1").exits(4);
        assert!(refused.stderr.contains("replica-secret"), "{refused}");
    };
    there("promote");
    assert_eq!((app.state().as_str(), app.at("AWSCURRENT").as_str()), ("migrated", OLD));
    app.rekey(["promote", "--yes"]).exits(0);
    there("rollback");
    assert_eq!((app.state().as_str(), app.at("AWSCURRENT").as_str()), ("promoted", NEW));
}
