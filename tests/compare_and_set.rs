//! The one statement that overwrites a credential, on a real table: it matches the very version that was decrypted,
//! by xmin **and** by IV. What makes xmin alone ambiguous, an id reused after a crash that lost asynchronous commits,
//! is arranged from outside in `engine lost_commits::reused`; here it is said directly.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use rekey::crypto::Tag;
use rekey::rotation::Tid;
use rekey::store::rehearsal::Rehearsal;
use rekey::store::rows::Write;
use rekey::store::{Connector, Dsn, Purpose, Xid};
use sqlx::Row as _;
use support::load::Load;
use support::{Db, block_on};
use uuid::Uuid;

struct Row {
    id: Uuid,
    xmin: Xid,
    iv: [u8; 12],
}

/// Any row, as it is now.
fn one(db: &Db) -> Row {
    let sql = "SELECT id, xmin, substr(encrypted_credentials, 1, 12) FROM provider_connections LIMIT 1";
    let read = block_on(sqlx::query(sql).fetch_one(db.pool())).unwrap();
    let iv: [u8; 12] = read.get::<Vec<u8>, _>(2).try_into().unwrap();
    Row { id: read.get(0), xmin: read.get(1), iv }
}

/// Tries to write a row as if it had been read like that; true if it was written.
fn written(db: &Db, row: &Row, free: bool) -> bool {
    let tid = Tid { block: 0, offset: 1 };
    let tag = Tag::from_bytes([0; Tag::LEN]);
    let (xmin, iv, envelope) = (row.xmin, row.iv, vec![7; 60]);
    let new = Write { id: row.id, tid, on_page: 64, xmin, iv, envelope, tag };
    let dsn = Dsn::parse(&db.url).unwrap();
    let connector = Connector::new(&dsn, Duration::from_secs(5), Duration::from_secs(30));
    block_on(async {
        let mut conn = connector.connect(Purpose::Write).await.unwrap();
        let mut rehearsal = Rehearsal::begin(&mut conn, &connector).await.unwrap();
        let done = if free {
            rehearsal.write_free(&[&new]).await.unwrap().written.len() as u64
        } else {
            rehearsal.write(&[new]).await.unwrap()
        };
        rehearsal.roll_back().await.unwrap();
        done == 1
    })
}

#[test]
fn only_the_very_version_that_was_read_is_overwritten() {
    let db = Db::new();
    Load::rows(3).into(&db);
    let row = one(&db);
    for free in [false, true] {
        assert!(written(&db, &row, free));
        assert!(!written(&db, &Row { xmin: Xid(row.xmin.0 + 1), ..row }, free), "another version");
        assert!(!written(&db, &Row { iv: [9; 12], ..row }, free), "the same xmin, another credential");
        assert!(!written(&db, &Row { id: Uuid::new_v4(), ..row }, free), "another row");
    }
}

/// None of these writes a row: what was read before it is still the version that is there. xmin reads the same after a
/// row was frozen, and a row that was locked for a while has an xmax, not another xmin.
#[test]
fn maintenance_and_row_locks_change_no_version() {
    let db = Db::new();
    Load::rows(3).into(&db);
    let row = one(&db);
    for step in [
        "BEGIN; SELECT id FROM provider_connections FOR UPDATE; COMMIT",
        "BEGIN; SELECT id FROM provider_connections FOR KEY SHARE; COMMIT",
        "VACUUM (FREEZE) provider_connections",
        "VACUUM FULL provider_connections",
        "CLUSTER provider_connections USING provider_connections_pkey",
    ] {
        db.execute(step);
        assert!(written(&db, &row, false) && written(&db, &row, true), "after {step}");
    }
}
