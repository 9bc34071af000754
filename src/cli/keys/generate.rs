//! `rekey keys generate`: new keys where there are none. Values are printed by `--stdout` alone.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::json;

use super::super::context::Context;
use super::super::envelope::Document;
use super::super::last_lines::print_head;
use super::super::signals;
use super::print_new::print_new;
use super::subject::Kind;
use crate::cli::variables::naming;
use crate::error::{Exit, Result};
use crate::jobs::keys::generate::{GenerateRequest, Generated, generate};
use crate::jobs::keys::subject::{self, Subject};
use crate::jobs::keys::write::Written;
use crate::secrets::aws::Creation;
use crate::secrets::{AppKey, KeySource};

/// `keys generate`
#[derive(Args)]
pub struct GenerateArgs {
    /// Key to generate [default: both]
    #[arg(value_enum)]
    pub kind: Option<Kind>,
    #[command(flatten)]
    pub destination: Destination,
    /// Replace existing keys; the previous ones stay in PATH.bak or at AWSPREVIOUS
    #[arg(long, env = "REKEY_FORCE", hide_env_values = true, value_parser = BoolishValueParser::new(), conflicts_with = "stdout")]
    pub force: bool,
    /// The KMS key of a secret that is created [default: AWS's own]
    #[arg(long, env = "REKEY_KMS_KEY_ID", hide_env_values = true, value_name = "ID")]
    pub kms_key_id: Option<String>,
    /// A tag of a secret that is created; repeatable
    #[arg(long, env = "REKEY_TAG", hide_env_values = true, value_name = "NAME=VALUE", value_delimiter = ',', value_parser = tag)]
    pub tag: Vec<(String, String)>,
}

fn tag(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a tag is NAME=VALUE".into()),
    }
}

/// Where generated keys go.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Destination {
    /// Dotenv file with SECRET_KEY and ENCRYPTION_KEY
    #[arg(long, env = "REKEY_ENV_FILE", hide_env_values = true, value_name = "PATH")]
    pub env_file: Option<PathBuf>,
    /// Where to write one key: file:PATH, dotenv:PATH#VAR, aws:SECRET_ID[#JSON_FIELD][@AWSPENDING]
    #[arg(long, env = "REKEY_TO", hide_env_values = true, value_name = "SOURCE")]
    pub to: Option<String>,
    /// Print the keys to a file or pipe, never to a terminal
    #[arg(long, env = "REKEY_STDOUT", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub stdout: bool,
}

/// Runs the command.
pub async fn run(args: GenerateArgs, context: &Context) -> Result<Exit> {
    let kind = args.kind.map(AppKey::from);
    let mut stop = signals::listen()?;
    let wanted = subject::BOTH.into_iter().filter(|k| kind.is_none_or(|only| only == *k));
    let subjects = match (&args.destination.env_file, &args.destination.to) {
        (Some(path), _) => wanted.map(|k| Subject::dotenv(path, k)).collect(),
        (None, Some(to)) => vec![Subject::given(naming("--to", KeySource::parse(to))?, kind)],
        (None, None) => return print_new(kind, context, &mut stop).await,
    };
    let creation = Creation { kms_key_id: args.kms_key_id, tags: args.tag };
    let request = GenerateRequest { subjects, force: args.force, creation };
    let Generated { keys, failed, head } = generate(context, request, &mut stop).await?;
    if context.json() {
        let written: Vec<&Written> = keys.iter().map(|(_, w)| w).collect();
        let exit = failed.as_ref().map_or(Exit::Ok, |e| e.exit);
        let mut document = Document::new(exit, &json!({ "keys": written, "event_head": head }))?;
        // One document: a refusal beside it would be a second one.
        if let Some(e) = &failed {
            context.fail_beside_result(e);
            document = document.because(e);
        }
        context.print_json(&document)?;
        return Ok(exit);
    }
    for (s, w) in &keys {
        text(s, w, args.force);
    }
    if keys.iter().any(|(s, w)| w.changed && s.kind == Some(AppKey::Encryption)) {
        println!("32 URL-safe characters carry 192 random bits, which is ample");
    }
    print_head(head.as_deref());
    failed.map_or(Ok(Exit::Ok), Err)
}

fn text(subject: &Subject, w: &Written, forced: bool) {
    let title = subject.title();
    if !w.changed {
        let why = if forced { "is the same" } else { "already exists and is kept (`--force` replaces it)" };
        println!("{title} in {}: a key {why}, fingerprint {}", w.target, w.fingerprint);
        return;
    }
    println!("{title} in {}: generated, fingerprint {}", w.target, w.fingerprint);
    if let Some(backup) = &w.backup {
        println!("  The previous file is {}", backup.display());
    }
    match (&w.version, &w.former_version) {
        (Some(version), Some(former)) => println!("  version {version}; before: {former}"),
        (Some(version), None) => println!("  version {version}"),
        _ => {}
    }
}
