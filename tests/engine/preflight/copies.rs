//! A copy of the database carries the rotation along, and must act on neither rows nor keys.

use std::fs;

use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, rekey};

/// A rotation in a dotenv file, promoted; and a copy of its database.
#[test]
fn a_copy_of_the_database_acts_on_no_key_and_no_row() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(200).into(&db);
    let folder = tempfile::tempdir().expect("a folder");
    let env = folder.path().join("production.env");
    fs::write(&env, format!("ENCRYPTION_KEY={OLD}\n")).expect("a file");
    let source = format!("dotenv:{}#ENCRYPTION_KEY", env.display());
    let keys = |db: &Db, words: &[&str]| rekey(db, []).more(words).args(["--old-key", &source]);
    keys(&db, &["run"]).exits(0);
    rekey(&db, ["promote", "--yes"]).exits(0);
    let promoted = fs::read_to_string(&env).expect("a file");
    assert!(promoted.contains(NEW));

    let url = db.url.clone();
    let original = db.into_template();
    let copy = original.fork(&cluster);
    let content = copy.content();
    for words in [
        &["run"][..],
        &["run", "--dry-run"],
        &["rollback", "--yes"],
        &["promote", "--yes"],
        &["finalize", "--yes"],
        &["quarantine", "retry"],
        &["plan"],
    ] {
        let refusal = rekey(&copy, []).more(words).exits(4);
        let said = format!("{}{}", refusal.stdout, refusal.stderr);
        assert!(said.contains("other-database") && said.contains("began in database"), "{refusal}");
        assert_eq!(fs::read_to_string(&env).expect("a file"), promoted, "{refusal}");
        assert_eq!(copy.content(), content, "{refusal}");
    }
    let status = rekey(&copy, ["status"]).exits(0);
    assert!(status.stdout.contains("copied from database"), "{status}");
    let told = rekey(&copy, ["status"]).json(0);
    assert!(told["copied_from"].is_string(), "{told:#}");
    rekey(&copy, ["verify"]).exits(0);

    // In the original, and where somebody says that it has taken the original's place.
    let mut judge = Judge::look(&copy, &[NEW]);
    rekey(&copy, ["rollback", "--yes", "--allow", "other-database"]).exits(0);
    judge.all_on(&copy, OLD);
    let db = Db::at("original", url);
    let status = rekey(&db, ["status"]).json(0);
    assert!(status["copied_from"].is_null(), "{status:#}");
}

/// What an older version recorded is not refused, since nobody can tell.
#[test]
fn a_rotation_without_an_origin_is_not_refused() {
    let db = Db::new();
    Load::rows(100).into(&db);
    rekey(&db, ["run"]).exits(0);
    db.execute(
        "UPDATE rekey.rotations SET database_oid = NULL, system_identifier = NULL, database_name = NULL",
    );
    rekey(&db, ["rollback", "--yes"]).exits(0);
}

/// The same cluster by another name of the database, and a role that may not ask for the cluster's identity.
#[test]
fn a_renamed_database_is_the_same() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(100).into(&db);
    db.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    rekey(&db, ["run"]).exits(0);
    let name = db.name.clone();
    let template = db.into_template();
    template.rename(&cluster, "renamed");
    let db = Db::existing(&cluster, "renamed");
    assert_ne!(db.name, name);
    rekey(&db, ["rollback", "--yes"]).exits(0);
}
