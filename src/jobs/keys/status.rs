//! Where keys are, how old, when due by the guide's schedule (90 days), and what would change them.
//!
//! A key is as old as the first trace of its fingerprint: in the audit trail, in a version of the secret, in a file or a
//! copy of it. What is written later with the same key in it, by a rollback or for a sibling's sake, makes it no younger.

use std::path::Path;

use jiff::{Timestamp, ToSpan};
use serde::Serialize;
use serde_json::json;

use super::subject::Subject;
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::jobs::Session;
use crate::jobs::audit_trail::AuditTrail;
use crate::secrets::aws::{is_pin, keeps_former_key};
use crate::secrets::dotenv::{self, copies};
use crate::secrets::{AwsSource, KeySource};

/// The guide's section 3.1: quarterly.
pub const CRYPTOPERIOD_DAYS: i64 = 90;

/// How each key stands.
pub struct KeysStatus {
    /// In the order asked for.
    pub keys: Vec<KeyStatus>,
    /// The exit code of what could not be looked at: 69 before any other.
    pub exit: Exit,
    /// The head of the audit chain.
    pub head: Option<String>,
}

/// How one key stands. Holds no key.
#[derive(Serialize)]
pub struct KeyStatus {
    /// SECRET_KEY or ENCRYPTION_KEY, where that is known.
    pub key: Option<&'static str>,
    /// Where it is.
    pub source: KeySource,
    /// Which key.
    pub fingerprint: Option<Fingerprint>,
    /// Its length.
    pub bytes: Option<usize>,
    /// Secrets Manager: the version's id.
    pub version: Option<String>,
    /// The first trace of it: the key is at least this old.
    pub since: Option<String>,
    /// Its age.
    pub age_days: Option<i64>,
    /// When it should be changed.
    pub due: Option<String>,
    /// That day is over.
    pub overdue: Option<bool>,
    /// Days until then; negative where that day is over.
    pub due_in_days: Option<i64>,
    /// AWS changes it by itself, which loses credentials.
    pub automatic_rotation: Option<bool>,
    /// Versions that an unfinished rotation needs.
    pub pins: Vec<LabelOnVersion>,
    /// Versions with a former key: for backups of the database, or because it was replaced by force.
    pub retired: Vec<LabelOnVersion>,
    /// Copies of a dotenv file that finalize kept, with a former key in each.
    pub retired_files: Vec<RetiredFile>,
    /// Why the rest is not known.
    pub problem: Option<String>,
}

/// A copy of a dotenv file that holds a former key.
#[derive(Serialize)]
pub struct RetiredFile {
    /// Which key.
    pub fingerprint: Fingerprint,
    /// The copy.
    pub path: String,
}

/// A staging label, and the version it is on.
#[derive(Serialize)]
pub struct LabelOnVersion {
    /// The label.
    pub label: String,
    /// The version's id.
    pub version: String,
}

/// Looks at each key; one that cannot be read does not keep the others from being told.
pub async fn status(session: &Session, subjects: Vec<Subject>) -> KeysStatus {
    let mut trail = AuditTrail::open(session).await;
    let (mut keys, mut exit) = (Vec::new(), Exit::Ok);
    for s in subjects {
        let mut status = KeyStatus {
            key: s.kind.map(|k| k.variable()),
            fingerprint: None,
            bytes: None,
            version: None,
            since: None,
            age_days: None,
            due: None,
            overdue: None,
            due_in_days: None,
            automatic_rotation: None,
            pins: Vec::new(),
            retired: Vec::new(),
            retired_files: retired_files(session, &s.source).await,
            source: s.source,
            problem: None,
        };
        if let Err(e) = status.look(session, &mut trail).await {
            if exit != Exit::Unavailable {
                exit = e.exit;
            }
            status.problem = Some(e.message);
        }
        keys.push(status);
    }
    let read = keys.iter().filter(|k| k.fingerprint.is_some()).map(|k| &k.source);
    let head = trail.accessed(read.collect(), json!({ "by": "status" })).await;
    KeysStatus { keys, exit, head }
}

