//! The application goes on writing beside a run: no write is lost, and 0 means that nothing is left on the old key.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::judge::{count_on, open_row, stored};
use crate::support::load::{Load, insert, some_ids, store, store_raw};
use crate::support::{Db, Ids, Judge, NEW, OLD, Random, rekey, run_in_small_steps, total, until};
use uuid::Uuid;

/// What the application does to one row.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// A token refresh: new plaintext under the old key, the only one the application has.
    Refresh,
    /// A sync that loaded the connection long ago saves the whole entity: the old ciphertext comes back.
    SaveStale,
    Insert,
    Delete,
}

/// An application with the old key in memory. Its own ledger says what each row must hold.
struct Application {
    db: Db,
    random: Random,
    ids: Vec<Uuid>,
    /// Ciphertexts it loaded before the migration began.
    loaded: Vec<(Uuid, Vec<u8>)>,
    judge: Judge,
    deeds: usize,
}

impl Application {
    fn new(db: &Db, judge: Judge, seed: u64) -> Application {
        let ids = some_ids(db, 900, seed);
        let loaded = ids[..200].iter().map(|&id| (id, stored(db, id).expect("a credential"))).collect();
        Application {
            db: db.clone(),
            random: Random::new(seed),
            ids: ids[200..].to_vec(),
            loaded,
            judge,
            deeds: 0,
        }
    }

    fn act(&mut self) {
        let deed = match self.random.below(10) {
            0..5 => Deed::Refresh,
            5..7 => Deed::SaveStale,
            7..9 => Deed::Insert,
            _ => Deed::Delete,
        };
        self.deeds += 1;
        let pick = self.random.below(self.ids.len() as u64) as usize;
        let text = format!(r#"{{"access_token":"refreshed-{}","n":{}}}"#, self.random.bits(), self.deeds);
        match deed {
            Deed::Refresh => {
                store(&self.db, self.ids[pick], OLD, text.as_bytes());
                self.judge.expect(self.ids[pick], text.as_bytes());
            }
            Deed::SaveStale => {
                let (id, value) = &self.loaded[self.random.below(self.loaded.len() as u64) as usize];
                store_raw(&self.db, *id, value);
            }
            Deed::Insert => {
                let id = if self.deeds.is_multiple_of(2) { Uuid::now_v7() } else { Uuid::new_v4() };
                insert(&self.db, id, OLD, text.as_bytes());
                self.judge.expect(id, text.as_bytes());
                self.ids.push(id);
            }
            Deed::Delete => {
                let id = self.ids.swap_remove(pick);
                self.db.execute(&format!("DELETE FROM provider_connections WHERE id = '{id}'"));
                self.judge.expect_gone(id);
            }
        }
    }

    /// Acts until told to stop.
    fn work(mut self, stop: &AtomicBool) -> Application {
        while !stop.load(Ordering::Relaxed) {
            self.act();
            std::thread::sleep(Duration::from_millis(2));
        }
        self
    }
}

#[test]
fn a_writer_all_through_the_run_until_just_before_its_end() {
    a_writer_beside(Load::rows(4000), "keys");
}

/// By blocks, new row versions land behind the cursor and before it.
#[test]
fn a_writer_beside_a_run_by_blocks() {
    a_writer_beside(Load::rows(6000).ids(Ids::V4), "blocks");
}

fn a_writer_beside(load: Load, addressing: &str) {
    let db = Db::new();
    let rows = load.shape.rows as i64;
    load.into(&db);
    db.mark();
    db.slow_batches(Duration::from_millis(10));
    let application = Application::new(&db, Judge::look(&db, &[OLD]), 21);
    let stop = AtomicBool::new(false);
    let mut application = std::thread::scope(|scope| {
        let writer = scope.spawn(|| application.work(&stop));
        let mut run = run_in_small_steps(&db).start();
        until("the run to come near its end", crate::support::SOON, || {
            (db.moved() > rows - 500 || !run.running()).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        let application = writer.join().expect("the writer ends well");
        run.wait().expect(0);
        application
    });
    assert!(application.deeds > 20, "only {} deeds", application.deeds);
    assert_eq!(db.value::<String>("SELECT addressing FROM rekey.passes WHERE pass = 1"), addressing);
    assert_eq!(count_on(&db, OLD), 0);
    application.judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}

/// A writer that never stops: the run may give up or succeed, but what it says is true and nothing is lost.
#[test]
fn a_writer_that_never_stops() {
    let db = Db::new();
    Load::rows(2500).into(&db);
    let application = Application::new(&db, Judge::look(&db, &[OLD]), 22);
    let stop = AtomicBool::new(false);
    let mut application = std::thread::scope(|scope| {
        let writer = scope.spawn(|| application.work(&stop));
        let outcome = run_in_small_steps(&db).args(["--max-sweeps", "8"]).run();
        stop.store(true, Ordering::Relaxed);
        assert!(outcome.code().is_some_and(|code| code != 1), "{outcome}");
        writer.join().expect("the writer ends well")
    });
    application.judge.none_lost(&db, &[OLD, NEW]);
    rekey(&db, ["run"]).exits(0);
    application.judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}

/// Rows that are saved under the old key faster than it sweeps: it gives up, and says so. The same on the way back.
#[test]
fn a_writer_that_is_quicker_than_the_sweeps() {
    let db = Db::new();
    Load::rows(400).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let ids = some_ids(&db, 20, 5);
    let text = b"saved again and again";
    for id in &ids {
        judge.expect(*id, text);
        judge.expect_touched(*id);
    }
    // Its own sessions are older than that, and stay quick.
    db.slow_batches(Duration::from_millis(100));
    for (command, from, to) in [(&["run"][..], OLD, NEW), (&["rollback", "--yes"], NEW, OLD)] {
        let stop = AtomicBool::new(false);
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    ids.iter().for_each(|id| store(&db, *id, from, text));
                }
            });
            let ends = || rekey(&db, []).more(command).args(["--max-sweeps", "1"]).run();
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(ends));
            stop.store(true, Ordering::Relaxed);
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ended.expect(6);
        judge.none_lost(&db, &[OLD, NEW]);
        rekey(&db, []).more(command).exits(0);
        judge.all_on(&db, to);
    }
}

