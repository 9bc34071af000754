//! Every rule of the guide, asked of one key or both: all findings at once.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use super::rules::{KeyFinding, Severity, finding, judge};
use super::subject::Subject;
use crate::crypto::Fingerprint;
use crate::error::{Error, Result};
use crate::jobs::audit_trail::AuditTrail;
use crate::jobs::exposure::warn_of_git;
use crate::jobs::{Environment, Session};
use crate::secrets::dotenv::DotenvFile;
use crate::secrets::{AppKey, DotenvVariable, SourceError};

/// What was found of each key.
pub struct Validated {
    /// In the order asked for.
    pub keys: Vec<CheckedKey>,
    /// The head of the audit chain.
    pub head: Option<String>,
}

impl Validated {
    /// How many findings say that a key must not be used.
    pub fn errors(&self) -> usize {
        errors(&self.keys)
    }
}

/// One key, judged.
pub struct CheckedKey {
    /// Where it is.
    pub subject: Subject,
    /// Which of the two it was judged as.
    pub kind: AppKey,
    /// Its bytes, and which key it is; `None` where it could not be read.
    pub seen: Option<(usize, Fingerprint)>,
    /// The rules that it does not keep.
    pub findings: Vec<KeyFinding>,
    value: Option<Zeroizing<Vec<u8>>>,
}

/// Judges each key by itself, both together, and against the files beside them.
pub async fn validate(session: &Session, subjects: Vec<Subject>) -> Result<Validated> {
    let mut trail = AuditTrail::open(session).await;
    let environment = session.environment;
    let mut keys = Vec::new();
    for subject in subjects {
        keys.push(check(subject, session).await?);
    }
    if let [a, b] = keys.as_mut_slice() {
        used_twice(a, b);
    }
    for c in &mut keys {
        used_elsewhere(c, environment);
        open_to_all(c, environment);
        if let Some(DotenvVariable { path, .. }) = c.subject.source.dotenv()
            && environment != Environment::Testing
            && c.kind == AppKey::Encryption
        {
            warn_of_git(path);
        }
    }
    // Nothing below needs the keys.
    keys.iter_mut().for_each(|c| c.value = None);
    let read = keys.iter().filter(|c| c.seen.is_some()).map(|c| &c.subject.source);
    let detail = json!({ "by": "validate", "errors": errors(&keys) });
    let head = trail.accessed(read.collect(), detail).await;
    Ok(Validated { keys, head })
}

fn errors(keys: &[CheckedKey]) -> usize {
    keys.iter().flat_map(|c| &c.findings).filter(|f| f.severity == Severity::Error).count()
}

async fn check(subject: Subject, session: &Session) -> Result<CheckedKey> {
    let kind = subject.kind.unwrap_or(AppKey::Encryption);
    let title = subject.title();
    let (value, findings) = match session.sources.fetch(&subject.source).await {
        Ok(fetched) => {
            let findings = judge(&title, kind, &fetched.value, session.environment);
            (Some(fetched.value), findings)
        }
        Err(e @ (SourceError::Unavailable { .. } | SourceError::Config { .. })) => return Err(e.into()),
        Err(e) => (None, vec![finding(&title, Severity::Error, "readable", Error::from(e).message)]),
    };
    let seen = value.as_ref().map(|v| (v.len(), Fingerprint::of(v)));
    Ok(CheckedKey { subject, kind, seen, findings, value })
}

/// Each key has one purpose.
fn used_twice(a: &CheckedKey, b: &mut CheckedKey) {
    let (Some(x), Some(y)) = (&a.value, &b.value) else { return };
    let common = x.len().min(y.len());
    if common > 0 && x[..common] == y[..common] {
        let says = format!(
            "it equals {} or is a part of it; use a separate key for each purpose",
            a.subject.title()
        );
        b.findings.push(finding(&b.subject.title(), Severity::Error, "purpose", says));
    }
}

/// Whoever may write the file decides which key the application uses.
fn open_to_all(c: &mut CheckedKey, environment: Environment) {
    let Some(mode) = c.subject.source.file().and_then(|file| std::fs::metadata(file).ok()) else { return };
    if mode.permissions().mode() & 0o002 == 0 {
        return;
    }
    let severity = if environment == Environment::Production { Severity::Error } else { Severity::Warning };
    let says = "every user of this machine may write the file: `chmod o-w` takes the right away";
    c.findings.push(finding(&c.subject.title(), severity, "permissions", says));
}

/// Each environment has keys of its own: files beside this one must not hold the same key. Backups are its own.
fn used_elsewhere(c: &mut CheckedKey, environment: Environment) {
    let (Some(DotenvVariable { path, .. }), Some(value)) = (c.subject.source.dotenv(), &c.value) else {
        return;
    };
    let severity = if environment == Environment::Testing { Severity::Warning } else { Severity::Error };
    let mut others = BTreeSet::new();
    for other in siblings(path) {
        let Ok(bytes) = std::fs::read(&other) else { continue };
        let file = DotenvFile::parse(bytes.into());
        for name in [AppKey::Secret.variable(), AppKey::Encryption.variable()] {
            if matches!(file.get(name), Ok(Some(v)) if !v.is_empty() && *v == **value) {
                others.insert(other.display().to_string());
            }
        }
    }
    if !others.is_empty() {
        let others: Vec<String> = others.into_iter().collect();
        let says =
            format!("{} holds the same key; use separate keys for each environment", others.join(", "));
        c.findings.push(finding(&c.subject.title(), severity, "reuse", says));
    }
}

/// `.env*` files beside this one that are another environment's.
fn siblings(path: &Path) -> Vec<PathBuf> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let real = std::fs::canonicalize(path).ok();
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.starts_with(".env") && name != own && !name.contains(".bak")
        })
        .map(|e| e.path())
        .filter(|p| p.is_file() && std::fs::metadata(p).is_ok_and(|m| m.len() < 1 << 20))
        .filter(|p| real.is_none() || std::fs::canonicalize(p).ok() != real)
        .collect();
    found.sort();
    found
}
