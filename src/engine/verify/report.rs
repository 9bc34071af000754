//! What a verify found, and what follows from it: an exit code, and the right to go on.

use std::collections::HashMap;

use serde::Serialize;
use uuid::Uuid;

use crate::error::{Error, Exit};
use crate::store::reindex;

/// Rows of each kind of trouble that are named.
const LISTED: usize = 20;

/// What a verify found; rows, unless named otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Every row is on its key or accepted, and every row that rekey wrote has its contents from before.
    pub clean: bool,
    /// Rows visible.
    pub rows: i64,
    /// Byte-identical to what was there before the rotation.
    pub identical: i64,
    /// Written by something else since; no error.
    pub changed_since: i64,
    /// Inserted since; no error.
    pub inserted_since: i64,
    /// Tagged, and deleted since; no error.
    pub deleted_since: i64,
    /// On the key before the rotation reached them.
    pub already_on_key: i64,
    /// Without a credential.
    pub null: i64,
    /// On the wrong key.
    pub wrong_key: i64,
    /// No key decrypts them, and they are not accepted.
    pub unreadable: i64,
    /// No key decrypts them, and an operator accepted them.
    pub accepted: i64,
    /// Rows that rekey wrote and that don't match their contents from before.
    pub other_bytes: i64,
    /// Rows that the table holds and reading by id does not see.
    pub unseen: i64,
    /// The index that does not lead to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// Whether bytes could be compared: the tags need the new key.
    pub bytes_compared: bool,
    /// Whether the key that rows should not be on could be tried.
    pub both_keys: bool,
    /// The first rows of each kind of trouble.
    pub examples: HashMap<&'static str, Vec<Uuid>>,
    /// Seconds it took.
    pub seconds: f64,
}

/// A verify that found nothing wrong; only [`VerifyReport::into_clean`] makes one.
pub struct CleanVerify(());

impl VerifyReport {
    /// The right to promote or finalize, if this report is clean.
    pub fn into_clean(self) -> Result<CleanVerify, Error> {
        if self.clean {
            return Ok(CleanVerify(()));
        }
        let (exit, hint) = match (self.exit(), &self.index) {
            (exit, Some(index)) => (exit, reindex(index)),
            (Exit::Quarantined, _) if !self.both_keys => (
                Exit::Quarantined,
                "Name the other key too with `--old-key SOURCE`: the application may have saved an accepted \
                 row under it"
                    .into(),
            ),
            (Exit::Quarantined, _) => (Exit::Quarantined, "Run `rekey quarantine list`".into()),
            _ => (
                Exit::VerifyFailed,
                "Run `rekey run` to re-encrypt rows that were saved under the old key. Run `rekey verify` \
                 for details"
                    .into(),
            ),
        };
        let trouble = [
            ("on the wrong key", self.wrong_key),
            ("that no key decrypts", self.unreadable),
            ("with changed contents", self.other_bytes),
            ("that the primary key's index does not find", self.unseen),
        ];
        let found: Vec<String> = trouble
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(what, n)| match n {
                1 => format!("1 row {what}"),
                n => format!("{n} rows {what}"),
            })
            .collect();
        Err(Error::new(exit, format!("not verified clean: {}", found.join(", "))).hint(hint))
    }

    /// The exit code this report stands for.
    pub fn exit(&self) -> Exit {
        match self {
            r if r.wrong_key + r.other_bytes + r.unseen > 0 => Exit::VerifyFailed,
            r if r.unreadable > 0 => Exit::Quarantined,
            _ => Exit::Ok,
        }
    }

    pub(super) fn note(&mut self, kind: &'static str, id: Uuid) {
        let ids = self.examples.entry(kind).or_default();
        if ids.len() < LISTED {
            ids.push(id);
        }
    }

    pub(super) fn add(&mut self, o: VerifyReport) {
        self.rows += o.rows;
        self.identical += o.identical;
        self.changed_since += o.changed_since;
        self.inserted_since += o.inserted_since;
        self.deleted_since += o.deleted_since;
        self.already_on_key += o.already_on_key;
        self.null += o.null;
        self.wrong_key += o.wrong_key;
        self.unreadable += o.unreadable;
        self.accepted += o.accepted;
        self.other_bytes += o.other_bytes;
        self.unseen += o.unseen;
        for (kind, ids) in o.examples {
            for id in ids {
                self.note(kind, id);
            }
        }
    }
}
