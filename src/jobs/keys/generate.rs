//! New keys where there are none.

use std::path::PathBuf;

use serde_json::json;
use zeroize::Zeroizing;

use super::guard::Needed;
use super::subject::{self, Subject, writable};
use super::write::{Former, LABEL, Present, Write, Written};
use crate::crypto::{Fingerprint, Weakness, weakness};
use crate::engine::Stop;
use crate::entropy;
use crate::error::{Error, Exit, Result};
use crate::jobs::Session;
use crate::jobs::audit_trail::{AuditTrail, KeyEvent};
use crate::jobs::interrupt::unless_stopped;
use crate::secrets::aws::Creation;
use crate::secrets::{AppKey, SourceError};

/// What to generate, and where to.
pub struct GenerateRequest {
    /// The places. Each says which key it is for.
    pub subjects: Vec<Subject>,
    /// Replace keys that are there; else only nothing and placeholders are.
    pub force: bool,
    /// What a secret is made with that is not there yet.
    pub creation: Creation,
}

/// What was done, place by place, in the order asked for.
pub struct Generated {
    /// Each place that was looked at, and what was done there.
    pub keys: Vec<(Subject, Written)>,
    /// What ended the work before the last place. Something was changed before it, or it would be the job's own error.
    pub failed: Option<Error>,
    /// The head of the audit chain.
    pub head: Option<String>,
}

/// Writes new keys.
pub async fn generate(session: &Session, request: GenerateRequest, stop: &mut Stop) -> Result<Generated> {
    for s in &request.subjects {
        if s.kind.is_none() {
            return Err(Error::new(Exit::Usage, format!("{} doesn't show which key it is for", s.source))
                .hint("Run `rekey keys generate encryption --to …` or `rekey keys generate secret --to …`"));
        }
        writable(&s.source)?;
    }
    let opening = async { Ok(super::open(session).await) };
    let (mut trail, mut needed) = unless_stopped(stop, opening).await?;
    may_be_changed(&request, &needed, session).await?;
    let present = if request.force { Present::Replace } else { Present::Keep };
    let values = request.subjects.iter().map(|s| new_value(s.kind.unwrap_or(AppKey::Encryption)));
    let values = values.collect::<Result<Vec<_>>>()?;
    let (mut keys, mut failed) = (Vec::new(), None);
    let creation = request.creation;
    let mut made: Option<PathBuf> = None;
    for (s, value) in request.subjects.into_iter().zip(&values) {
        let write = Write {
            target: &s.source,
            value,
            present,
            backup: "bak",
            made: made.as_deref(),
            label: LABEL,
            former: Former::Labelled,
            creation: &creation,
        };
        match write.apply(session, &mut needed).await {
            Ok(w) => {
                made = made.or_else(|| w.backup.clone());
                keys.push((s, w));
            }
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    drop(values);
    let changed: Vec<&Written> = keys.iter().map(|(_, w)| w).filter(|w| w.changed).collect();
    let head = match (changed.is_empty(), failed.take()) {
        (true, Some(e)) => return Err(e),
        (true, None) => trail.head().await,
        (false, e) => {
            failed = e;
            trail.record(KeyEvent::Generate, json!({ "keys": changed })).await
        }
    };
    for (_, w) in keys.iter().filter(|(s, w)| w.changed && s.kind == Some(AppKey::Encryption)) {
        if let Some(former) = w.former_fingerprint {
            tracing::warn!(
                "Existing credentials still need the previous key ({former}). Keep it until `rekey run` \
                 re-encrypts them"
            );
        }
    }
    Ok(Generated { keys, failed, head })
}

/// Looks at every key of a file before any is changed: half of a file's keys is no result. A single place looks for
/// itself.
async fn may_be_changed(request: &GenerateRequest, needed: &Needed, session: &Session) -> Result<()> {
    for s in request.subjects.iter().filter(|s| s.source.dotenv().is_some()) {
        match session.sources.fetch(&s.source).await {
            Ok(there) => {
                let replaced = request.force || weakness(&there.value) == Some(Weakness::Placeholder);
                if replaced && needed.protects(&there.value) {
                    needed.refuse(&s.source, Fingerprint::of(&there.value))?;
                }
            }
            Err(SourceError::Missing { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// New keys that are written nowhere: whoever called prints them.
pub struct NewKeys {
    /// Which key, and its value.
    pub keys: Vec<(AppKey, Zeroizing<Vec<u8>>)>,
    /// The head of the audit chain.
    pub head: Option<String>,
}

/// Generates one key or both, for the caller only.
pub async fn to_hand_out(session: &Session, kind: Option<AppKey>, stop: &mut Stop) -> Result<NewKeys> {
    let work = async {
        let mut trail = AuditTrail::open(session).await;
        let kinds = subject::BOTH.into_iter().filter(|k| kind.is_none_or(|only| only == *k));
        let keys = kinds.map(|kind| Ok((kind, new_value(kind)?))).collect::<Result<Vec<_>>>()?;
        let told = keys.iter().map(|(kind, value)| {
            json!({ "key": kind.variable(), "target": "stdout", "fingerprint": Fingerprint::of(value) })
        });
        let detail = json!({ "keys": told.collect::<Vec<_>>() });
        let head = trail.record(KeyEvent::Generate, detail).await;
        Ok(NewKeys { keys, head })
    };
    unless_stopped(stop, work).await
}

/// Random bytes as URL-safe base64: 48 as 64 characters, or 24 as 32. The guide's own lengths and alphabet.
pub(super) fn new_value(kind: AppKey) -> Result<Zeroizing<Vec<u8>>> {
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
            let (one, two) = (new_value(kind).unwrap(), new_value(kind).unwrap());
            assert_eq!(one.len(), length);
            assert_ne!(one, two);
            assert_eq!(weakness(&one), None);
            assert!(one.iter().all(|b| ALPHABET.contains(b)));
        }
    }
}
