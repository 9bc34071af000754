//! What Secrets Manager may answer while a key is being promoted: the exit code, the state, and the next try.

use std::time::Duration;

use crate::application::{Application, Shape};
use crate::support::{NEW, Outcome, block_on};
use crate::support_aws::relay::{Lose, Relay};

fn promote(app: &Application, lose: Lose) -> Outcome {
    through(app, "promote", lose)
}

fn through(app: &Application, command: &str, lose: Lose) -> Outcome {
    let relay = block_on(Relay::start(&app.moto.url, lose));
    // What is denied is not waited for, and what is slow is not to be taken for away.
    let patience =
        if matches!(lose, Lose::Refused { code: "AccessDeniedException", .. }) { "30s" } else { "3s" };
    app.rekey_through(&relay.url, [command, "--yes", "--retry-for", patience]).run()
}

fn refused(action: &'static str, times: usize, status: u16, code: &'static str) -> Lose {
    Lose::Refused { action, times, status, code }
}

#[test]
fn a_missing_permission_is_named_and_the_next_try_goes_on() {
    for (action, state) in [
        ("GetSecretValue", "migrated"),
        ("PutSecretValue", "promoting"),
        ("UpdateSecretVersionStage", "promoting"),
    ] {
        let app = Application::new(Shape::Json, 12);
        app.rekey(["run"]).exits(0);
        let denied = promote(&app, refused(action, usize::MAX, 400, "AccessDeniedException")).expect(3);
        assert!(denied.stderr.contains(&format!("secretsmanager:{action}")), "{denied}");
        assert!(denied.stderr.contains(&app.name), "{denied}");
        assert_eq!(app.state(), state);
        app.rekey(["promote", "--yes"]).exits(0);
        assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s1"));
    }
}

/// The way back and the end: denied is 3, away is 69; each says where it stands, and the next try goes on.
#[test]
fn what_fails_after_the_promotion() {
    let (denied, away) = ((400, "AccessDeniedException", 3), (503, "ServiceUnavailable", 69));
    for (command, action, (status, code, exit), state, end) in [
        ("rollback", "PutSecretValue", denied, "unpromoting", "rolled_back"),
        ("rollback", "UpdateSecretVersionStage", away, "unpromoting", "rolled_back"),
        ("rollback", "GetSecretValue", away, "promoted", "rolled_back"),
        ("finalize", "UpdateSecretVersionStage", denied, "finalizing", "finalized"),
        ("finalize", "DeleteSecret", denied, "finalizing", "finalized"),
        ("finalize", "DeleteSecret", away, "finalizing", "finalized"),
        ("finalize", "GetSecretValue", away, "promoted", "finalized"),
    ] {
        let app = Application::new(Shape::Plain, 12);
        app.rekey(["run"]).exits(0);
        app.rekey(["promote", "--yes"]).exits(0);
        let failed = through(&app, command, refused(action, usize::MAX, status, code)).expect(exit);
        if exit == 3 {
            assert!(failed.stderr.contains(&format!("secretsmanager:{action}")), "{failed}");
        }
        assert_eq!(app.state(), state, "{failed}");
        app.rekey([command, "--yes"]).exits(0);
        assert_eq!(app.state(), end);
    }
}

#[test]
fn throttling_that_ends_is_not_noticed() {
    let app = Application::new(Shape::Plain, 12);
    app.rekey(["run"]).exits(0);
    let relay =
        block_on(Relay::start(&app.moto.url, refused("PutSecretValue", 2, 400, "ThrottlingException")));
    app.rekey_through(&relay.url, ["promote", "--yes"]).exits(0);
    assert_eq!(app.at("AWSCURRENT"), NEW);
    assert_eq!(app.versions(&app.secret()).len(), 2, "one version was made");
}

