//! The wrong key, in every way it can be wrong: exit 3, nothing written, nothing echoed.

use std::io::Write as _;
use std::time::Duration;

use crate::support::load::Load;
use crate::support::{Db, Judge, NEW, OLD, OTHER, rekey, rekey_without_database, run_in_small_steps};

fn loaded() -> Db {
    let db = Db::new();
    Load::rows(400).into(&db);
    db
}

/// Runs with these two keys; it must refuse with 3, write nothing and show neither.
#[track_caller]
fn refused(db: &Db, old: Option<&str>, new: Option<&str>) {
    let content = db.content();
    let had_schema = db.has_rekey_schema();
    for command in [["run", "--workers=2"], ["run", "--dry-run"]] {
        let mut rekey = rekey(db, command).without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY");
        if let Some(old) = old {
            rekey = rekey.env("ENCRYPTION_KEY", old);
        }
        if let Some(new) = new {
            rekey = rekey.env("NEW_ENCRYPTION_KEY", new);
        }
        let outcome = rekey.exits(3);
        let secrets: Vec<&str> =
            [old, new, Some(OLD), Some(NEW)].into_iter().flatten().filter(|key| key.len() > 8).collect();
        outcome.says_none_of(&secrets);
        assert_eq!(db.content(), content, "{outcome}");
        assert_eq!(db.has_rekey_schema(), had_schema, "{outcome}");
    }
}

#[test]
fn a_missing_or_malformed_key() {
    let db = loaded();
    refused(&db, None, Some(NEW));
    refused(&db, Some(OLD), None);
    refused(&db, Some(OLD), Some(""));
    refused(&db, Some(OLD), Some(&NEW[..31]));
    refused(&db, Some(OLD), Some(&format!("{NEW}x")));
    refused(&db, Some(&OLD[..31]), Some(NEW));
    refused(&db, Some(&format!("{OLD}x")), Some(NEW));
    // 32 characters, but more than 32 bytes.
    refused(&db, Some(OLD), Some("pä5swörd-with-32-chars-Zk8v2Qx7_"));
}

#[test]
fn the_same_key_twice() {
    refused(&loaded(), Some(OLD), Some(OLD));
}

#[test]
fn an_old_key_that_opens_nothing() {
    refused(&loaded(), Some(OTHER), Some(NEW));
}

#[test]
fn keys_the_wrong_way_round_at_the_start() {
    refused(&loaded(), Some(NEW), Some(OLD));
}

