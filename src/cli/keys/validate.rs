//! `rekey keys validate`: every rule, both keys, all findings at once; 0 or 3.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use super::super::context::Context;
use super::args::ValidateArgs;
use super::rules::{Finding, Severity, finding, judge};
use super::subject::{self, Subject};
use super::trail::{Trail, print_head};
use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::jobs::Environment;
use crate::jobs::exposure::warn_of_git;
use crate::secrets::dotenv::DotenvFile;
use crate::secrets::{AppKey, DotenvVariable, SourceError};

struct Checked {
    subject: Subject,
    kind: AppKey,
    value: Option<Zeroizing<Vec<u8>>>,
    /// What is told of it: its bytes, and which it is.
    seen: Option<(usize, Fingerprint)>,
    findings: Vec<Finding>,
}

/// Runs the command.
pub async fn run(args: ValidateArgs, context: &Context) -> Result<Exit> {
    let subjects = match &args.source {
        Some(text) => vec![Subject::given(text, args.kind.map(Into::into))?],
        None => subject::both(args.env_file.as_deref(), args.layout.secret_layout, &context.application)?,
    };
    let mut trail = Trail::open(context).await;
    let environment = context.environment;
    let mut checked = Vec::new();
    for subject in subjects {
        checked.push(check(subject, context, environment).await?);
    }
    if let [a, b] = checked.as_mut_slice() {
        used_twice(a, b);
    }
    for c in &mut checked {
        used_elsewhere(c, environment);
        if let Some(DotenvVariable { path, .. }) = c.subject.source.dotenv()
            && environment != Environment::Testing
            && c.kind == AppKey::Encryption
        {
            warn_of_git(path);
        }
    }
    // Nothing below needs the keys.
    checked.iter_mut().for_each(|c| c.value = None);
    let errors = checked.iter().flat_map(|c| &c.findings).filter(|f| f.severity == Severity::Error).count();
    let read = checked.iter().filter(|c| c.seen.is_some()).map(|c| c.subject.source.to_string());
    let head = trail.accessed(read.collect(), json!({ "by": "validate", "errors": errors })).await;
    if context.json() {
        let keys: Vec<_> = checked.iter().map(as_json).collect();
        context.print_json(&json!({ "valid": errors == 0, "keys": keys, "event_head": head }))?;
    } else {
        for c in &checked {
            text(c);
        }
        match errors {
            0 => println!("all keys are valid"),
            1 => println!("1 error; next: rekey keys generate --env-file PATH, or --to SOURCE"),
            n => println!("{n} errors; next: rekey keys generate --env-file PATH, or --to SOURCE"),
        }
        print_head(head.as_ref());
    }
    Ok(if errors == 0 { Exit::Ok } else { Exit::Key })
}

async fn check(subject: Subject, context: &Context, environment: Environment) -> Result<Checked> {
    let kind = subject.kind.unwrap_or(AppKey::Encryption);
    let title = subject.title();
    let (value, findings) = match context.sources.fetch(&subject.source).await {
        Ok(fetched) => {
            let findings = judge(&title, kind, &fetched.value, environment);
            (Some(fetched.value), findings)
        }
        Err(e @ (SourceError::Unavailable { .. } | SourceError::Config { .. })) => return Err(e.into()),
        Err(e) => (None, vec![finding(&title, Severity::Error, "readable", Error::from(e).message)]),
    };
    let seen = value.as_ref().map(|v| (v.len(), Fingerprint::of(v)));
    Ok(Checked { subject, kind, value, seen, findings })
}

/// Each key has one purpose.
fn used_twice(a: &Checked, b: &mut Checked) {
    let (Some(x), Some(y)) = (&a.value, &b.value) else { return };
    let common = x.len().min(y.len());
    if common > 0 && x[..common] == y[..common] {
        let says =
            format!("it is the same as {}, or a part of it: each key has one purpose", a.subject.title());
        b.findings.push(finding(&b.subject.title(), Severity::Error, "purpose", says));
    }
}

/// Each environment has keys of its own: files beside this one must not hold the same key. Backups are its own.
fn used_elsewhere(c: &mut Checked, environment: Environment) {
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
        let says = format!("the same key is in {}: each environment has keys of its own", others.join(", "));
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

fn as_json(c: &Checked) -> serde_json::Value {
    json!({
        "key": c.kind.variable(),
        "source": c.subject.source.to_string(),
        "bytes": c.seen.map(|(bytes, _)| bytes),
        "fingerprint": c.seen.map(|(_, fingerprint)| fingerprint),
        "findings": c.findings,
    })
}

fn text(c: &Checked) {
    let wanted = match c.kind {
        AppKey::Secret => "at least 32",
        AppKey::Encryption => "exactly 32",
    };
    let bad = c.findings.iter().any(|f| f.severity == Severity::Error);
    let mark = if bad { "bad" } else { "ok " };
    match c.seen {
        Some((bytes, _)) => {
            println!("{mark}  {}: {bytes} bytes ({wanted}), {}", c.kind.variable(), c.subject.source)
        }
        None => println!("{mark}  {}: {}", c.kind.variable(), c.subject.source),
    }
    for f in &c.findings {
        let severity = if f.severity == Severity::Error { "error" } else { "warning" };
        println!("     {severity}, {}: {}", f.rule, f.says);
    }
}