#[test]
fn a_straggler_saved_after_the_end_is_found_and_mended() {
    let db = Db::new();
    Load::rows(1500).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let id = some_ids(&db, 1, 3)[0];
    let stale = stored(&db, id).expect("a credential");
    rekey(&db, ["run"]).exits(0);
    store_raw(&db, id, &stale);
    let found = rekey(&db, ["verify"]).json(6);
    assert_eq!(found["wrong_key"], 1, "{found:#}");
    assert_eq!(found["clean"], false, "{found:#}");
    rekey(&db, ["run"]).exits(0);
    judge.all_on(&db, NEW);
    rekey(&db, ["verify"]).exits(0);
}

/// The application wins a race for a row: its token stands, re-encrypted, and the loss is counted as what it was.
#[test]
fn a_row_changed_between_read_and_write_keeps_the_applications_value() {
    let db = Db::new();
    Load::rows(1000).into(&db);
    let mut judge = Judge::look(&db, &[OLD]);
    let ids = some_ids(&db, 20, 4);
    let mut holder = db.hold();
    for (n, &id) in ids.iter().enumerate() {
        let text = format!(r#"{{"access_token":"won-{n}"}}"#);
        let sealed = crate::support::Cipher::new(OLD).seal(crate::support::load::fresh_iv(), text.as_bytes());
        let sql = "UPDATE provider_connections SET encrypted_credentials = $2 WHERE id = $1";
        holder.execute(sqlx::query(sql).bind(id).bind(sealed));
        judge.expect(id, text.as_bytes());
    }
    let run = run_in_small_steps(&db).start();
    until("all other rows to be moved", crate::support::SOON, || {
        (judge_count(&db) >= 980 - 50).then_some(())
    });
    holder.commit();
    run.wait().expect(0);
    judge.all_on(&db, NEW);
    assert_eq!(total(&db, "re_encrypted"), 1000);
    assert_eq!(open_row(&db, ids[0], NEW).unwrap(), br#"{"access_token":"won-0"}"#);
}

fn judge_count(db: &Db) -> usize {
    count_on(db, NEW)
}
