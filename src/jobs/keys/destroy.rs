//! What keeps a retired key goes: the label on its version, which AWS may then delete, or the copy beside a dotenv file.
//!
//! Where no other copy exists, database backups taken before that key's rotation can then never be read again.

use serde::Serialize;
use serde_json::json;

use crate::crypto::Fingerprint;
use crate::error::{Error, Exit, Result};
use crate::jobs::Session;
use crate::jobs::audit_trail::KeyEvent;
use crate::jobs::keys::status::holds;
use crate::secrets::aws::{former_label, is_pin, retired_label};
use crate::secrets::{AwsSource, DotenvVariable, KeySource, dotenv};

/// The version that the label is off.
#[derive(Serialize)]
pub struct Destroyed {
    /// Which key.
    pub fingerprint: Fingerprint,
    /// The secret.
    pub source: KeySource,
    /// Its ARN.
    #[serde(rename = "secret")]
    pub arn: String,
    /// The version that held the key.
    pub version: String,
    /// The label that is off it.
    #[serde(skip)]
    pub label: String,
    /// The labels that still hold it.
    pub still_at: Vec<String>,
    /// The head of the audit chain.
    #[serde(rename = "event_head")]
    pub head: Option<String>,
}

/// The copy of a dotenv file that is removed.
#[derive(Serialize)]
pub struct Removed {
    /// Which key.
    pub fingerprint: Fingerprint,
    /// The variable of the file that the application reads.
    pub source: KeySource,
    /// The copy.
    pub file: String,
    /// The head of the audit chain.
    #[serde(rename = "event_head")]
    pub head: Option<String>,
}

/// Removes the copy that finalize kept beside a dotenv file, unless its key is needed.
pub async fn destroy_copy(
    session: &Session,
    source: &KeySource,
    variable: &DotenvVariable,
    fingerprint: Fingerprint,
) -> Result<Removed> {
    let (mut trail, needed) = super::open(session).await;
    let suffix = dotenv::retired_suffix(fingerprint);
    let copy = dotenv::backup_path(&variable.path, &suffix);
    if !holds(session, source, &copy, fingerprint).await {
        return Err(Error::new(Exit::Key, format!("{} keeps no retired key {fingerprint}", copy.display()))
            .hint("Run `rekey keys status` to list the retired keys"));
    }
    needed.refuse(source, fingerprint)?;
    // A file that cannot be read may hold this very key.
    let current = session.sources.fetch(source).await?;
    if Fingerprint::of(&current.value) == fingerprint {
        return Err(Error::new(Exit::State, format!("the key {fingerprint} is in use: {source} yields it"))
            .hint("Run `rekey status` and `rekey keys status`"));
    }
    dotenv::remove_backup(&variable.path, &suffix)?;
    let file = copy.display().to_string();
    let detail = json!({ "fingerprint": fingerprint, "source": source, "file": file });
    let head = trail.record(KeyEvent::Destroy, detail).await;
    Ok(Removed { fingerprint, source: source.clone(), file, head })
}

/// Takes the label off, unless the key is needed.
pub async fn destroy(session: &Session, secret: &AwsSource, fingerprint: Fingerprint) -> Result<Destroyed> {
    let source = KeySource::from(secret.clone());
    let (mut trail, mut needed) = super::open(session).await;
    let client = session.sources.aws().await?;
    let info = client.describe(&secret.secret_id).await?;
    let labels = [retired_label(fingerprint), former_label(fingerprint)];
    let held = labels.into_iter().find_map(|label| Some((info.holder(&label)?.to_owned(), label)));
    let Some((version, label)) = held else {
        return Err(Error::new(Exit::Key, format!("{source} has no retired key {fingerprint}"))
            .hint("Run `rekey keys status` to list the retired keys"));
    };
    needed.add_pins(&session.sources, secret).await?;
    needed.refuse(&source, fingerprint)?;
    let still_at: Vec<String> = info.versions[&version].iter().filter(|l| **l != label).cloned().collect();
    if let Some(holds) = still_at.iter().find(|l| *l == "AWSCURRENT" || (is_pin(l) && !needed.is_over(l))) {
        return Err(Error::new(
            Exit::State,
            format!("key {fingerprint} is in use: its version is at {holds}"),
        )
        .hint("Run `rekey status` and `rekey keys status`"));
    }
    client.detach(&secret.secret_id, &label).await?;
    let detail = json!({
        "fingerprint": fingerprint, "source": source, "secret": info.arn,
        "version": version, "still_at": still_at,
    });
    let head = trail.record(KeyEvent::Destroy, detail).await;
    Ok(Destroyed { fingerprint, source, arn: info.arn, version, label, still_at, head })
}
