//! Puts connections into a database, fast, through COPY.

use sqlx::postgres::PgPoolCopyExt as _;
use uuid::Uuid;

use super::credentials::{COLUMNS, Generator, Ids, Mix, Shape, USER_COLUMNS};
use super::{Cipher, Db, OLD, Random, block_on};

/// What to load; [`Load::rows`] gives the defaults: UUIDv7 ids, a mixture of types, no NULLs, the old key.
#[derive(Clone, Debug)]
pub struct Load {
    /// The rows' number, sizes, ids and NULLs.
    pub shape: Shape,
    /// The key they are sealed with.
    pub key: &'static str,
}

impl Load {
    /// `rows` connections of about 250 bytes.
    pub fn rows(rows: u64) -> Load {
        Load { shape: Shape { rows, bytes: 250, ids: Ids::V7, mix: Mix::Alike, nulls: 0, seed: 1 }, key: OLD }
    }

    /// All credential types in their natural sizes.
    pub fn mixed(mut self) -> Load {
        self.shape.bytes = 0;
        self
    }

    /// They differ like this.
    pub fn mix(mut self, mix: Mix) -> Load {
        self.shape.mix = mix;
        self
    }

    /// Each stored value has this many bytes.
    pub fn bytes(mut self, bytes: usize) -> Load {
        self.shape.bytes = bytes;
        self
    }

    /// How ids are made.
    pub fn ids(mut self, ids: Ids) -> Load {
        self.shape.ids = ids;
        self
    }

    /// Share of rows without a credential, in percent.
    pub fn nulls(mut self, percent: u64) -> Load {
        self.shape.nulls = percent;
        self
    }

    /// Another seed, so that a second load fits beside the first.
    pub fn seed(mut self, seed: u64) -> Load {
        self.shape.seed = seed;
        self
    }

    /// Sealed with this key.
    pub fn key(mut self, key: &'static str) -> Load {
        self.key = key;
        self
    }

    /// Loads them, and lets the planner know.
    pub fn into(self, db: &Db) {
        let rows = self.shape.rows;
        let mut generator = Generator::new(self.shape, self.key);
        let mut users = String::new();
        (0..generator.users()).for_each(|index| generator.user_line(index, &mut users));
        let mut lines = String::new();
        (0..rows).for_each(|_| generator.line(&mut lines));
        copy(db, &format!("COPY users ({USER_COLUMNS}) FROM STDIN"), users);
        copy(db, &format!("COPY provider_connections ({COLUMNS}) FROM STDIN"), lines);
        db.execute("ANALYZE provider_connections");
    }
}

fn copy(db: &Db, statement: &str, lines: String) {
    block_on(async {
        let mut sink = db.pool().copy_in_raw(statement).await.expect("COPY starts");
        for part in lines.into_bytes().chunks(1 << 20) {
            sink.send(part).await.expect("COPY goes on");
        }
        sink.finish().await.expect("COPY ends");
    });
}

/// A fresh IV for a test's own writes; unpredictable enough never to meet another.
pub fn fresh_iv() -> [u8; 12] {
    Uuid::new_v4().as_bytes()[4..].try_into().expect("12 bytes")
}

/// Replaces the stored credential of `id` by these bytes, as they stand.
pub fn store_raw(db: &Db, id: Uuid, bytes: &[u8]) {
    let sql = "UPDATE provider_connections SET encrypted_credentials = $2 WHERE id = $1";
    let done = block_on(sqlx::query(sql).bind(id).bind(bytes).execute(db.pool())).expect("an update");
    assert_eq!(done.rows_affected(), 1, "row {id} is there");
}

/// What the application does on a token refresh: writes a credential sealed with `key`, and its time.
pub fn store(db: &Db, id: Uuid, key: &str, plaintext: &[u8]) {
    store_raw(db, id, &Cipher::new(key).seal(fresh_iv(), plaintext));
}

/// Inserts a connection of an existing user under `id`, sealed with `key`.
pub fn insert(db: &Db, id: Uuid, key: &str, plaintext: &[u8]) {
    let sealed = Cipher::new(key).seal(fresh_iv(), plaintext);
    let sql = "INSERT INTO provider_connections (id, user_id, provider_id, provider_slug, status, credential_type,
                   encrypted_credentials)
               SELECT $1, (SELECT id FROM users LIMIT 1), (SELECT id FROM providers LIMIT 1), 'schwab', 'active',
                   'oauth2', $2";
    block_on(sqlx::query(sql).bind(id).bind(sealed).execute(db.pool())).expect("an insert");
}

/// Ids of all rows, in the order of the primary key.
pub fn ids(db: &Db) -> Vec<Uuid> {
    db.column("SELECT id FROM provider_connections ORDER BY id")
}

/// `count` different ids with a credential, spread over the table.
pub fn some_ids(db: &Db, count: usize, seed: u64) -> Vec<Uuid> {
    let mut all: Vec<Uuid> =
        db.column("SELECT id FROM provider_connections WHERE encrypted_credentials IS NOT NULL ORDER BY id");
    let mut random = Random::new(seed);
    (0..count).map(|_| all.swap_remove(random.below(all.len() as u64) as usize)).collect()
}
