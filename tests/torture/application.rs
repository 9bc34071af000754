//! The application beside it: refreshes tokens, saves what it loaded long ago, inserts, deletes, disconnects, locks.
//!
//! Every write and what is to be expected of it are one step under a lock, so that a judge who has the lock knows what
//! each row must hold. A write whose answer was lost is looked up once the server is back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use uuid::Uuid;

use crate::support::load::fresh_iv;
use crate::support::{Cipher, Db, Judge, NEW, OLD, Random, SOON, block_on, until};

/// What the application has done so far.
pub struct State {
    pub judge: Judge,
    ids: Vec<Uuid>,
    /// What sessions loaded and have not saved yet: row, stored bytes, plaintext.
    loaded: Vec<(Uuid, Vec<u8>, Vec<u8>)>,
}

/// A running application. Dropped, it ends.
pub struct Application {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
    writes: AtomicU64,
}

impl Application {
    pub fn start(db: &Db, judge: Judge, seed: u64) -> Application {
        let ids = db.column("SELECT id FROM provider_connections ORDER BY id");
        let state = Mutex::new(State { judge, ids, loaded: Vec::new() });
        let shared = Arc::new(Shared { state, stop: AtomicBool::new(false), writes: AtomicU64::new(0) });
        let (working, db) = (shared.clone(), db.clone());
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(seed ^ 0xA991);
            let ciphers = [Cipher::new(OLD), Cipher::new(NEW)];
            while !working.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2 + random.below(25)));
                if random.below(25) == 0 {
                    hold(&db, &mut random);
                } else {
                    let mut state = working.state.lock().expect("nobody panicked");
                    state.write(&db, &ciphers, &mut random);
                    working.writes.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Application { shared, thread: Some(thread) }
    }

    /// Nothing is written until the guard is dropped.
    pub fn pause(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("the application did not panic")
    }

    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
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
    fn write(&mut self, db: &Db, ciphers: &[Cipher; 2], random: &mut Random) {
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
                self.judge.expect_touched(id);
                let sql =
                    "UPDATE provider_connections SET status = 'expired', updated_at = now() WHERE id = $1";
                block_on(sqlx::query(sql).bind(id).execute(db.pool())).ok();
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
        self.judge.expect_touched(id);
        let sql =
            "UPDATE provider_connections SET encrypted_credentials = $2, last_sync_at = now() WHERE id = $1";
        let done = block_on(sqlx::query(sql).bind(id).bind(&stored).execute(db.pool()));
        let there = match done {
            Ok(done) => done.rows_affected() == 1,
            // In or not in: the row says. Whoever moved it since kept its plaintext.
            Err(_) => {
                let now = read_again(db, id);
                now.is_some_and(|now| match (&now, &plaintext) {
                    (None, None) => true,
                    (Some(now), Some(wanted)) => {
                        [OLD, NEW].iter().any(|key| Cipher::new(key).open(now).as_ref() == Some(wanted))
                    }
                    _ => false,
                })
            }
        };
        if there {
            match &plaintext {
                Some(plaintext) => self.judge.expect(id, plaintext),
                None => self.judge.expect_null(id),
            }
        }
    }

    fn insert(&mut self, db: &Db, random: &mut Random, stored: Vec<u8>, plaintext: &[u8]) {
        let id = if random.below(3) == 0 { Uuid::new_v4() } else { Uuid::now_v7() };
        let sql = "INSERT INTO provider_connections (id, user_id, provider_id, provider_slug, status, credential_type,
                       encrypted_credentials)
                   SELECT $1, (SELECT id FROM users LIMIT 1), (SELECT id FROM providers LIMIT 1), 'schwab', 'active',
                       'oauth2', $2";
        let done = block_on(sqlx::query(sql).bind(id).bind(stored).execute(db.pool()));
        if done.is_ok() || read_again(db, id).is_some() {
            self.judge.expect(id, plaintext);
            self.ids.push(id);
        }
    }

    fn delete(&mut self, db: &Db, id: Uuid) {
        let sql = "DELETE FROM provider_connections WHERE id = $1";
        let done = block_on(sqlx::query(sql).bind(id).execute(db.pool()));
        if done.is_ok() || read_again(db, id).is_none() {
            self.judge.expect_gone(id);
            self.ids.retain(|other| *other != id);
        }
    }
}

/// The stored credential of a row, if there is such a row.
fn read(db: &Db, id: Uuid) -> Result<Option<Option<Vec<u8>>>, sqlx::Error> {
    let sql = "SELECT encrypted_credentials FROM provider_connections WHERE id = $1";
    block_on(sqlx::query_scalar(sql).bind(id).fetch_optional(db.pool()))
}

fn read_again(db: &Db, id: Uuid) -> Option<Option<Vec<u8>>> {
    until("the server to be back", SOON, || read(db, id).ok())
}
