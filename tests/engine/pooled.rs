//! A pooler in transaction mode: every command refuses it before it sets anything in a session that the application
//! will be given next.

use crate::support::load::Load;
use crate::support::{Db, Pooler, rekey, rekey_without_database};

#[test]
fn no_command_leaves_a_setting_or_a_lock_in_the_pool() {
    let db = Db::new();
    Load::rows(200).into(&db);
    rekey(&db, ["run"]).exits(0);
    let pooler = Pooler::start(&db, "transaction");
    let commands: [&[&str]; 14] = [
        &["verify"],
        &["status"],
        &["report"],
        &["init"],
        &["pause"],
        &["resume"],
        &["abort"],
        &["promote", "--yes"],
        &["finalize", "--yes"],
        &["quarantine", "list"],
        &["quarantine", "retry"],
        &["run"],
        &["run", "--dry-run"],
        &["rollback", "--yes"],
    ];
    for arguments in commands {
        // Nor where something else would be refused as well, and earlier.
        let command = rekey(&db, []).more(arguments).without("NEW_ENCRYPTION_KEY");
        let outcome = command.env("DATABASE_URL", pooler.url(&db)).exits(4);
        assert!(outcome.stderr.contains("pooling"), "{outcome}");
    }
    let plan = rekey(&db, ["plan"]).without("NEW_ENCRYPTION_KEY").env("DATABASE_URL", pooler.url(&db));
    let plan = plan.run();
    assert!(plan.stdout.contains("pooling"), "{plan}");
    let kept = [
        ("lock_timeout", "0"),
        ("statement_timeout", "0"),
        ("row_security", "on"),
        ("default_transaction_read_only", "off"),
    ];
    for (setting, value) in kept {
        assert_eq!(pooler.show(&db, setting), value, "{setting}");
    }
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database =
                 (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(db.value::<i64>(locks), 0);
}

/// Keys are looked at all the same: the audit trail is what cannot be had.
#[test]
fn keys_are_shown_without_an_audit_entry() {
    let db = Db::new();
    let pooler = Pooler::start(&db, "transaction");
    let outcome = rekey_without_database(["keys", "fingerprint", "env:ENCRYPTION_KEY"])
        .env("DATABASE_URL", pooler.url(&db))
        .env("ENCRYPTION_KEY", crate::support::OLD)
        .exits(0);
    outcome.says_none_of(&[crate::support::OLD]);
    assert_eq!(pooler.show(&db, "row_security"), "on");
}