impl KeyStatus {
    async fn look(&mut self, session: &Session, trail: &mut AuditTrail) -> Result<()> {
        let (key, traced) = match self.source.aws().cloned() {
            Some(aws) => self.of_secret(&aws, session).await?,
            None => {
                let fetched = session.sources.fetch(&self.source).await?;
                let key = self.is(&fetched.value);
                (key, oldest_file(session, &self.source, key).await)
            }
        };
        let recorded = trail.first_seen(key).await.and_then(|s| Timestamp::from_second(s as i64).ok());
        let Some(since) = [traced, recorded].into_iter().flatten().min() else { return Ok(()) };
        #[expect(
            clippy::disallowed_methods,
            reason = "an age in days, told to people; there may be no database"
        )]
        let now = Timestamp::now();
        let due = since.checked_add((CRYPTOPERIOD_DAYS * 24).hours());
        let due = due.map_err(|e| Error::new(Exit::Internal, format!("cannot add days: {e}")))?;
        self.since = Some(since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        self.age_days = Some(now.duration_since(since).as_hours() / 24);
        self.due = Some(due.strftime("%Y-%m-%d").to_string());
        self.overdue = Some(due < now);
        self.due_in_days = Some(due.duration_since(now).as_hours() / 24);
        Ok(())
    }

    fn is(&mut self, value: &[u8]) -> Fingerprint {
        let key = Fingerprint::of(value);
        (self.fingerprint, self.bytes) = (Some(key), Some(value.len()));
        key
    }

    async fn of_secret(
        &mut self,
        aws: &AwsSource,
        session: &Session,
    ) -> Result<(Fingerprint, Option<Timestamp>)> {
        let client = session.sources.aws().await?;
        let info = client.describe(&aws.secret_id).await?;
        self.automatic_rotation = Some(info.rotation_enabled);
        for (version, labels) in &info.versions {
            for label in labels {
                let found = || LabelOnVersion { label: label.clone(), version: version.clone() };
                if is_pin(label) {
                    self.pins.push(found());
                } else if keeps_former_key(label) {
                    self.retired.push(found());
                }
            }
        }
        let fetched = session.sources.fetch(&self.source).await?;
        let key = self.is(&fetched.value);
        let read = fetched.version_id.clone();
        self.version = fetched.version_id;
        let mut first = client.version(aws).await?.created;
        for version in info.versions.keys().filter(|version| Some(*version) != read.as_ref()) {
            // One that does not open, or that a policy keeps back, tells nothing.
            let Ok((made, there)) = client.key_with_date(&aws.at(version)).await else { continue };
            if Fingerprint::of(&there) == key {
                first = first.into_iter().chain(made).min();
            }
        }
        Ok((key, first.and_then(|s| Timestamp::from_second(s).ok())))
    }
}

/// What finalize kept beside a dotenv file, of this variable.
async fn retired_files(session: &Session, source: &KeySource) -> Vec<RetiredFile> {
    let mut found = Vec::new();
    for (path, fingerprint) in source.dotenv().map(|d| dotenv::retired(&d.path)).unwrap_or_default() {
        if holds(session, source, &path, fingerprint).await {
            found.push(RetiredFile { fingerprint, path: path.display().to_string() });
        }
    }
    found
}

/// Whether the copy of a file holds this key in the same variable.
pub(super) async fn holds(session: &Session, source: &KeySource, copy: &Path, key: Fingerprint) -> bool {
    let Some(place) = source.in_copy(copy) else { return false };
    session.sources.fetch(&place).await.is_ok_and(|there| Fingerprint::of(&there.value) == key)
}

/// When the oldest of the file and its copies that hold this very key last changed.
async fn oldest_file(session: &Session, source: &KeySource, key: Fingerprint) -> Option<Timestamp> {
    let file = source.file()?;
    let mut oldest = changed_at(file);
    for copy in copies(file) {
        if holds(session, source, &copy, key).await {
            oldest = oldest.into_iter().chain(changed_at(&copy)).min();
        }
    }
    oldest
}

fn changed_at(file: &Path) -> Option<Timestamp> {
    Timestamp::try_from(std::fs::metadata(file).ok()?.modified().ok()?).ok()
}
