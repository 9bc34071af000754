//! Nothing of anybody else's: secrets that a table names by mistake or malice, next quarter's key, another rotation's.

use uuid::Uuid;

use crate::application::{Application, Shape};
use crate::support::{NEW, OLD, OTHER, SOON, block_on, until};

/// Promoted, and ready to be finalized.
fn promoted() -> Application {
    let app = Application::new(Shape::Plain, 12);
    app.rekey(["run"]).exits(0);
    app.rekey(["promote", "--yes"]).exits(0);
    app
}

fn is_deleted(app: &Application, secret: &str) -> bool {
    block_on(app.moto.client().describe(secret)).is_ok_and(|secret| secret.deletion.is_some())
}

fn arn(app: &Application, secret: &str) -> String {
    block_on(app.moto.client().describe(secret)).expect("the secret is there").arn
}

/// The state is final all the same, and the answer names what stays by its ARN, and why.
fn finalizes_and_leaves(app: &Application, secret: &str, because: &str) {
    let done = app.rekey(["finalize", "--yes"]).json(0);
    let ending = &done["ending"];
    assert_eq!(ending["left_alone"], arn(app, secret), "{done:#}");
    let why = ending["left_alone_because"].as_str().unwrap_or_default();
    assert!(why.contains(because), "{why}");
    assert!(!is_deleted(app, secret));
    assert_eq!(app.state(), "finalized");
}

#[test]
fn a_temporary_secret_is_deleted_by_its_arn_and_the_trail_has_it() {
    let app = promoted();
    let temporary = arn(&app, &app.temporary());
    let done = app.rekey(["finalize", "--yes"]).json(0);
    assert_eq!(done["ending"]["deletion_scheduled"], temporary, "{done:#}");
    assert!(is_deleted(&app, &temporary));
    let recorded: String =
        app.db.value("SELECT detail->>'deletion_scheduled' FROM rekey.events WHERE action = 'finalized'");
    assert_eq!(recorded, temporary);
}

#[test]
fn a_table_cell_that_names_another_secret() {
    let app = promoted();
    let stranger = format!("{}/stripe_key", app.name);
    block_on(app.moto.create(&stranger, NEW));
    app.db.execute(&format!("UPDATE rekey.rotations SET new_arn = '{}'", arn(&app, &stranger)));
    finalizes_and_leaves(&app, &stranger, "does not have the label");
    assert!(!is_deleted(&app, &app.temporary()));
}

#[test]
fn cells_that_exchange_the_temporary_secret_and_the_applications() {
    let app = promoted();
    app.db.execute(&format!(
        "UPDATE rekey.rotations SET new_arn = '{}', old_arn = '{}', new_source = old_source, target_source = new_source, \
         promoted_version = new_version",
        arn(&app, &app.secret()),
        arn(&app, &app.temporary()),
    ));
    // Whatever it ends with: the application's secret stays.
    app.rekey(["finalize", "--yes"]).run();
    assert!(!is_deleted(&app, &app.secret()));
    assert_eq!(app.at("AWSCURRENT"), NEW);
}

#[test]
fn next_quarters_key_is_there_already() {
    let app = promoted();
    block_on(app.moto.put(&app.temporary(), OTHER));
    finalizes_and_leaves(&app, &app.temporary(), "is not the new key");
}

#[test]
fn another_rotation_needs_the_secret() {
    let app = promoted();
    let label = pin_of_another(&app, &app.temporary(), "new");
    finalizes_and_leaves(&app, &app.temporary(), &label);
}

/// The label that another database's rotation puts on the version that is current in this secret.
fn pin_of_another(app: &Application, secret: &str, role: &str) -> String {
    let label = format!("rekey-{role}-{:08x}", Uuid::now_v7().as_u64_pair().1 as u32);
    let versions = app.versions(secret);
    let (version, _) = versions
        .iter()
        .find(|(_, labels)| labels.iter().any(|label| label == "AWSCURRENT"))
        .expect("a current version");
    block_on(app.moto.client().attach(secret, &label, version)).expect("another database's pin");
    label
}

#[test]
fn a_key_that_another_database_needs_is_promoted_only_when_that_is_allowed() {
    let app = Application::new(Shape::Plain, 12);
    app.rekey(["run"]).exits(0);
    let label = pin_of_another(&app, &app.secret(), "old");
    let refused = app.rekey(["promote", "--yes"]).exits(4);
    for word in ["shared-key", &label, "rekey verify"] {
        assert!(refused.stderr.contains(word), "{word} is missing:\n{refused}");
    }
    assert_eq!(app.state(), "migrated");
    app.rekey(["promote", "--yes", "--allow", "shared-key"]).exits(0);
    // The other database is not back on the old key: moving the key back would leave its rows unreadable.
    app.rekey(["rollback", "--yes"]).exits(4);
    assert_eq!(app.state(), "promoted");
    app.rekey(["rollback", "--yes", "--allow", "shared-key"]).exits(0);
    let allowed: i64 = app.db.value("SELECT count(*) FROM rekey.events WHERE action = 'allow'");
    assert_eq!(allowed, 2);
}

