//! The application beside it: refreshes tokens, saves what it loaded long ago, inserts, deletes, disconnects, locks.
//!
//! Every write and what is to be expected of it are one step under a lock, so that a judge who has the lock knows what
//! each row must hold. Each write's transaction puts its number into judge.written, in place of the number before it:
//! after a crash that number tells exactly which writes are there, and no write follows one that is not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Connection as _, PgConnection, Postgres};
use uuid::Uuid;

use crate::plan::{Of, random};
use crate::support::judge::Expected;
use crate::support::load::fresh_iv;
use crate::support::{Cipher, Db, Judge, NEW, OLD, Random, SOON, block_on, until};

/// What the application has done so far.
pub struct State {
    pub judge: Judge,
    ids: Vec<Uuid>,
    /// What sessions loaded and have not saved yet: row, stored bytes, plaintext.
    loaded: Vec<(Uuid, Vec<u8>, Vec<u8>)>,
    /// The number of the last write that was on disk when it was answered.
    durable: i64,
    /// The writes after it, numbered on: a crash may take the latest of them away.
    recent: Vec<Write>,
    /// Writes that were answered.
    pub writes: u64,
    /// How many of them were lost.
    pub lost: u64,
}

/// A write that may be lost.
struct Write {
    id: Uuid,
    /// What its row was expected to be before; nothing where there was none.
    before: Option<Expected>,
    answered: bool,
}

/// A running application. Dropped, it ends.
pub struct Application {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
}