#[test]
fn a_published_key_or_a_placeholder_as_the_new_key() {
    let db = loaded();
    refused(&db, Some(OLD), Some("test-key-for-encryption-32-ch!@#"));
    refused(&db, Some(OLD), Some("ci-key-for-encryption-test-32!@#"));
    refused(&db, Some(OLD), Some("this-is-way-too-long-for-aes-256"));
    refused(&db, Some(OLD), Some("your-encryption-key-will-be-generated-by-make-keys"));
    refused(&db, Some(OLD), Some("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

/// As the old key it is accepted with a warning: that is how one gets off it.
#[test]
fn a_published_key_as_the_old_key_warns() {
    let db = Db::new();
    let published = "test-key-for-encryption-32-ch!@#";
    Load::rows(200).key(published).into(&db);
    let mut judge = Judge::look(&db, &[published]);
    rekey(&db, ["run"]).env("ENCRYPTION_KEY", published).exits(0);
    judge.all_on(&db, NEW);
}

/// Half-way through a rotation: only its own two keys, in their own roles, may go on with it.
#[test]
fn other_keys_on_resume() {
    let db = loaded();
    db.mark();
    db.slow_batches(Duration::from_millis(100));
    let mut judge = Judge::look(&db, &[OLD]);
    let run = run_in_small_steps(&db).start();
    db.wait_moved(100);
    run.kill();
    db.wait_alone();
    db.fast_commits();
    refused(&db, Some(OLD), Some(OTHER));
    refused(&db, Some(OTHER), Some(NEW));
    refused(&db, Some(NEW), Some(OLD));
    refused(&db, Some(OLD), Some(OLD));
    for command in ["verify", "rollback"] {
        let content = db.content();
        let outcome = rekey(&db, [command]).env("ENCRYPTION_KEY", OTHER).env("NEW_ENCRYPTION_KEY", OTHER);
        let outcome = if command == "rollback" { outcome.args(["--yes"]) } else { outcome };
        outcome.exits(3).says_none_of(&[OTHER]);
        assert_eq!(db.content(), content);
    }
    run_in_small_steps(&db).exits(0);
    judge.all_on(&db, NEW);
}

#[test]
fn a_key_typed_where_its_name_belongs_is_refused_without_an_echo() {
    let db = loaded();
    for flag in ["--new-key", "--old-key"] {
        rekey(&db, ["run", flag, OTHER]).exits(2).says_none_of(&[OTHER]);
        assert!(!db.has_rekey_schema());
    }
    rekey_without_database(["run"])
        .env("DATABASE_URL", &db.url)
        .env("REKEY_OLD_KEY", OTHER)
        .env("REKEY_NEW_KEY", "env:NEW_ENCRYPTION_KEY")
        .exits(2)
        .says_none_of(&[OTHER]);
}

#[test]
fn keys_from_files_and_dotenv_files() {
    let db = loaded();
    let mut judge = Judge::look(&db, &[OLD]);
    let folder = tempfile::tempdir().unwrap();
    let (plain, dotenv) = (folder.path().join("new.key"), folder.path().join(".env.prod"));
    // One trailing newline is dropped: editors put it there.
    std::fs::write(&plain, format!("{NEW}\n")).unwrap();
    let mut file = std::fs::File::create(&dotenv).unwrap();
    writeln!(file, "# the application's\nSECRET_KEY=whatever\nexport OTHER=1\nENCRYPTION_KEY=\"{OLD}\"")
        .unwrap();
    let old = format!("dotenv:{}#ENCRYPTION_KEY", dotenv.display());
    let new = format!("file:{}", plain.display());
    let without =
        |rekey: crate::support::Rekey| rekey.without("ENCRYPTION_KEY").without("NEW_ENCRYPTION_KEY");
    without(rekey(&db, ["run", "--old-key", &old, "--new-key", &new])).exits(0);
    judge.all_on(&db, NEW);
    without(rekey(&db, ["verify"]).env("REKEY_OLD_KEY", &old).env("REKEY_NEW_KEY", &new)).exits(0);
    without(rekey(&db, ["run", "--old-key", &old, "--new-key", "file:/nonexistent/key"])).exits(3);
    without(rekey(
        &db,
        ["run", "--old-key", &format!("dotenv:{}#ABSENT", dotenv.display()), "--new-key", &new],
    ))
    .exits(3);
}

/// Nothing of a key or a credential, however much is logged.
#[test]
fn no_secret_in_the_logs_at_trace() {
    let db = Db::new();
    Load::rows(120).mixed().into(&db);
    let ids = crate::support::load::some_ids(&db, 30, 1);
    let plaintexts: Vec<String> = ids
        .iter()
        .map(|&id| String::from_utf8(crate::support::judge::open_row(&db, id, OLD).unwrap()).unwrap())
        .collect();
    let tokens: Vec<&str> = plaintexts.iter().map(|text| &text[20..text.len().min(50)]).collect();
    for command in [["run", "--log-format=json"], ["verify", "--log-format=json"], ["rollback", "--yes"]] {
        let outcome = rekey(&db, command).env("RUST_LOG", "trace").exits(0);
        outcome.says_none_of(&[OLD, NEW]);
        outcome.says_none_of(&tokens);
    }
}

/// Both keys are named: how the application is set up is none of our business.
#[test]
fn named_keys_need_no_settings_of_the_application() {
    let db = Db::new();
    Load::rows(20).into(&db);
    for (backend, name) in [("aws", None), ("vault", Some("x"))] {
        let named = ["plan", "--old-key", "env:A", "--new-key", "env:B"];
        let plan = rekey(&db, named).env("A", OLD).env("B", NEW).env("SECRETS_BACKEND", backend);
        let plan = name.into_iter().fold(plan, |plan, name| plan.env("AWS_SECRET_NAME", name));
        plan.exits(0);
    }
}

/// The oldest rows, which have the smallest ids, are on a key that is lost: most of the first rows open with neither.
#[test]
fn a_bad_beginning_is_a_wrong_key_unless_it_is_known() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    db.execute(
        "UPDATE provider_connections SET encrypted_credentials = sha512(id::text::bytea) \
         WHERE id IN (SELECT id FROM provider_connections ORDER BY id LIMIT 900)",
    );
    let mut judge = Judge::look(&db, &[OLD]);
    for command in ["plan", "run"] {
        let refused = rekey(&db, [command]).exits(3);
        assert!(format!("{refused}").contains("--allow first-batch"), "{refused}");
    }
    judge.none_lost(&db, &[OLD]);
    rekey(&db, ["run", "--allow", "first-batch"]).exits(5);
    judge.none_lost(&db, &[NEW]);
}
