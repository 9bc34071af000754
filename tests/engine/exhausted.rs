//! The server runs out of something: disk for the table, disk for the WAL, connections. What passes is waited for,
//! what does not ends with 69, and the next run finishes.
//!
//! A full disk is a small tmpfs; without the right to mount one those tests are skipped, said aloud.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use crate::support::cluster::server_user;
use crate::support::load::Load;
use crate::support::{
    Cluster, Db, Judge, NEW, OLD, SOON, Stop, block_on, rekey, run_in_small_steps, total, until,
};

/// A small file system of its own. Dropped, it is unmounted: drop the cluster before it.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// One of `megabytes`; nothing, said aloud, where none may be mounted.
    fn of(megabytes: u32) -> Option<Disk> {
        let folder = tempfile::Builder::new().prefix("rekey-disk-").tempdir().expect("a folder");
        let (user, group) = server_user().unwrap_or_default();
        let options = format!("size={megabytes}m,mode=0700,uid={user},gid={group}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            crate::support::skipped(format_args!("1 test, no tmpfs may be mounted here (root may)"));
            return None;
        }
        Some(Disk { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).expect("a file");
        let zeros = [0; 4096];
        while file.write_all(&zeros).is_ok() {}
    }

    /// Gives it all back.
    fn free(&self) {
        fs::remove_file(self.ballast()).expect("the ballast goes");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.path()).status().ok();
    }
}

#[test]
fn the_disk_of_the_table_is_full() {
    let Some(disk) = Disk::of(64) else { return };
    let cluster = Cluster::start();
    let db = Db::on(&cluster);
    db.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display()));
    db.execute("ALTER TABLE provider_connections SET TABLESPACE small");
    // A table packed to the last page, which the first wave of a chunk must extend.
    Load::rows(6000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    db.mark();
    db.slow_batches(Duration::from_millis(20));
    let run = run_in_small_steps(&db).args(["--retry-for", "3s"]).start();
    db.wait_moved(800);
    disk.fill();
    let outcome = run.wait_for(Duration::from_secs(25)).expect(69);
    assert!(outcome.stderr.contains("53100"), "{outcome}");
    db.wait_alone();
    let moved = db.moved();
    assert!(moved < 6000, "there was room for all: this tests nothing");
    assert_eq!(total(&db, "re_encrypted"), moved, "what is counted is what is committed");
    judge.none_lost(&db, &[OLD, NEW]);

    // Freed while a run waits for it, that run goes on by itself.
    db.fast_commits();
    let before = said_full(&cluster);
    let run = run_in_small_steps(&db).start();
    until("the server to say that its disk is full", SOON, || (said_full(&cluster) > before).then_some(()));
    disk.free();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 6000);
    rekey(&db, ["verify"]).exits(0);
}

fn said_full(cluster: &Cluster) -> usize {
    cluster.log().matches("No space left on device").count()
}

/// The server itself goes down with it, and comes back when there is room.
#[test]
fn the_disk_of_the_wal_is_full() {
    let Some(disk) = Disk::of(256) else { return };
    // Segments are removed, not kept for later: the next one needs room.
    let cluster =
        Cluster::with("wal_recycle = off\nmin_wal_size = 32MB\nmax_wal_size = 64MB\ncheckpoint_timeout = 1h");
    cluster.stop(Stop::Fast);
    cluster.move_wal(&disk.path().join("wal"));
    cluster.boot();
    let db = Db::on(&cluster);
    Load::rows(30_000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    db.mark();
    let run = run_in_small_steps(&db).start();
    db.wait_moved(1000);
    rekey(&db, ["pause"]).exits(0);
    db.wait_at_rest();
    // What the disk still holds of the past shall not make room later.
    db.execute("CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT");
    disk.fill();
    let moved = db.moved();
    rekey(&db, ["resume"]).exits(0);
    until("the server to give up", SOON, || cluster.log().contains("PANIC").then_some(()));
    // Not SIGKILL: what the server is starting again just then would outlive it.
    cluster.stop(Stop::Immediate);
    disk.free();
    cluster.boot();
    judge.none_lost(&db, &[OLD, NEW]);
    assert!(moved < 30_000, "there was room for all: this tests nothing");
    assert!(db.moved() >= moved, "what was on disk is there");
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 30_000);
    rekey(&db, ["verify"]).exits(0);
}

