//! `rekey keys generate`: new keys where there are none. Values are printed by `--stdout` alone.

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::super::context::Context;
use super::super::signals;
use super::args::GenerateArgs;
use super::guard::Needed;
use super::subject::{self, Subject};
use super::trail::{Action, Trail, print_head};
use super::write::{LABEL, Present, Write, Written};
use crate::crypto::{Fingerprint, Weakness, weakness};
use crate::entropy;
use crate::error::{Error, Exit, Result};
use crate::jobs::interrupt::unless_stopped;
use crate::secrets::{AppKey, SourceError};

/// Runs the command.
pub async fn run(args: GenerateArgs, context: &Context) -> Result<Exit> {
    let kind = args.kind.map(AppKey::from);
    let mut stop = signals::listen()?;
    if args.destination.stdout {
        return unless_stopped(&mut stop, to_stdout(kind, context)).await;
    }
    let subjects = match (&args.destination.env_file, &args.destination.to) {
        (Some(path), _) => subject::BOTH
            .into_iter()
            .filter(|k| kind.is_none_or(|only| only == *k))
            .map(|k| Subject::dotenv(path, k))
            .collect(),
        (None, Some(to)) => vec![one_place(to, kind)?],
        (None, None) => unreachable!("clap asks for one of them"),
    };
    for s in &subjects {
        subject::writable(&s.source)?;
    }
    let (mut trail, mut needed) = unless_stopped(&mut stop, super::open(context)).await?;
    may_be_changed(&subjects, args.force, &needed, context).await?;
    let present = if args.force { Present::Replace } else { Present::Keep };
    let values = subjects.iter().map(|s| generate(s.kind.unwrap_or(AppKey::Encryption)));
    let values = values.collect::<Result<Vec<_>>>()?;
    let (mut done, mut failed) = (Vec::new(), None);
    let mut made: Option<PathBuf> = None;
    for (s, value) in subjects.iter().zip(&values) {
        let write =
            Write { target: &s.source, value, present, backup: "bak", made: made.as_deref(), label: LABEL };
        match write.apply(context, &mut needed).await {
            Ok(w) => {
                made = made.or_else(|| w.backup.clone());
                done.push((s, w));
            }
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    drop(values);
    let changed: Vec<&Written> = done.iter().map(|(_, w)| w).filter(|w| w.changed).collect();
    if changed.is_empty()
        && let Some(e) = failed
    {
        return Err(e);
    }
    let head = match changed.is_empty() {
        true => trail.head().await,
        false => trail.record(Action::GENERATE, json!({ "keys": changed })).await,
    };
    for (_, w) in done.iter().filter(|(s, w)| w.changed && s.kind == Some(AppKey::Encryption)) {
        if let Some(former) = &w.former_fingerprint {
            tracing::warn!(
                "credentials encrypted with the former key ({former}) open with that key alone: keep it, or rekey run"
            );
        }
    }
    if context.json() {
        let keys: Vec<&Written> = done.iter().map(|(_, w)| w).collect();
        let mut result = json!({ "keys": keys, "event_head": head });
        let Some(e) = failed else {
            context.print_json(&result)?;
            return Ok(Exit::Ok);
        };
        // One document: a refusal beside it would be a second one.
        tracing::error!(hint = e.hint, "{e}");
        context.last_word.say(&e.message, e.hint.as_deref());
        (result["error"], result["exit_code"], result["hint"]) =
            (json!(e.message), json!(e.exit.code()), json!(e.hint));
        context.print_json(&result)?;
        return Ok(e.exit);
    }
    for (s, w) in &done {
        text(s, w, args.force);
    }
    if done.iter().any(|(s, w)| w.changed && s.kind == Some(AppKey::Encryption)) {
        println!("32 URL-safe characters carry 192 random bits, the most that they can; that is ample");
    }
    print_head(head.as_ref());
    failed.map_or(Ok(Exit::Ok), Err)
}

/// Looks at every key of a file before any is changed: half of a file's keys is no result. A single place looks for
/// itself.
async fn may_be_changed(subjects: &[Subject], force: bool, needed: &Needed, context: &Context) -> Result<()> {
    for s in subjects.iter().filter(|s| s.source.dotenv().is_some()) {
        match context.sources.fetch(&s.source).await {
            Ok(there) if force || weakness(&there.value) == Some(Weakness::Placeholder) => {
                needed.refuse(&s.source, Fingerprint::of(&there.value))?;
            }
            Ok(_) | Err(SourceError::Missing { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn one_place(to: &str, kind: Option<AppKey>) -> Result<Subject> {
    let subject = Subject::given(to, kind)?;
    if subject.kind.is_none() {
        return Err(Error::new(Exit::Usage, format!("{} does not say which key it is for", subject.source))
            .hint("rekey keys generate encryption --to …, or rekey keys generate secret --to …"));
    }
    Ok(subject)
}

fn text(subject: &Subject, w: &Written, forced: bool) {
    let title = subject.title();
    if !w.changed {
        let why = if forced { "is the same" } else { "is there already and stays (--force replaces it)" };
        println!("{title} in {}: a key {why}, fingerprint {}", w.target, w.fingerprint);
        return;
    }
    println!("{title} in {}: generated, fingerprint {}", w.target, w.fingerprint);
    if let Some(backup) = &w.backup {
        println!("  the file as it was is {}", backup.display());
    }
    match (&w.version, &w.former_version) {
        (Some(version), Some(former)) => println!("  version {version}; before: {former}"),
        (Some(version), None) => println!("  version {version}"),
        _ => {}
    }
}

/// Bare for one key, so that `"$(…)"` works; a dotenv file's lines for both.
async fn to_stdout(kind: Option<AppKey>, context: &Context) -> Result<Exit> {
    if std::io::stdout().is_terminal() {
        return Err(Error::new(
            Exit::Usage,
            "keys are not printed on a terminal, whose scroll-back keeps them",
        )
        .hint("send stdout into a file or a pipe, or use --env-file PATH or --to SOURCE"));
    }
    let mut trail = Trail::open(context).await;
    let mut out = Zeroizing::new(Vec::with_capacity(512));
    let mut keys = Vec::new();
    let named = kind.is_none();
    for kind in subject::BOTH.into_iter().filter(|k| kind.is_none_or(|only| only == *k)) {
        let value = generate(kind)?;
        let fingerprint = Fingerprint::of(&value);
        keys.push(json!({ "key": kind.variable(), "target": "stdout", "fingerprint": fingerprint }));
        if context.json() {
            let open: &[u8] = if out.is_empty() { b"{\"" } else { b",\"" };
            out.extend_from_slice(open);
            out.extend_from_slice(kind.variable().as_bytes());
            out.extend_from_slice(b"\":\"");
            out.extend_from_slice(&value);
            out.push(b'"');
            continue;
        }
        if named {
            out.extend_from_slice(kind.variable().as_bytes());
            out.push(b'=');
        }
        out.extend_from_slice(&value);
        out.push(b'\n');
    }
    if context.json() {
        out.extend_from_slice(b"}\n");
    }
    let head = trail.record(Action::GENERATE, json!({ "keys": keys })).await;
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&out).and_then(|()| stdout.flush());
    written.map_err(|e| Error::new(Exit::Usage, format!("cannot write the keys: {e}")))?;
    // Stdout is the keys' alone.
    if let Some(head) = head {
        eprintln!("audit chain head: {head}");
    }
    Ok(Exit::Ok)
}

/// Random bytes as URL-safe base64: 48 as 64 characters, or 24 as 32. The guide's own lengths and alphabet.
pub fn generate(kind: AppKey) -> Result<Zeroizing<Vec<u8>>> {
    let length = match kind {
        AppKey::Secret => 48,
        AppKey::Encryption => 24,
    };
    let mut random = Zeroizing::new(vec![0; length]);
    entropy::fill(&mut random).map_err(|e| Error::new(Exit::Internal, e.to_string()))?;
    Ok(url_safe(&random))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 of a multiple of three bytes, which needs no padding.
fn url_safe(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() / 3 * 4));
    for three in bytes.as_chunks::<3>().0 {
        let n = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        out.extend([18, 12, 6, 0].map(|shift| ALPHABET[(n >> shift & 63) as usize]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::weakness;

    #[test]
    fn the_alphabet_is_that_of_the_guide() {
        // python3 -c "import base64; print(base64.urlsafe_b64encode(bytes([0,16,131,251,255,191])))"
        assert_eq!(url_safe(&[0, 16, 131, 251, 255, 191]).as_slice(), b"ABCD-_-_");
    }

    #[test]
    fn generated_keys_pass_every_rule() {
        for (kind, length) in [(AppKey::Secret, 64), (AppKey::Encryption, 32)] {
            let (one, two) = (generate(kind).unwrap(), generate(kind).unwrap());
            assert_eq!(one.len(), length);
            assert_ne!(one, two);
            assert_eq!(weakness(&one), None);
            assert!(one.iter().all(|b| ALPHABET.contains(b)));
        }
    }
}
