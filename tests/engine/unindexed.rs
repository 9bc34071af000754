//! Rows that the index of the primary key does not lead to: no run calls that done, no verify calls it clean, and both say
//! what to do.

use std::time::Duration;

use uuid::Uuid;

use crate::support::credentials::Ids;
use crate::support::load::{Load, insert};
use crate::support::{Db, Judge, NEW, OLD, OTHER, rekey, state};

const REINDEX: &str = "REINDEX INDEX CONCURRENTLY public.provider_connections_pkey";

/// Does `work` while the index takes no entries, as one that is half built.
fn behind_the_index(db: &Db, work: impl FnOnce()) {
    let index = |is: bool| {
        db.execute(&format!(
            "SET allow_system_table_mods = on; UPDATE pg_index SET indisready = {is}, indisvalid = {is}
             WHERE indexrelid = 'provider_connections_pkey'::regclass; RESET allow_system_table_mods"
        ));
    };
    index(false);
    work();
    index(true);
}

/// A row, and what it holds, for the judge.
fn hidden(db: &Db, key: &str, plaintext: &[u8]) -> Uuid {
    let id = Uuid::now_v7();
    behind_the_index(db, || insert(db, id, key, plaintext));
    id
}

fn refused(db: &Db, steps: [&str; 4], id: Uuid) {
    let run = rekey(db, ["run"]).args(steps).exits(4);
    assert!(run.stderr.contains(REINDEX) && run.stderr.contains(&id.to_string()), "{run}");
}

fn reindexed(db: &Db, judge: &mut Judge) {
    db.execute("REINDEX INDEX provider_connections_pkey");
    rekey(db, ["run"]).exits(0);
    judge.all_on(db, NEW);
    rekey(db, ["verify"]).exits(0);
}

/// A dry run reads by keys, and would not have met it.
#[test]
fn a_row_that_a_dry_run_counts() {
    let db = Db::new();
    Load::rows(600).nulls(5).into(&db);
    let id = hidden(&db, OLD, b"{\"api_key\":\"nobody finds it\"}");
    let dry = rekey(&db, ["run", "--dry-run"]).exits(4);
    assert!(dry.stderr.contains(REINDEX) && dry.stderr.contains(&id.to_string()), "{dry}");
    db.execute("REINDEX INDEX provider_connections_pkey");
    rekey(&db, ["run", "--dry-run"]).exits(0);
}

const STEPS: [&str; 4] = ["--batch-rows", "100", "--workers", "2"];

/// A run that walks by keys never meets it, and it is older than the run.
#[test]
fn a_row_from_before_a_run_by_keys() {
    let db = Db::new();
    Load::rows(600).nulls(5).into(&db);
    let id = hidden(&db, OLD, b"{\"api_key\":\"nobody finds it\"}");
    let mut judge = Judge::look(&db, &[OLD]);
    refused(&db, STEPS, id);
    assert_eq!(state(&db), "migrating");
    refused(&db, STEPS, id);
    reindexed(&db, &mut judge);
}

/// One that walks by blocks meets it, and cannot write it; the larger one it reads by itself. Nor does it leave one alone that
/// is on the new key, or on none: whoever looks for it by id takes it for deleted.
#[test]
fn rows_from_before_a_run_by_blocks() {
    for (key, bytes) in [(OLD, 200), (OLD, 20_000), (NEW, 200), (OTHER, 200)] {
        let db = Db::new();
        Load::rows(1300).bytes(1500).ids(Ids::V4).into(&db);
        let id = hidden(&db, key, &vec![b'x'; bytes]);
        refused(&db, ["--chunk-rows", "200", "--batch-rows", "50"], id);
        assert_eq!(db.value::<String>("SELECT addressing FROM rekey.passes WHERE pass = 1"), "blocks");
        db.execute("REINDEX INDEX provider_connections_pkey");
        rekey(&db, ["run"]).exits(if key == OTHER { 5 } else { 0 });
        rekey(&db, ["verify"]).exits(if key == OTHER { 5 } else { 0 });
    }
}

