//! `rekey keys validate`: every rule, both keys, all findings at once; 0 or 3.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::super::context::Context;
use super::super::envelope::Document;
use super::super::last_lines::print_head;
use super::subject::{Kind, Layout};
use crate::error::{Exit, Result};
use crate::jobs::keys::rules::Severity;
use crate::jobs::keys::subject::{Subject, both};
use crate::jobs::keys::validate::{CheckedKey, validate};
use crate::secrets::{AppKey, KeySource};

/// `keys validate`
#[derive(Args)]
pub struct ValidateArgs {
    /// Source of one key [default: both keys, from the application's settings]
    pub source: Option<String>,
    /// Dotenv file with SECRET_KEY and ENCRYPTION_KEY
    #[arg(
        long,
        env = "REKEY_ENV_FILE",
        hide_env_values = true,
        value_name = "PATH",
        conflicts_with = "source"
    )]
    pub env_file: Option<PathBuf>,
    /// Kind of key in SOURCE [default: from its name]
    #[arg(
        long = "as",
        env = "REKEY_AS",
        hide_env_values = true,
        value_enum,
        value_name = "KIND",
        requires = "source"
    )]
    pub kind: Option<Kind>,
    #[command(flatten)]
    pub layout: Layout,
}

/// Runs the command.
pub async fn run(args: ValidateArgs, context: &Context) -> Result<Exit> {
    let subjects = match &args.source {
        Some(text) => vec![Subject::given(KeySource::parse(text)?, args.kind.map(Into::into))],
        None => both(args.env_file.as_deref(), args.layout.secret_layout, &context.application)?,
    };
    let done = validate(context, subjects).await?;
    let errors = done.errors();
    let exit = if errors == 0 { Exit::Ok } else { Exit::Key };
    if context.json() {
        let keys: Vec<_> = done.keys.iter().map(as_json).collect();
        let result = json!({ "valid": errors == 0, "keys": keys, "event_head": done.head });
        context.print_json(&Document::new(exit, &result)?)?;
    } else {
        for c in &done.keys {
            text(c);
        }
        match errors {
            0 => println!("all keys are valid"),
            1 => println!(
                "1 error; next: fix it. To replace the key, run `rekey keys generate NAME --to SOURCE --force`"
            ),
            n => {
                println!(
                    "{n} errors; next: fix each. To replace a key, run `rekey keys generate NAME --to SOURCE --force`"
                )
            }
        }
        print_head(done.head.as_deref());
    }
    Ok(exit)
}

fn as_json(c: &CheckedKey) -> serde_json::Value {
    json!({
        "key": c.kind.variable(),
        "source": c.subject.source,
        "bytes": c.seen.map(|(bytes, _)| bytes),
        "fingerprint": c.seen.map(|(_, fingerprint)| fingerprint),
        "findings": c.findings,
    })
}

fn text(c: &CheckedKey) {
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