/// A role that may run and has `limit` connections, and the URL that logs it in.
fn runner(db: &Db, limit: i32) -> (String, String) {
    db.execute(&rekey(db, ["init", "--print-sql"]).exits(0).stdout);
    let role = format!("{}_crowd", db.name);
    db.execute(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT {limit}; GRANT rekey_runner TO {role}"));
    let url = db.url.replace("postgres@", &format!("{role}@"));
    (role, url)
}

/// Sessions of others: all that there still are for this URL. The last one is turned away.
fn crowd(url: &str) -> Vec<PgConnection> {
    std::iter::from_fn(|| block_on(PgConnection::connect(url)).ok()).collect()
}

/// How often the server has turned somebody away for this reason. Nothing but its log says so.
fn turned_away(cluster: &Cluster, why: &str) -> usize {
    cluster.log().matches(why).count()
}

#[test]
fn no_connection_is_left() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let (role, url) = runner(&db, 12);
    let others = crowd(&url);
    assert_eq!(others.len(), 12);
    let outcome = rekey(&db, ["run", "--retry-for", "2s"]).env("DATABASE_URL", &url).exits(69);
    assert!(outcome.stderr.contains("53300"), "{outcome}");
    judge.none_lost(&db, &[OLD]);

    let refused = || turned_away(db.cluster(), &format!("too many connections for role \"{role}\""));
    let before = refused();
    let mut run = run_in_small_steps(&db).env("DATABASE_URL", &url).start();
    until("the run to be turned away", SOON, || (refused() > before).then_some(()));
    assert!(run.running(), "{}", run.wait());
    drop(others);
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}

/// Taken away in the middle: sessions are ended, and others are quicker to take their places.
#[test]
fn connections_run_out_in_the_middle() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let (role, url) = runner(&db, 12);
    db.mark();
    db.slow_batches(Duration::from_millis(50));
    let run = run_in_small_steps(&db).env("DATABASE_URL", &url).start();
    db.wait_moved(500);
    db.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 0"));
    db.terminate_other_sessions();
    let refused = || turned_away(db.cluster(), &format!("too many connections for role \"{role}\""));
    until("the run to be turned away, again and again", SOON, || (refused() > 5).then_some(()));
    judge.none_lost(&db, &[OLD, NEW]);
    db.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 12"));
    db.fast_commits();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 3000);
}

/// What everybody else is told when the last connections are left to superusers.
const RESERVED: &str = "remaining connection slots are reserved";

/// The server's own limit; before a run and in its midst.
#[test]
fn the_server_takes_no_more_connections() {
    let cluster = Cluster::with("max_connections = 24");
    let db = Db::on(&cluster);
    Load::rows(3000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let (_, url) = runner(&db, -1);
    let others = crowd(&url);
    assert!(others.len() > 10, "{} sessions of others", others.len());
    let outcome = rekey(&db, ["run", "--retry-for", "2s"]).env("DATABASE_URL", &url).exits(69);
    assert!(outcome.stderr.contains("53300"), "{outcome}");
    judge.none_lost(&db, &[OLD]);
    drop(others);
    db.wait_alone();

    db.mark();
    db.slow_batches(Duration::from_millis(40));
    let run = run_in_small_steps(&db).env("DATABASE_URL", &url).start();
    db.wait_moved(500);
    let before = turned_away(&cluster, RESERVED);
    let (mut others, mut crowds) = (crowd(&url), 1);
    until("the run to be turned away", SOON, || {
        // What it loses others take at once, or it does itself.
        let ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rekey'";
        db.execute(ours);
        others.extend(crowd(&url));
        crowds += 1;
        (turned_away(&cluster, RESERVED) > before + crowds).then_some(())
    });
    judge.none_lost(&db, &[OLD, NEW]);
    drop(others);
    db.fast_commits();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 3000);
}
