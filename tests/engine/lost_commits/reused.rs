//! One transaction id, two writes of the application to the same rows: the first is lost, and a run had read it and had
//! still to write it. Its xmin cannot tell the two apart.

use rustix::process::Signal;
use uuid::Uuid;

use super::{Pair, next_transaction, uncounted};
use crate::support::load::{Load, fresh_iv};
use crate::support::{
    Cipher, Cluster, Db, Hold, Judge, NEW, OLD, Rekey, Running, SOON, Stop, block_on, rekey, until,
};

/// Three tenths of it are how long rekey waits for a lock, and here that is as long as it takes.
const DEADLOCK_TIMEOUT: &str = "60s";
/// Rows in the table.
const ROWS: u64 = 1000;
/// Of them, rows in the application's transaction.
const REFRESHED: usize = 100;

/// The table in one chunk, read by one statement, and then written for some seconds.
fn in_one_chunk(db: &Db) -> Rekey {
    rekey(db, ["run", "--workers", "1", "--chunk-rows", "8000", "--max-rate", "200", "--lease-ttl", "5m"])
        .args(super::UNHINDERED)
}

/// What the application does in one transaction: a fresh credential for each of these rows.
const REFRESH: &str = "UPDATE provider_connections t SET encrypted_credentials = u.c \
    FROM unnest($1::uuid[], $2::bytea[]) u(id, c) WHERE t.id = u.id";

fn sealed(ids: &[Uuid], plaintext: &[u8]) -> Vec<Vec<u8>> {
    let cipher = Cipher::new(OLD);
    ids.iter().map(|_| cipher.seal(fresh_iv(), plaintext)).collect()
}

/// A transaction of the application's that is about to be lost.
struct Doomed {
    xid: i64,
    /// Its rows that the run has read as it left them, and has not written yet.
    ids: Vec<Uuid>,
    /// Keeps the run's heartbeat from committing: it waits for the disk, and would take everything before it there.
    _heartbeat: Hold,
}

/// Has a run that is under way read rows as the application left them a moment ago, and freezes it before it writes
/// them. From `hush` on nothing that is committed may outlive the server.
fn read_but_not_written(db: &Db, run: &Running, hush: impl FnOnce()) -> Doomed {
    db.wait_moved(1);
    rekey(db, ["pause"]).exits(0);
    db.wait_at_rest();
    let ids: Vec<Uuid> = db.column(&format!(
        "SELECT id FROM provider_connections JOIN judge.mark USING (id)
         WHERE substr(encrypted_credentials, 1, 12) = iv ORDER BY id DESC LIMIT {REFRESHED}"
    ));
    // The chunk is in the ledger already: between its claim and the reading of its rows nothing is committed.
    let mut application = db.hold();
    application.execute(sqlx::query("LOCK TABLE provider_connections IN ACCESS EXCLUSIVE MODE"));
    let pid = application.pid();
    rekey(db, ["resume"]).exits(0);
    until("the worker to come for its rows", SOON, || db.is_waited_for(pid).then_some(()));
    let mut heartbeat = db.hold();
    heartbeat.execute(sqlx::query("SELECT process FROM rekey.processes FOR UPDATE"));
    // A heartbeat that was just over may have a sample to record.
    heartbeat.execute(sqlx::query("LOCK TABLE rekey.samples IN SHARE MODE"));
    hush();
    application.execute(sqlx::query("SET LOCAL synchronous_commit = off"));
    // An id of its own: that of the lock may have left the server since.
    application.execute(sqlx::query("SAVEPOINT application"));
    let text = b"{\"access_token\":\"refreshed before the crash\"}";
    application.execute(sqlx::query(REFRESH).bind(&ids).bind(sealed(&ids, text)));
    let xid: i64 = application
        .value(&format!("SELECT xmin::text::bigint FROM provider_connections WHERE id = '{}'", ids[0]));
    application.commit();
    // A chunk's rows are written once all of them are read.
    let later = format!("SELECT EXISTS (SELECT FROM provider_connections WHERE xmin::text::bigint > {xid})");
    until("the chunk's first batch", SOON, || db.value::<bool>(&later).then_some(()));
    run.signal(Signal::STOP);
    let ids: Vec<Uuid> =
        db.column(&format!("SELECT id FROM provider_connections WHERE xmin::text::bigint = {xid}"));
    assert!(ids.len() >= REFRESHED / 2, "only {} rows are still to be written", ids.len());
    Doomed { xid, ids, _heartbeat: heartbeat }
}

