//! The server runs out of something: disk for the table, disk for the WAL, connections. What passes is waited for,
//! what does not ends with 69, and the next run finishes.
//!
//! A full disk is a small tmpfs; without the right to mount one those tests are skipped, said aloud.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::cluster::server_user;
use crate::support::load::Load;
use crate::support::{Cluster, Db, Judge, NEW, OLD, SOON, Stop, rekey, run_in_small_steps, until};

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
            let _ = writeln!(std::io::stderr(), "SKIPPED: 1 test, no tmpfs may be mounted here (root may)");
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
    disk.fill();
    let started = std::time::Instant::now();
    let outcome = run_in_small_steps(&db).args(["--retry-for", "3s"]).exits(69);
    assert!(outcome.stderr.contains("53100"), "{outcome}");
    assert!(started.elapsed() < Duration::from_secs(25), "--retry-for is 3 s: {outcome}");
    judge.none_lost(&db, &[OLD, NEW]);

    // Freed while a run waits for it, that run goes on by itself.
    let before = said_full(&cluster);
    let run = run_in_small_steps(&db).start();
    until("the server to say that its disk is full", SOON, || (said_full(&cluster) > before).then_some(()));
    disk.free();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
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
    Load::rows(25_000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    db.mark();
    db.execute("CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT");
    disk.fill();
    let run = run_in_small_steps(&db).start();
    until("the server to give up", SOON, || cluster.log().contains("PANIC").then_some(()));
    // Not SIGKILL: what the server is starting again just then would outlive it.
    cluster.stop(Stop::Immediate);
    disk.free();
    cluster.boot();
    judge.none_lost(&db, &[OLD, NEW]);
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}

/// A role that others have used up; the URL that logs it in, and those others.
fn crowded(db: &Db, limit: usize) -> (String, Vec<sqlx::PgConnection>) {
    use sqlx::Connection as _;
    db.execute(&rekey(db, ["init", "--print-sql"]).exits(0).stdout);
    let role = format!("{}_crowd", db.name);
    db.execute(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT {limit}; GRANT rekey_runner TO {role}"));
    let url = db.url.replace("postgres@", &format!("{role}@"));
    let others =
        (0..limit).map(|_| crate::support::block_on(sqlx::PgConnection::connect(&url)).expect("connects"));
    (url.clone(), others.collect())
}

#[test]
fn no_connection_is_left() {
    let db = Db::new();
    Load::rows(3000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let (url, others) = crowded(&db, 12);
    let outcome = rekey(&db, ["run", "--retry-for", "2s"]).env("DATABASE_URL", &url).exits(69);
    assert!(outcome.stderr.contains("53300"), "{outcome}");
    judge.none_lost(&db, &[OLD]);

    let mut run = run_in_small_steps(&db).env("DATABASE_URL", &url).start();
    std::thread::sleep(Duration::from_secs(1));
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
    let (url, others) = crowded(&db, 12);
    drop(others);
    db.mark();
    db.slow_batches(Duration::from_millis(10));
    let run = run_in_small_steps(&db).env("DATABASE_URL", &url).start();
    db.wait_moved(500);
    let role = format!("{}_crowd", db.name);
    db.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 0"));
    db.terminate_other_sessions();
    std::thread::sleep(Duration::from_secs(2));
    judge.none_lost(&db, &[OLD, NEW]);
    db.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 12"));
    db.fast_commits();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
}
