//! An independent judge: what every row held before, and whether it still holds exactly that.
//!
//! It opens rows with AWS-LC and remembers every IV it ever saw. It never asks rekey anything.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::aead::{Aad, Nonce};
use aws_lc_rs::digest::{SHA256, digest};
use sqlx::Row as _;
use uuid::Uuid;

use super::{Cipher, Db, block_on};

type Hash = [u8; 32];

/// What a row's credential must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Credential {
    /// There is none.
    Null,
    /// It opens to bytes with this hash.
    Opens(Hash),
    /// Nobody can open it; it must stay these very bytes.
    Untouched(Hash),
}

/// What a row must be.
#[derive(Clone, Debug)]
pub struct Expected {
    credential: Credential,
    /// All other columns, hashed; nothing where the application itself changes them meanwhile.
    others: Option<String>,
}

/// What must be true of the table, and all IVs seen so far.
#[derive(Clone, Default)]
pub struct Judge {
    rows: BTreeMap<Uuid, Expected>,
    /// IV → hash of the id and the stored value it was seen in. Two values under one IV would be the end of GCM.
    ivs: HashMap<[u8; 12], Hash>,
}

/// A row as it lies in the database.
struct Stored {
    id: Uuid,
    value: Option<Vec<u8>>,
    others: String,
}

impl Judge {
    /// Takes down the table as it is now, opening each row with whichever of `keys` does.
    pub fn look(db: &Db, keys: &[&str]) -> Judge {
        let ciphers: Vec<Cipher> = keys.iter().map(|key| Cipher::new(key)).collect();
        let mut judge = Judge::default();
        for row in read(db) {
            judge.see_iv(&row);
            let credential = match &row.value {
                None => Credential::Null,
                Some(value) => match ciphers.iter().find_map(|cipher| cipher.open(value)) {
                    Some(plaintext) => Credential::Opens(hash(&plaintext)),
                    None => Credential::Untouched(hash(value)),
                },
            };
            judge.rows.insert(row.id, Expected { credential, others: Some(row.others) });
        }
        judge
    }

    /// The application wrote this credential into row `id` (a new row or an old one).
    pub fn expect(&mut self, id: Uuid, plaintext: &[u8]) {
        let credential = Credential::Opens(hash(plaintext));
        self.rows.insert(id, Expected { credential, others: None });
    }

    /// The application disconnected row `id`: it has no credential any more.
    pub fn expect_null(&mut self, id: Uuid) {
        self.rows.entry(id).and_modify(|row| row.credential = Credential::Null);
    }

    /// Somebody put these bytes, which no key opens, into row `id`.
    pub fn expect_raw(&mut self, id: Uuid, bytes: &[u8]) {
        let credential = Credential::Untouched(hash(bytes));
        self.rows.entry(id).and_modify(|row| row.credential = credential.clone());
    }

    /// The application changes other columns of row `id`.
    pub fn expect_touched(&mut self, id: Uuid) {
        self.rows.entry(id).and_modify(|row| row.others = None);
    }

    /// The application deleted row `id`.
    pub fn expect_gone(&mut self, id: Uuid) {
        self.rows.remove(&id);
    }

    /// What is expected of row `id`; nothing where there should be no such row.
    pub fn expected(&self, id: Uuid) -> Option<Expected> {
        self.rows.get(&id).cloned()
    }

    /// What was written to row `id` since [`Judge::expected`] said so is lost, as it may be.
    pub fn expect_again(&mut self, id: Uuid, before: Option<Expected>) {
        match before {
            Some(expected) => self.rows.insert(id, expected),
            None => self.rows.remove(&id),
        };
    }

    /// Rows with a credential that opens.
    pub fn openable(&self) -> usize {
        self.rows.values().filter(|row| matches!(row.credential, Credential::Opens(_))).count()
    }

    /// Every row opens with `key` to the same bytes, no other column changed, no IV was used twice.
    #[track_caller]
    pub fn all_on(&mut self, db: &Db, key: &str) {
        let faults = self.faults(db, &[key]);
        assert!(
            faults.is_empty(),
            "{} faults, the first: {:#?}",
            faults.len(),
            &faults[..faults.len().min(5)]
        );
    }

