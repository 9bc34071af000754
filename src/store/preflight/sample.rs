//! Do the keys open the rows? A look at the first, the last and some random ones, before anything is written.

use serde::Serialize;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::finding::{About, Finding, Kind};
use crate::crypto::{Cipher, EncryptionKey};
use crate::rotation::{TableFacts, Tid};
use crate::store::error::StoreError;
use crate::store::rows::{self, Read};
use crate::store::statement::statements;

pub(super) const KEYS: About = About {
    name: "keys",
    may_be_allowed: false,
    meaning: "A key is missing, malformed, or not this rotation's",
    remedy: "Name the keys with `--old-key` and `--new-key`. Run `rekey keys fingerprint SOURCE` to see \
        which key a source holds",
};

pub(super) const WRONG_KEY: About = About {
    name: "wrong-key",
    may_be_allowed: false,
    meaning: "The keys don't decrypt a sample of the rows",
    remedy: "Name the key that the application uses now with `--old-key`",
};

pub(super) const FIRST_BATCH: About = About {
    name: "first-batch",
    may_be_allowed: true,
    meaning: "Neither key decrypts most of the first rows: the old key is wrong, or these rows are unreadable",
    remedy: "Check the old key. For rows on an even older key, use `rekey quarantine retry --also-key SOURCE`",
};

/// Rows looked at from either end of the primary key.
const ENDS: i64 = 16;
/// Rows that are the first batch: those with the smallest ids, which are the oldest where ids follow time.
const FIRST: i64 = 500;
/// Random rows wanted, and places tried for them: a place may hold no row any more.
const RANDOM: usize = 64;
const TRIES: usize = 512;

/// The keys, in the direction rows are to move.
pub struct KeyProbe<'a> {
    /// Rows come from it.
    pub source: &'a EncryptionKey,
    /// Rows go to it.
    pub target: &'a EncryptionKey,
    /// Some rows may be on this one.
    pub also: Option<&'a EncryptionKey>,
    /// No rotation is under way: rows should be on the source key.
    pub fresh: bool,
}

/// Rows by the key that opens them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// Looked at.
    pub rows: u64,
    /// The key rows come from opens them.
    pub on_source: u64,
    /// The key rows go to opens them.
    pub on_target: u64,
    /// The additional, still older key opens them.
    pub on_also: u64,
    /// No key opens them.
    pub neither: u64,
    /// Without a credential.
    pub null: u64,
    /// Of the first batch, which is not part of the sample: with a credential, and of those opened by no key.
    #[serde(skip)]
    pub first_batch: (u64, u64),
    /// Mean length of the credentials in bytes, if there was one.
    pub mean_bytes: Option<f64>,
    /// What each takes on its heap page.
    #[serde(skip)]
    pub on_page: Vec<u16>,
}

struct Opener {
    source: Cipher,
    target: Cipher,
    also: Option<Cipher>,
    plaintext: Zeroizing<Vec<u8>>,
    bytes: u64,
    sized: u64,
    sample: Sample,
    seen: std::collections::HashSet<uuid::Uuid>,
}

impl Opener {
    fn look(&mut self, read: Read<'_>) -> Result<(), StoreError> {
        if !self.seen.insert(read.id) {
            return Ok(());
        }
        let Some(length) = read.length else {
            self.sample.rows += 1;
            self.sample.null += 1;
            return Ok(());
        };
        self.sized += 1;
        self.bytes += length as u64;
        self.sample.on_page.push(read.on_page());
        // Longer ones are no better evidence, and memory stays small.
        let Some(envelope) = read.envelope else { return Ok(()) };
        self.sample.rows += 1;
        let plaintext = &mut self.plaintext;
        let mut opens = |cipher: &Cipher| cipher.open_into(envelope, plaintext).is_ok();
        let count = if opens(&self.source) {
            &mut self.sample.on_source
        } else if opens(&self.target) {
            &mut self.sample.on_target
        } else if self.also.as_ref().is_some_and(opens) {
            &mut self.sample.on_also
        } else {
            &mut self.sample.neither
        };
        *count += 1;
        Ok(())
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", rows::read_columns!("65536"), " FROM public.provider_connections t ", $rest)
    };
}

statements! {
    fn first(limit: i64) -> Query<Read<'static>> during OP:
        select!("ORDER BY id LIMIT $1");

    fn last(limit: i64) -> Query<Read<'static>> during OP:
        select!("ORDER BY id DESC LIMIT $1");

    // Random places in the heap: no sort, no scan, as fast in a table of any size.
    fn at_places(places: &[Tid], limit: i64) -> Query<Read<'static>> during OP:
        select!("WHERE ctid = ANY($1::tid[]) LIMIT $2");
}

const OP: &str = "read a sample";

pub(super) async fn take(
    conn: &mut PgConnection,
    facts: &TableFacts,
    keys: &KeyProbe<'_>,
) -> Result<Sample, StoreError> {
    let mut opener = Opener {
        source: Cipher::new(keys.source),
        target: Cipher::new(keys.target),
        also: keys.also.map(Cipher::new),
        plaintext: Zeroizing::new(Vec::new()),
        bytes: 0,
        sized: 0,
        sample: Sample::default(),
        seen: std::collections::HashSet::new(),
    };
    unless_damaged(first(ENDS).each(conn, |row| opener.look(row)).await)?;
    unless_damaged(last(ENDS).each(conn, |row| opener.look(row)).await)?;
    let places = random_places(facts);
    unless_damaged(at_places(&places, RANDOM as i64).each(conn, |row| opener.look(row)).await)?;
    let mean_bytes = (opener.sized > 0).then(|| opener.bytes as f64 / opener.sized as f64);
    let mut sample = std::mem::take(&mut opener.sample);
    if keys.fresh {
        opener.seen.clear();
        unless_damaged(first(FIRST).each(conn, |row| opener.look(row)).await)?;
        sample.first_batch = (opener.sample.filled(), opener.sample.neither);
    }
    Ok(Sample { mean_bytes, ..sample })
}

