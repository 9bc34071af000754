//! Signals that cannot be read: refused before the run, unless told otherwise; and only where they apply.

use super::gentle;
use crate::replica::pair;
use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, rekey};

/// The URL of a role that owns nothing and may do just enough.
fn plain(db: &Db) -> (String, String) {
    let role = format!("{}_plain", db.name);
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role};
         GRANT SELECT, UPDATE ON provider_connections TO {role}; GRANT SELECT, INSERT ON audit_logs TO {role}",
        db.name
    ));
    (db.url.replace("postgres@", &format!("{role}@")), role)
}

#[test]
fn lag_that_may_not_be_seen_is_refused_unless_told_otherwise() {
    let pair = pair(1500);
    let db = &pair.primary;
    let (url, role) = plain(db);
    let mut judge = Judge::look(db, &[OLD]);
    let refused = rekey(db, ["run"]).env("DATABASE_URL", &url).exits(4);
    let remedy = format!("GRANT pg_monitor TO {role}");
    assert!(refused.stderr.contains("monitoring: ") && refused.stderr.contains(&remedy), "{refused}");
    assert!(!db.has_rekey_schema());

    rekey(db, ["run", "--allow", "monitoring"]).env("DATABASE_URL", &url).exits(0);
    judge.all_on(db, NEW);
    // A rollback is stopped by as little as possible.
    rekey(db, ["rollback", "--yes"]).env("DATABASE_URL", &url).exits(0);
    judge.all_on(db, OLD);
    let off = ["--max-replica-lag", "off", "--max-replica-lag-bytes", "off"];
    rekey(db, ["run"]).args(off).env("DATABASE_URL", &url).exits(0);
    rekey(db, ["rollback", "--yes"]).env("DATABASE_URL", &url).exits(0);
    db.execute(&remedy);
    rekey(db, ["run"]).env("DATABASE_URL", &url).exits(0);
    judge.all_on(db, NEW);
}

/// A server whose storage replicates itself refuses to say where its WAL ends: there is nothing to watch, then.
#[test]
fn a_server_without_wal_to_speak_of_is_no_reason_to_wait() {
    let db = Db::new();
    Load::rows(300).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    db.execute(
        "CREATE SCHEMA elsewhere;
         CREATE FUNCTION elsewhere.pg_current_wal_lsn() RETURNS pg_lsn LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'currently not supported' USING ERRCODE = 'feature_not_supported'; END $$",
    );
    db.execute(&format!("ALTER DATABASE {} SET search_path = elsewhere, pg_catalog, public", db.name));
    rekey(&db, ["plan"]).exits(0);
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
}

/// Not for ever: it ends with the remedy, and the checkpoint is there.
#[test]
fn a_replica_that_appears_midway_and_may_not_be_seen_ends_the_run() {
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    Load::rows(4000).into(&db);
    db.mark();
    let (url, role) = plain(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let run = gentle(&db).args(["--retry-for", "3s"]).env("DATABASE_URL", &url).start();
    db.wait_moved(100);
    let _standby = cluster.standby();
    let ended = run.wait().expect(4);
    assert!(ended.stderr.contains(&format!("GRANT pg_monitor TO {role}")), "{ended}");
    judge.none_lost(&db, &[OLD, NEW]);
    db.execute(&format!("GRANT pg_monitor TO {role}"));
    rekey(&db, ["run"]).env("DATABASE_URL", &url).exits(0);
    judge.all_on(&db, NEW);
}
