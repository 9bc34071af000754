//! Publications: for all tables, with row filters and column lists, and without a replica identity that fits.

use super::refused;
use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, SOON, rekey, until};

fn loaded(rows: u64) -> Db {
    let db = Db::new();
    Load::rows(rows).into(&db);
    db
}

/// A publisher and a live subscriber; rekey's own tables would stop the replication for good.
#[test]
fn a_publication_for_all_tables_is_named_before_anything_is_created() {
    let settings = "wal_level = logical";
    let (publisher, subscriber) = (Cluster::with(settings), Cluster::with(settings));
    let (db, copy) = (Db::on(&publisher), Db::on(&subscriber));
    Load::rows(100).into(&db);
    db.execute("CREATE PUBLICATION everything FOR ALL TABLES");
    let plan = rekey(&db, ["plan"]).json(0);
    let warned = plan["findings"].as_array().expect("findings").iter().any(|f| f["name"] == "all-tables");
    assert!(warned, "{plan:#}");

    let connection = format!("host=127.0.0.1 port={} user=postgres dbname={}", publisher.port(), db.name);
    copy.execute(&format!("CREATE SUBSCRIPTION live CONNECTION '{connection}' PUBLICATION everything"));
    let refusal = refused(&db, "all-tables");
    assert!(refusal.stderr.contains("FOR TABLES IN SCHEMA public"), "{refusal}");
    let init = rekey(&db, ["init"]).exits(4);
    assert!(init.stderr.contains("all-tables") && !db.has_rekey_schema(), "{init}");

    // The second remedy, word for word: the subscriber gets the tables first, empty.
    copy.execute(&rekey(&db, ["init", "--print-sql"]).exits(0).stdout);
    copy.execute("TRUNCATE rekey._sqlx_migrations, rekey.chain");
    rekey(&db, ["init", "--allow", "all-tables"]).exits(0);
    copy.execute("ALTER SUBSCRIPTION live REFRESH PUBLICATION");
    let mut judge = Judge::look(&db, &[OLD]);
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
    let content =
        "SELECT md5(string_agg(encrypted_credentials::text, '' ORDER BY id)) FROM provider_connections";
    until("the subscriber to follow", SOON, || {
        (copy.value::<Option<String>>(content) == db.value::<Option<String>>(content)).then_some(())
    });
    copy.execute("ALTER SUBSCRIPTION live DISABLE; ALTER SUBSCRIPTION live SET (slot_name = NONE)");
    copy.execute("DROP SUBSCRIPTION live");
}

#[test]
fn a_publication_that_refuses_every_update_is_refused() {
    for (setup, told) in [
        (
            "CREATE PUBLICATION part FOR TABLE provider_connections WHERE (status = 'active')",
            "row filter names a column outside",
        ),
        (
            "CREATE PUBLICATION part FOR TABLE provider_connections (provider_slug, encrypted_credentials)",
            "column list leaves out",
        ),
        (
            "CREATE PUBLICATION part FOR TABLE provider_connections (id, encrypted_credentials);
             ALTER TABLE provider_connections REPLICA IDENTITY FULL",
            "column list leaves out",
        ),
        (
            "CREATE PUBLICATION everything FOR ALL TABLES; ALTER TABLE provider_connections ADD UNIQUE (id, user_id);
             ALTER TABLE provider_connections REPLICA IDENTITY USING INDEX provider_connections_id_user_id_key;
             ALTER TABLE provider_connections DROP CONSTRAINT provider_connections_id_user_id_key",
            "the index of its replica identity was dropped",
        ),
        (
            "CREATE PUBLICATION part FOR TABLES IN SCHEMA public;
             ALTER TABLE provider_connections DROP CONSTRAINT provider_connections_pkey;
             ALTER TABLE provider_connections ADD PRIMARY KEY (id) DEFERRABLE",
            "its primary key is deferrable",
        ),
        (
            "CREATE PUBLICATION part FOR TABLE provider_connections; ALTER TABLE provider_connections REPLICA IDENTITY NOTHING",
            "it has no replica identity",
        ),
    ] {
        let db = loaded(20);
        db.execute(setup);
        // The server says so, too.
        let update = "WITH u AS (UPDATE provider_connections SET encrypted_credentials = encrypted_credentials RETURNING 1)
                      SELECT count(*) FROM u";
        db.try_value::<i64>(update).expect_err(setup);
        let refusal = refused(&db, "replica-identity");
        assert!(refusal.stderr.contains(told), "{setup}: {refusal}");
    }
}

#[test]
fn a_publication_that_fits_warns_and_the_run_goes_on() {
    for setup in [
        "CREATE PUBLICATION part FOR TABLE provider_connections WHERE (id <> '00000000-0000-0000-0000-000000000000')",
        "CREATE PUBLICATION part FOR TABLE provider_connections (id, encrypted_credentials)",
        "CREATE PUBLICATION part FOR TABLE provider_connections WHERE (status = 'active');
         ALTER TABLE provider_connections REPLICA IDENTITY FULL",
        "CREATE PUBLICATION part FOR TABLE provider_connections WHERE (status = 'active') WITH (publish = 'insert')",
    ] {
        let db = loaded(60);
        db.execute(setup);
        let mut judge = Judge::look(&db, &[OLD]);
        rekey(&db, ["plan"]).exits(0);
        rekey(&db, ["run"]).exits(0);
        judge.all_on(&db, NEW);
    }
}