/// A row whose value the server cannot read is for the quarantine, and no reason to say nothing of the others.
fn unless_damaged<T: Default>(rows: Result<T, StoreError>) -> Result<T, StoreError> {
    match rows {
        Err(error) if error.is_damage() => Ok(T::default()),
        rows => rows,
    }
}

/// Offsets up to a little beyond what a page holds: updates leave gaps.
fn random_places(facts: &TableFacts) -> Vec<Tid> {
    let pages = (facts.pages as u64).clamp(1, u64::from(u32::MAX));
    let offsets = (facts.rows_per_page() * 1.25).ceil().clamp(1.0, 290.0) as u64;
    let mut random = vec![0u8; TRIES * 8];
    // Not a secret: if the system's randomness fails here, the sample is merely smaller.
    let _ = crate::entropy::fill(&mut random);
    let place = |bytes: &[u8]| {
        let number = |part: &[u8]| part.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        Tid {
            block: (number(&bytes[..5]) % pages) as u32,
            offset: (number(&bytes[5..]) % offsets + 1) as u16,
        }
    };
    random.chunks_exact(8).map(place).collect()
}

impl Sample {
    fn filled(&self) -> u64 {
        self.rows - self.null
    }

    pub(super) fn judge(&self, keys: &KeyProbe<'_>, findings: &mut Vec<Finding>) {
        let Sample { on_source, on_target, neither, .. } = *self;
        let filled = self.filled();
        let remedy = format!(
            "Name the key that the application uses now with `--old-key` (now: from {}, to {}). Run `rekey \
             keys fingerprint SOURCE` to see which key a source holds",
            keys.source.fingerprint(),
            keys.target.fingerprint(),
        );
        let (first, bad) = self.first_batch;
        if neither * 2 <= filled && bad * 2 > first {
            findings.push(Finding::refuse_key(
                Kind::FirstBatch,
                format!(
                    "Neither key decrypts {bad} of the first {first} credentials, but at least half the \
                    sample decrypts"
                ),
                "Name the right key with `--old-key`. If these rows are on an even older key or unreadable, \
                 run `rekey run --allow first-batch`, which leaves them unchanged, then `rekey quarantine \
                 retry --also-key SOURCE`",
            ));
        }
        if neither * 2 > filled {
            let message = format!("Neither key decrypts {neither} of {filled} sampled credentials");
            findings.push(Finding::refuse_key(Kind::WrongKey, message, remedy));
        } else if keys.fresh && on_source == 0 && on_target > 0 {
            findings.push(Finding::refuse_key(
                Kind::WrongKey,
                format!(
                    "The old key decrypts none of {filled} sampled credentials and the new key decrypts \
                     {on_target}. The keys may be swapped, or the rows may already be on the new key"
                ),
                remedy,
            ));
        } else if neither > 0 {
            findings.push(Finding::warn(
                Kind::WrongKey,
                format!(
                    "Neither key decrypts {neither} of {filled} sampled credentials. rekey will \
                    quarantine such rows"
                ),
                "If they are on an even older key, run `rekey quarantine retry --also-key SOURCE` after the \
                 run",
            ));
        } else if keys.fresh && on_target > 0 {
            findings.push(Finding::warn(
                Kind::WrongKey,
                format!("The new key already decrypts {on_target} of {filled} sampled credentials"),
                "An earlier rotation may be unfinished. rekey leaves such rows unchanged",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::preflight::Severity;

    fn verdict(fresh: bool, on_source: u64, on_target: u64, neither: u64) -> Option<Severity> {
        let key = |byte| EncryptionKey::from_bytes(&[byte; 32]).unwrap_or_else(|e| panic!("{e}"));
        let (source, target) = (key(1), key(2));
        let keys = KeyProbe { source: &source, target: &target, also: None, fresh };
        let rows = on_source + on_target + neither + 5;
        let sample = Sample { rows, on_source, on_target, neither, null: 5, ..Sample::default() };
        let mut findings = Vec::new();
        sample.judge(&keys, &mut findings);
        findings.first().map(|f| f.severity)
    }

    #[test]
    fn a_sample_tells_the_wrong_keys_from_a_few_broken_rows() {
        assert_eq!(verdict(true, 90, 0, 0), None);
        assert_eq!(verdict(true, 0, 0, 0), None);
        assert_eq!(verdict(true, 0, 0, 1), Some(Severity::RefuseKey));
        assert_eq!(verdict(true, 45, 0, 45), Some(Severity::Warn));
        assert_eq!(verdict(true, 44, 0, 46), Some(Severity::RefuseKey));
        assert_eq!(verdict(true, 0, 90, 0), Some(Severity::RefuseKey));
        assert_eq!(verdict(true, 1, 89, 0), Some(Severity::Warn));
        assert_eq!(verdict(false, 0, 90, 0), None);
    }

    #[test]
    fn random_places_stay_within_the_heap() {
        let facts = TableFacts { rows: 1200.0, pages: 100.0, ..TableFacts::default() };
        let places = random_places(&facts);
        assert_eq!(places.len(), TRIES);
        assert!(places.iter().all(|p| p.block < 100 && (1..=15).contains(&p.offset)));
    }
}
