//! Key sources against a Secrets Manager: moto as a process for what should work, wiremock for what should not.

#[path = "../support_aws/mod.rs"]
mod support_aws;

mod faults;
mod labels;
mod quiet;
mod read;
mod replace;

/// Nobody can lose the right to replace a key.
async fn unguarded() -> Result<(), rekey::secrets::SourceError> {
    Ok(())
}