/// A writer's, saved while the run works: the closing proof lists it by place.
#[test]
fn a_row_saved_during_a_run() {
    for with_trigger in [false, true] {
        let db = Db::new();
        Load::rows(600).into(&db);
        db.slow_batches(Duration::from_millis(20));
        if with_trigger {
            db.execute(
                "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
                 CREATE TRIGGER nothing AFTER UPDATE ON provider_connections FOR EACH STATEMENT EXECUTE FUNCTION nothing()",
            );
        }
        db.mark();
        let holder = db.hold_last();
        let more = ["--allow", "user-triggers", "--batch-rows", "50"];
        let run = rekey(&db, ["run"]).args(more).start();
        db.wait_moved(400);
        let id = hidden(&db, OLD, b"{\"api_key\":\"a late writer's\"}");
        let mut judge = Judge::look(&db, &[OLD, NEW]);
        holder.rollback();
        let run = run.wait().expect(4);
        assert!(run.stderr.contains(REINDEX) && run.stderr.contains(&id.to_string()), "{run}");
        db.execute("DROP TRIGGER IF EXISTS nothing ON provider_connections");
        reindexed(&db, &mut judge);
    }
}

/// A run of a rotation that is migrated looks only at what was written since, unless a verify has named more: then it walks
/// over the whole table, and says why where it cannot move a row.
#[test]
fn a_row_that_a_verify_names_is_moved_whatever_its_age() {
    for indexed in [true, false] {
        let db = Db::new();
        Load::rows(600).into(&db);
        rekey(&db, ["run"]).exits(0);
        let id = Uuid::now_v7();
        let save = || insert(&db, id, OLD, b"{\"api_key\":\"nobody finds it\"}");
        if indexed {
            save()
        } else {
            behind_the_index(&db, save)
        }
        // As if it had been there when the closing proof was made.
        db.execute("UPDATE rekey.passes SET next_horizon = pg_current_xact_id()");
        let mut judge = Judge::look(&db, &[OLD, NEW]);
        rekey(&db, ["run"]).exits(0);
        assert_eq!(rekey(&db, ["verify"]).json(6)["wrong_key"], 1);
        if !indexed {
            refused(&db, STEPS, id);
            refused(&db, STEPS, id);
        }
        reindexed(&db, &mut judge);
    }
}

#[test]
fn a_row_saved_after_a_run() {
    let db = Db::new();
    Load::rows(600).into(&db);
    rekey(&db, ["run"]).exits(0);
    let id = hidden(&db, OLD, b"{\"api_key\":\"nobody finds it\"}");
    let mut judge = Judge::look(&db, &[OLD, NEW]);
    let found = rekey(&db, ["verify"]).json(6);
    assert_eq!((&found["wrong_key"], &found["unseen"]), (&1.into(), &1.into()), "{found:#}");
    assert_eq!(found["index"], "public.provider_connections_pkey", "{found:#}");
    assert!(found["next"][0].as_str().unwrap().contains("REINDEX"), "{found:#}");
    refused(&db, STEPS, id);
    let text = rekey(&db, ["verify"]).exits(6);
    assert!(text.stdout.contains(REINDEX) && text.stdout.contains(&id.to_string()), "{text}");
    reindexed(&db, &mut judge);
}

/// It is where it should be, and yet whoever looks for it by id does not find it.
#[test]
fn a_row_on_the_right_key() {
    let db = Db::new();
    Load::rows(600).nulls(5).into(&db);
    rekey(&db, ["run"]).exits(0);
    let id = hidden(&db, NEW, b"{\"api_key\":\"nobody finds it\"}");
    let found = rekey(&db, ["verify"]).json(6);
    assert_eq!((&found["wrong_key"], &found["unseen"]), (&0.into(), &1.into()), "{found:#}");
    assert_eq!(found["examples"]["unseen"][0], id.to_string(), "{found:#}");
    let promoted = rekey(&db, ["promote", "--yes", "--external"]).exits(6);
    assert!(promoted.stderr.contains(REINDEX), "{promoted}");
    db.execute("REINDEX INDEX provider_connections_pkey");
    rekey(&db, ["verify"]).exits(0);
}
