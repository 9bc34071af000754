//! `rekey keys fingerprint SOURCE`: which key is there, without showing it.

use clap::Args;
use serde_json::json;

use super::super::context::Context;
use super::super::envelope::Document;
use super::super::last_lines::print_head;
use crate::crypto::KEY_LEN;
use crate::error::{Exit, Result};
use crate::jobs::keys::fingerprint::fingerprint;
use crate::secrets::KeySource;

/// `keys fingerprint`
#[derive(Args)]
pub struct FingerprintArgs {
    /// Source of the key
    pub source: String,
}

/// Runs the command.
pub async fn run(args: FingerprintArgs, context: &Context) -> Result<Exit> {
    let source = KeySource::parse(&args.source)?;
    let seen = fingerprint(context, &source).await?;
    if context.json() {
        let result = json!({
            "source": source, "fingerprint": seen.fingerprint, "bytes": seen.bytes,
            "secret": seen.arn, "version": seen.version, "event_head": seen.head,
        });
        context.print_json(&Document::new(Exit::Ok, &result)?)?;
        return Ok(Exit::Ok);
    }
    println!("{}", seen.fingerprint);
    if seen.bytes != KEY_LEN {
        tracing::info!("{source} holds {} bytes; an ENCRYPTION_KEY has {KEY_LEN}", seen.bytes);
    }
    if let Some(version) = &seen.version {
        tracing::info!("version {version} of {}", seen.arn.as_deref().unwrap_or("the secret"));
    }
    print_head(seen.head.as_deref());
    Ok(Exit::Ok)
}