impl Application {
    pub fn start(db: &Db, judge: Judge, seed: u64) -> Application {
        let ids = db.column("SELECT id FROM provider_connections ORDER BY id");
        let (loaded, recent) = (Vec::new(), Vec::new());
        let state = State { judge, ids, loaded, durable: 0, recent, writes: 0, lost: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), stop: AtomicBool::new(false) });
        let (working, db) = (shared.clone(), db.clone());
        let thread = std::thread::spawn(move || {
            let ciphers = [Cipher::new(OLD), Cipher::new(NEW)];
            for number in 0.. {
                if working.stop.load(Ordering::Relaxed) {
                    break;
                }
                let mut random = random(seed, Of::Writes, number);
                std::thread::sleep(Duration::from_millis(2 + random.below(25)));
                if random.below(25) == 0 {
                    hold(&db, &mut random);
                } else {
                    working.state.lock().expect("nobody panicked").act(&db, &ciphers, &mut random);
                }
            }
        });
        Application { shared, thread: Some(thread) }
    }

    /// Nothing is written until the guard is dropped.
    pub fn pause(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("the application did not panic")
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A session that locks rows and thinks about it.
fn hold(db: &Db, random: &mut Random) {
    let pause = Duration::from_millis(random.below(500));
    // A server that goes away meanwhile ends it, too.
    let _ = block_on(async {
        let mut transaction = db.pool().begin().await?;
        sqlx::query("SELECT FROM provider_connections WHERE id > $1 ORDER BY id LIMIT 3 FOR UPDATE")
            .bind(Uuid::from_u128(u128::from(random.bits()) << 64))
            .execute(&mut *transaction)
            .await?;
        tokio::time::sleep(pause).await;
        transaction.rollback().await
    });
}

impl State {
    /// What is done is the seed's to say; which row is hit hangs on how many there are.
    fn act(&mut self, db: &Db, ciphers: &[Cipher; 2], random: &mut Random) {
        let id = self.ids[random.below(self.ids.len() as u64) as usize];
        // Somebody has the new key already, where the rotation is promoted by hand.
        let cipher = &ciphers[usize::from(random.below(5) == 0)];
        let plaintext = format!("{{\"access_token\":\"{:032x}\"}}", random.bits()).into_bytes();
        match random.below(100) {
            0..35 => self.save(db, id, Some((cipher.seal(fresh_iv(), &plaintext), plaintext))),
            35..55 => self.load(db, id, ciphers),
            55..78 => {
                if !self.loaded.is_empty() {
                    let index = random.below(self.loaded.len() as u64) as usize;
                    let (id, stored, plaintext) = self.loaded.swap_remove(index);
                    self.save(db, id, Some((stored, plaintext)));
                }
            }
            78..87 => self.insert(db, random, cipher.seal(fresh_iv(), &plaintext), &plaintext),
            87..94 => self.delete(db, id),
            94..97 => self.save(db, id, None),
            _ => {
                let sql =
                    "UPDATE provider_connections SET status = 'expired', updated_at = now() WHERE id = $1";
                self.write(db, id, sqlx::query(sql).bind(id), |state| state.judge.expect_touched(id));
            }
        }
    }

    /// A sync loads the whole entity; it will save it later.
    fn load(&mut self, db: &Db, id: Uuid, ciphers: &[Cipher; 2]) {
        let Ok(Some(Some(stored))) = read(db, id) else { return };
        let opened = ciphers.iter().find_map(|cipher| cipher.open(&stored));
        let plaintext = opened.unwrap_or_else(|| panic!("{id}: no key opens it"));
        self.loaded.push((id, stored, plaintext));
        if self.loaded.len() > 60 {
            self.loaded.swap_remove(0);
        }
    }

    fn save(&mut self, db: &Db, id: Uuid, credential: Option<(Vec<u8>, Vec<u8>)>) {
        let (stored, plaintext) = credential.unzip();
        let sql =
            "UPDATE provider_connections SET encrypted_credentials = $2, last_sync_at = now() WHERE id = $1";
        self.write(db, id, sqlx::query(sql).bind(id).bind(stored), |state| {
            state.judge.expect_touched(id);
            match plaintext {
                // A session may have loaded what was deleted since.
                Some(plaintext) if state.ids.contains(&id) => state.judge.expect(id, &plaintext),
                Some(_) => {}
                None => state.judge.expect_null(id),
            }
        });
    }

    fn insert(&mut self, db: &Db, random: &mut Random, stored: Vec<u8>, plaintext: &[u8]) {
        let id = if random.below(3) == 0 { Uuid::new_v4() } else { Uuid::now_v7() };
        let sql = "INSERT INTO provider_connections (id, user_id, provider_id, provider_slug, status, credential_type,
                       encrypted_credentials)
                   SELECT $1, (SELECT id FROM users LIMIT 1), (SELECT id FROM providers LIMIT 1), 'schwab', 'active',
                       'oauth2', $2";
        self.write(db, id, sqlx::query(sql).bind(id).bind(stored), |state| {
            state.judge.expect(id, plaintext);
            state.ids.push(id);
        });
    }

    fn delete(&mut self, db: &Db, id: Uuid) {
        let sql = "DELETE FROM provider_connections WHERE id = $1";
        self.write(db, id, sqlx::query(sql).bind(id), |state| {
            state.judge.expect_gone(id);
            state.ids.retain(|other| *other != id);
        });
    }

    /// The number of the last write.
    fn last(&self) -> i64 {
        self.durable + self.recent.len() as i64
    }

    /// Writes row `id`, and expects what follows from it. Of 24 writes, eight in a row do not wait for the disk.
    fn write(
        &mut self,
        db: &Db,
        id: Uuid,
        query: Query<'_, Postgres, PgArguments>,
        expect: impl FnOnce(&mut State),
    ) {
        let number = self.last() + 1;
        let waits = number / 8 % 3 != 0;
        let done = block_on(async {
            let mut transaction = db.pool().begin().await?;
            sqlx::query("SELECT set_config('synchronous_commit', $1, true)")
                .bind(if waits { "on" } else { "off" })
                .execute(&mut *transaction)
                .await?;
            let numbered = sqlx::query("UPDATE judge.written SET number = $1 WHERE number + 1 = $1")
                .bind(number)
                .execute(&mut *transaction)
                .await?;
            if numbered.rows_affected() == 0 {
                transaction.rollback().await?;
                return Ok(false);
            }
            query.execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(true)
        });
        if let Err(sqlx::Error::Database(error)) = &done {
            let gone = error.code().is_some_and(|code| code.starts_with("57P"));
            assert!(gone, "only a server that goes away may fail the application: {error}");
        }
        if matches!(done, Ok(false)) {
            return self.settle(db);
        }
        let before = self.judge.expected(id);
        expect(self);
        self.recent.push(Write { id, before, answered: done.is_ok() });
        match done {
            Ok(_) => {
                self.writes += 1;
                if waits {
                    self.durable = number;
                    self.recent.clear();
                }
            }
            Err(_) => self.settle(db),
        }
    }

    /// Asks which writes are there. The latest may be gone with a crash, if they did not wait for the disk or were not
    /// answered: what was expected before them holds again.
    pub fn settle(&mut self, db: &Db) {
        // In a session of its own: one of the pool's may still be a dying server's.
        let number: i64 = until("the server to be back", SOON, || {
            let asked = block_on(async {
                let mut session = PgConnection::connect(&db.url).await?;
                let asked =
                    sqlx::query_scalar("SELECT number FROM judge.written").fetch_one(&mut session).await;
                session.close().await?;
                asked
            });
            asked.ok()
        });
        while self.last() > number
            && let Some(write) = self.recent.pop()
        {
            self.lost += u64::from(write.answered);
            match (&write.before, self.ids.contains(&write.id)) {
                (None, true) => self.ids.retain(|id| *id != write.id),
                (Some(_), false) => self.ids.push(write.id),
                _ => {}
            }
            self.judge.expect_again(write.id, write.before);
        }
        assert_eq!(self.last(), number, "the last write; those up to {} were on disk", self.durable);
    }
}

/// The stored credential of a row, if there is such a row.
fn read(db: &Db, id: Uuid) -> Result<Option<Option<Vec<u8>>>, sqlx::Error> {
    let sql = "SELECT encrypted_credentials FROM provider_connections WHERE id = $1";
    block_on(sqlx::query_scalar(sql).bind(id).fetch_optional(db.pool()))
}