#[test]
fn throttling_for_good_and_outages_are_69() {
    for (action, status, code) in [
        ("PutSecretValue", 400, "ThrottlingException"),
        ("GetSecretValue", 500, "InternalServiceError"),
        ("UpdateSecretVersionStage", 503, "ServiceUnavailable"),
        ("DescribeSecret", 500, "InternalServiceError"),
    ] {
        let app = Application::new(Shape::Json, 12);
        app.rekey(["run"]).exits(0);
        let away = promote(&app, refused(action, usize::MAX, status, code)).expect(69);
        assert!(away.took < Duration::from_secs(60), "{away}");
        app.rekey(["promote", "--yes"]).exits(0);
        assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "s1"));
    }
}

/// Nobody listens, from the beginning.
#[test]
fn an_endpoint_that_is_away_is_69() {
    let app = Application::new(Shape::Plain, 12);
    let away = app.rekey_through("http://127.0.0.1:9", ["run", "--retry-for", "2s"]).exits(69);
    assert!(away.took < Duration::from_secs(60), "{away}");
    assert!(!app.db.has_rekey_schema());
}

/// Pinning is not reading: where it is not allowed, run warns, and promote refuses before it writes a state.
#[test]
fn pins_that_may_not_be_set() {
    let app = Application::new(Shape::Plain, 12);
    let deny = refused("UpdateSecretVersionStage", usize::MAX, 400, "AccessDeniedException");
    let relay = block_on(Relay::start(&app.moto.url, deny));
    let warned = app.rekey_through(&relay.url, ["run"]).exits(0);
    assert!(warned.stderr.contains("staging labels"), "{warned}");
    assert!(app.our_labels().is_empty());
    promote(&app, deny).expect(3);
    assert_eq!(app.state(), "migrated");
    app.rekey(["promote", "--yes"]).exits(0);
    assert!(app.our_labels().len() >= 2);
}

/// Somebody moves AWSCURRENT between our read and our move: the move fails, everything is read and built again, and
/// the sibling that was written meanwhile is kept.
#[test]
fn a_stage_that_somebody_else_moves_meanwhile() {
    let app = Application::new(Shape::Json, 12);
    app.rekey(["run"]).exits(0);
    // The first move of ours is answered as AWS answers when the label is elsewhere by then.
    let moved = refused("UpdateSecretVersionStage", 1, 400, "InvalidParameterException");
    let relay = block_on(Relay::start(&app.moto.url, moved));
    app.put(&app.content(crate::support::OLD, "changed by somebody"));
    app.rekey_through(&relay.url, ["promote", "--yes"]).exits(0);
    assert_eq!(app.at("AWSCURRENT"), app.content(NEW, "changed by somebody"));
}

/// A secret with replicas, say: the rotation ends, and says what is left to do.
#[test]
fn a_temporary_secret_that_aws_does_not_delete() {
    let app = Application::new(Shape::Plain, 12);
    app.rekey(["run"]).exits(0);
    app.rekey(["promote", "--yes"]).exits(0);
    let refuse = refused("DeleteSecret", usize::MAX, 400, "InvalidRequestException");
    let relay = block_on(Relay::start(&app.moto.url, refuse));
    let arn = block_on(app.moto.client().describe(&app.temporary())).unwrap().arn;
    let done = app.rekey_through(&relay.url, ["finalize", "--yes"]).json(0);
    let ending = &done["ending"];
    assert_eq!(ending["not_deleted"], arn, "{done:#}");
    assert!(ending["deletion_scheduled"].is_null(), "{done:#}");
    assert_eq!(app.state(), "finalized");
    assert!(app.our_labels().is_empty(), "{:?}", app.our_labels());
}

/// The SDK would print secrets.
#[test]
fn sensitive_logging_is_refused() {
    let app = Application::new(Shape::Plain, 12);
    for command in ["run", "plan", "status"] {
        for variable in ["LOG_SENSITIVE_BODIES", "LOG_SIGNABLE_BODY"] {
            let refused = app.rekey([command]).env(variable, "true").exits(2);
            assert!(refused.stderr.contains(variable), "{refused}");
        }
    }
    assert!(!app.db.has_rekey_schema());
}
