//! The person in the trail: asked for in production in Kubernetes, found out elsewhere.

use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Db, Rekey, rekey};

fn in_a_pod(db: &Db, arguments: &[&str]) -> Rekey {
    rekey(db, [])
        .more(arguments)
        .env("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        .env("HOSTNAME", "rekey-run-0-abcde")
}

fn last_operator(db: &Db) -> String {
    db.value("SELECT operator || coalesce(': ' || reason, '') FROM rekey.events ORDER BY seq DESC LIMIT 1")
}

#[test]
fn production_in_kubernetes_needs_a_person_and_a_reason() {
    let db = Db::new();
    Load::rows(2000).into(&db);
    for (operator, reason) in
        [("", ""), ("alice", ""), ("", "quarterly rotation"), (" ", "quarterly rotation")]
    {
        let run = in_a_pod(&db, &["run"]).env("REKEY_OPERATOR", operator).env("REKEY_REASON", reason);
        let refused = run.exits(2);
        assert!(refused.stderr.contains("the operator's name and a reason"), "{refused}");
        assert!(!db.has_rekey_schema(), "nothing was done");
    }
    // What only reads needs nobody, and staging no reason.
    in_a_pod(&db, &["plan"]).exits(0);
    in_a_pod(&db, &["run", "--dry-run"]).exits(0);
    let named = |arguments: &[&str]| {
        in_a_pod(&db, arguments).env("REKEY_OPERATOR", "alice").env("REKEY_REASON", "quarterly rotation")
    };
    db.mark();
    db.slow_batches(Duration::from_millis(60));
    let run = named(&["run", "--batch-rows", "20"]).start();
    db.wait_moved(40);
    let workers: String = db.value("SELECT min(operator) FROM rekey.processes");
    assert_eq!(workers, "alice");
    for steered in [&["pause"][..], &["resume"], &["abort"]] {
        let refused = named(steered).exits(2);
        assert!(refused.stderr.contains("--operator NAME"), "{refused}");
    }
    named(&["pause", "--operator", "bob", "--reason", "checkout is slow"]).exits(0);
    assert_eq!(last_operator(&db), "bob: checkout is slow");
    named(&["resume", "--operator=bob"]).exits(0);
    db.fast_commits();
    run.wait().expect(0);
    in_a_pod(&db, &["promote", "--external", "--yes"]).exits(2);
    in_a_pod(&db, &["rollback", "--yes"]).exits(2);
    named(&["rollback", "--yes"]).exits(0);
    let turned: i64 = db.value("SELECT count(*) FROM rekey.events WHERE action LIKE 'roll%' AND operator = 'alice' AND reason = 'quarterly rotation'");
    assert!(turned > 0);
    in_a_pod(&db, &["run", "--environment", "staging"]).exits(0);
}

#[test]
fn elsewhere_the_caller_of_sudo_or_the_user_is_named() {
    let db = Db::new();
    Load::rows(10).into(&db);
    let warned = rekey(&db, ["run"]).env("SUDO_USER", "carol").env("USER", "root").exits(0);
    assert!(warned.stderr.contains("--reason TEXT"), "{warned}");
    let by: String = db.value("SELECT operator FROM rekey.events ORDER BY seq LIMIT 1");
    assert_eq!(by, "carol");
    // The environment can say anything; the name of the user it is.
    let reasoned = rekey(&db, ["rollback", "--yes", "--reason", "a test"]).env("USER", "mallory").exits(0);
    assert!(!reasoned.stderr.contains("--reason TEXT"), "{reasoned}");
    assert_ne!(last_operator(&db), "mallory: a test");
}