/// The application writes the same rows again, in a transaction that is given the same id.
fn write_again(db: &Db, doomed: &Doomed, judge: &mut Judge) {
    let next = next_transaction(db);
    assert!(next <= doomed.xid, "the next id is {next}: {} was not lost", doomed.xid);
    for _ in next..doomed.xid {
        db.execute("SELECT pg_current_xact_id()");
    }
    let text = b"{\"access_token\":\"refreshed after the crash\"}";
    let refresh = sqlx::query(REFRESH).bind(&doomed.ids).bind(sealed(&doomed.ids, text));
    block_on(refresh.execute(db.pool())).expect("an update");
    let ids = doomed.ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    let xids: Vec<i64> = db
        .column(&format!("SELECT DISTINCT xmin::text::bigint FROM provider_connections WHERE id IN ({ids})"));
    assert_eq!(xids, [doomed.xid], "one id for both writes");
    doomed.ids.iter().for_each(|id| judge.expect(*id, text));
}

/// The run goes on: what the application wrote last is there, on the new key.
fn goes_on(db: &Db, run: Running, judge: &mut Judge) {
    run.signal(Signal::CONT);
    run.wait().expect(0);
    judge.all_on(db, NEW);
    assert_eq!(uncounted(db), 0);
    assert_eq!(rekey(db, ["verify"]).json(0)["clean"], true);
}

#[test]
fn a_crash_gives_the_id_of_a_lost_write_to_the_next_one() {
    let cluster = Cluster::with(&format!(
        "autovacuum = off\nbgwriter_lru_maxpages = 0\ncheckpoint_timeout = 1h\ndeadlock_timeout = {DEADLOCK_TIMEOUT}"
    ));
    let db = Db::on(&cluster);
    Load::rows(ROWS).into(&db);
    db.mark();
    let mut judge = Judge::look(&db, &[OLD]);
    let run = in_one_chunk(&db).start();
    let mut before = String::new();
    let doomed = read_but_not_written(&db, &run, || {
        cluster.freeze_wal_writer();
        before = db.value("SELECT pg_current_wal_insert_lsn()::text");
    });
    let written: bool = db.value(&format!("SELECT pg_current_wal_lsn() > '{before}'::pg_lsn"));
    assert!(!written, "a later commit took it to a file");
    cluster.stop(Stop::Crash);
    cluster.boot();
    judge.none_lost(&db, &[OLD, NEW]);
    write_again(&db, &doomed, &mut judge);
    goes_on(&db, run, &mut judge);
}

/// The same where a standby takes over that never heard of that id.
#[test]
fn a_standby_gives_the_id_of_a_lost_write_to_the_next_one() {
    let pair =
        Pair::with(&format!("autovacuum = off\ndeadlock_timeout = {DEADLOCK_TIMEOUT}"), Load::rows(ROWS));
    let mut judge = Judge::look(&pair.primary, &[OLD]);
    let run = in_one_chunk(&pair.primary).env("DATABASE_URL", pair.address.url(&pair.primary)).start();
    let doomed = read_but_not_written(&pair.primary, &run, || {
        pair.catch_up();
        pair.cut();
    });
    pair.fail_over();
    judge.none_lost(&pair.standby, &[OLD, NEW]);
    write_again(&pair.standby, &doomed, &mut judge);
    goes_on(&pair.standby, run, &mut judge);
}
