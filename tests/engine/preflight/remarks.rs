//! A remark in a database that cannot hold its characters fails nothing: what does not fit is written out.

use crate::support::load::{Load, some_ids, store_raw};
use crate::support::{Cluster, Db, Judge, NEW, OLD, rekey};

const REMARK: &str = "2026 – Q3 😀 für Müller";

/// A database in another encoding, with all that the application's has.
fn in_encoding(cluster: &Cluster, name: &str, encoding: &str) -> Db {
    Db::on(cluster).execute(&format!(
        "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    ));
    let db = Db::existing(cluster, name);
    db.execute(include_str!("../../../fixtures/schema.sql"));
    Load::rows(200).into(&db);
    db
}

#[test]
fn a_remark_that_the_database_cannot_hold() {
    let cluster = Cluster::start();
    for (encoding, held) in [
        ("LATIN1", "2026 <U+2013> Q3 <U+1F600> für Müller"),
        ("LATIN2", "2026 <U+2013> Q3 <U+1F600> f<U+00FC>r M<U+00FC>ller"),
        ("SQL_ASCII", REMARK),
    ] {
        let db = in_encoding(&cluster, &encoding.to_lowercase(), encoding);
        let unreadable = some_ids(&db, 1, 1)[0];
        let mut judge = Judge::look(&db, &[OLD]);
        let command = |words: &[&str]| {
            rekey(&db, []).more(words).env("REKEY_REASON", REMARK).env("REKEY_OPERATOR", "Zoë –")
        };
        command(&["init"]).exits(0);
        command(&["plan"]).exits(0);
        command(&["run"]).exits(0);
        judge.all_on(&db, NEW);
        for words in [&["pause"][..], &["resume"], &["abort"], &["verify"], &["status"], &["report"]] {
            command(words).exits(0);
        }
        command(&["rollback", "--yes"]).exits(0);
        judge.all_on(&db, OLD);
        let reasons: Vec<Option<String>> =
            db.column("SELECT DISTINCT reason FROM rekey.events WHERE action = 'start'");
        assert_eq!(reasons, [Some(held.to_owned())], "{encoding}");

        store_raw(&db, unreadable, b"?");
        command(&["run"]).exits(5);
        command(&["quarantine", "accept", &unreadable.to_string(), "--yes", "--reason", REMARK]).exits(0);
        command(&["run"]).exits(0);
        let told: i64 = db.value("SELECT count(*) FROM audit_logs WHERE context->>'reason' LIKE '2026%'");
        assert!(told > 0, "{encoding}");
    }
}
