//! `rekey keys fingerprint SOURCE`: which key is there, without showing it.

use serde_json::json;

use super::super::context::Context;
use super::args::FingerprintArgs;
use super::trail::{Action, Trail, print_head};
use crate::crypto::{Fingerprint, KEY_LEN};
use crate::error::{Exit, Result};
use crate::secrets::KeySource;

/// Runs the command.
pub async fn run(args: FingerprintArgs, context: &Context) -> Result<Exit> {
    let source = KeySource::parse(&args.source)?;
    let mut trail = Trail::open(context).await;
    let fetched = context.sources.fetch(&source).await?;
    let (fingerprint, bytes) = (Fingerprint::of(&fetched.value), fetched.value.len());
    // Nothing below needs the key.
    drop(fetched.value);
    let detail = json!({
        "source": source.to_string(), "fingerprint": fingerprint, "bytes": bytes,
        "secret": fetched.arn, "version": fetched.version_id,
    });
    let head = trail.record(Action::ACCESS, detail.clone()).await;
    if context.json() {
        let mut result = detail;
        result["event_head"] = json!(head);
        context.print_json(&result)?;
        return Ok(Exit::Ok);
    }
    println!("{fingerprint}");
    if bytes != KEY_LEN {
        tracing::info!("{source} holds {bytes} bytes: no ENCRYPTION_KEY, which has {KEY_LEN}");
    }
    if let Some(version) = &fetched.version_id {
        tracing::info!("version {version} of {}", fetched.arn.as_deref().unwrap_or("the secret"));
    }
    print_head(head.as_ref());
    Ok(Exit::Ok)
}