#[test]
fn another_database_has_finalized() {
    let app = promoted();
    let old = app.holder(&format!(
        "rekey-old-{}",
        app.db.value::<String>("SELECT right(id::text, 8) FROM rekey.rotations")
    ));
    let fingerprint: String = app.db.value("SELECT old_fingerprint FROM rekey.rotations");
    let retired = format!("rekey-retired-{fingerprint}");
    block_on(app.moto.client().attach(&app.secret(), &retired, &old.expect("the old version")))
        .expect("its label");
    let refused = app.rekey(["rollback", "--yes"]).exits(4);
    assert!(refused.stderr.contains(&retired), "{refused}");
}

/// The labels that an earlier rotation of this very database left say nothing of another one.
#[test]
fn a_key_that_has_come_back_since_it_was_retired() {
    let mut app = promoted();
    app.rekey(["finalize", "--yes"]).exits(0);
    let next = |name: &str, key: &str| {
        let secret = format!("{}/{name}", app.name);
        block_on(app.moto.create(&secret, key));
        app.rekey(["run", "--new-key", &format!("aws:{secret}")]).exits(0);
        app.rekey(["promote", "--yes"]).exits(0);
    };
    next("back", OLD);
    app.rekey(["finalize", "--yes"]).exits(0);
    next("again", NEW);
    app.rekey(["rollback", "--yes"]).exits(0);
    assert_eq!((app.state().as_str(), app.at("AWSCURRENT").as_str()), ("rolled_back", OLD));
    app.judge.all_on(&app.db, OLD);
}

#[test]
fn another_database_begins_while_rows_move_back() {
    let app = promoted();
    let hold = app.db.hold_last();
    let rollback = app.rekey(["rollback", "--yes"]).start();
    until("the rotation to turn", SOON, || (app.state() == "rolling_back").then_some(()));
    let label = pin_of_another(&app, &app.secret(), "old");
    hold.rollback();
    let refused = rollback.wait().expect(4);
    assert!(refused.stderr.contains(&label), "{refused}");
    assert_eq!(app.at("AWSCURRENT"), NEW);
    app.rekey(["rollback", "--yes", "--allow", "shared-key"]).exits(0);
    assert_eq!(app.at("AWSCURRENT"), OLD);
}

#[test]
fn another_database_begins_while_promote_verifies() {
    let app = Application::new(Shape::Plain, 12);
    app.rekey(["run"]).exits(0);
    let mut hold = app.db.hold();
    hold.execute(sqlx::query("LOCK TABLE provider_connections"));
    let promote = app.rekey(["promote", "--yes"]).start();
    until_it_waits(&app, "wait_event_type = 'Lock'");
    let label = pin_of_another(&app, &app.secret(), "old");
    hold.rollback();
    let refused = promote.wait().expect(4);
    assert!(refused.stderr.contains(&label), "{refused}");
    assert_eq!((app.state().as_str(), app.at("AWSCURRENT").as_str()), ("migrated", OLD));
}

/// What a rollback read before it held the lock is not what it goes by.
#[test]
fn a_promotion_ends_while_a_rollback_waits_for_the_lock() {
    let app = Application::new(Shape::Plain, 12);
    app.rekey(["run"]).exits(0);
    let mut hold = app.db.hold();
    // The lock of rollbacks among themselves.
    hold.execute(sqlx::query("SELECT pg_advisory_xact_lock(x'72656b6579'::bigint + 3)"));
    let rollback = app.rekey(["rollback", "--yes"]).start();
    until_it_waits(&app, "query LIKE '%pg_try_advisory_lock%'");
    let label = pin_of_another(&app, &app.secret(), "old");
    app.db.execute(
        "UPDATE rekey.rotations SET state = 'promoted', promoting_at = clock_timestamp(), target_source = old_source;
         SELECT rekey.append_event(id, action, 'another process', NULL, jsonb_build_object('target', target_source))
             FROM rekey.rotations, unnest(ARRAY['promoting', 'promoted']) action",
    );
    hold.rollback();
    let refused = rollback.wait().expect(4);
    assert!(refused.stderr.contains(&label), "{refused}");
    assert_eq!(app.state(), "promoted");
}

/// Until a session of rekey's on the database is found by this condition.
fn until_it_waits(app: &Application, how: &str) {
    let waiting = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
         AND application_name LIKE 'rekey%' AND {how})"
    );
    until("rekey to wait", SOON, || app.db.value::<bool>(&waiting).then_some(()));
}