    /// Never neither: every row opens with one of `keys` to the same bytes, and the rest as in [`Judge::all_on`].
    #[track_caller]
    pub fn none_lost(&mut self, db: &Db, keys: &[&str]) {
        let faults = self.faults(db, keys);
        assert!(
            faults.is_empty(),
            "{} faults, the first: {:#?}",
            faults.len(),
            &faults[..faults.len().min(5)]
        );
    }

    fn faults(&mut self, db: &Db, keys: &[&str]) -> Vec<String> {
        let ciphers: Vec<Cipher> = keys.iter().map(|key| Cipher::new(key)).collect();
        let mut faults = Vec::new();
        let mut seen = 0;
        for row in read(db) {
            if !self.see_iv(&row) {
                faults.push(format!("{}: its IV was used before for another value", row.id));
            }
            let Some(expected) = self.rows.get(&row.id) else {
                faults.push(format!("{}: a row nobody inserted", row.id));
                continue;
            };
            seen += 1;
            if expected.others.as_ref().is_some_and(|others| *others != row.others) {
                faults.push(format!("{}: another column changed", row.id));
            }
            let opened =
                row.value.as_ref().and_then(|value| ciphers.iter().find_map(|cipher| cipher.open(value)));
            let good = match (&expected.credential, &row.value) {
                (Credential::Null, value) => value.is_none(),
                (Credential::Opens(before), _) => opened.as_ref().is_some_and(|now| hash(now) == *before),
                (Credential::Untouched(before), value) => {
                    value.as_ref().is_some_and(|now| hash(now) == *before)
                }
            };
            if !good {
                let now = match (&row.value, &opened) {
                    (None, _) => "it is NULL",
                    (Some(_), None) => "no key opens it",
                    (Some(_), Some(_)) => "it opens to other bytes",
                };
                faults.push(format!("{}: should be {:?}, but {now}", row.id, expected.credential));
            }
        }
        if seen != self.rows.len() {
            faults.push(format!("{} rows are gone", self.rows.len() - seen));
        }
        faults
    }

    /// Remembers the row's IV; false where it was seen before with another value.
    fn see_iv(&mut self, row: &Stored) -> bool {
        let Some(value) = &row.value else { return true };
        let Some(iv) = value.first_chunk::<12>() else { return true };
        let whole = hash(&[row.id.as_bytes(), value.as_slice()].concat());
        *self.ivs.entry(*iv).or_insert(whole) == whole
    }
}

impl Cipher {
    /// The plaintext, or nothing where this key does not open `sealed`.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (iv, rest) = sealed.split_first_chunk::<12>()?;
        let mut buffer = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*iv);
        let length = self.0.open_in_place(nonce, Aad::empty(), &mut buffer).ok()?.len();
        buffer.truncate(length);
        Some(buffer)
    }
}

/// How many rows `key` opens.
pub fn count_on(db: &Db, key: &str) -> usize {
    let cipher = Cipher::new(key);
    read(db).iter().filter(|row| row.value.as_ref().is_some_and(|value| cipher.open(value).is_some())).count()
}

/// The plaintext of row `id` under `key`.
pub fn open_row(db: &Db, id: Uuid, key: &str) -> Option<Vec<u8>> {
    Cipher::new(key).open(&stored(db, id)?)
}

/// The stored bytes of row `id`.
pub fn stored(db: &Db, id: Uuid) -> Option<Vec<u8>> {
    let sql = "SELECT encrypted_credentials FROM provider_connections WHERE id = $1";
    block_on(sqlx::query_scalar(sql).bind(id).fetch_one(db.pool())).expect("the row is there")
}

fn read(db: &Db) -> Vec<Stored> {
    let sql = "SELECT id, encrypted_credentials, md5((to_jsonb(p) - 'encrypted_credentials')::text) AS others
               FROM provider_connections p";
    let rows = block_on(sqlx::query(sql).fetch_all(db.pool())).expect("the table reads");
    let stored =
        |row: sqlx::postgres::PgRow| Stored { id: row.get(0), value: row.get(1), others: row.get(2) };
    rows.into_iter().map(stored).collect()
}

fn hash(bytes: &[u8]) -> Hash {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}
