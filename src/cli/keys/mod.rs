//! `rekey keys`: the life of both keys outside a rotation. One file per subcommand: its arguments, its questions, its
//! text and JSON. What each does is in `jobs::keys`.
//!
//! Key sources and fingerprints stay text in the arguments: clap would echo what it cannot parse, and that may be a key.
//!
//! A signal is listened for once nobody is asked any more, so that it ends a question at once.

mod backup;
mod destroy;
mod fingerprint;
mod generate;
mod passphrase;
mod print_new;
mod restore;
mod rotate_secret_key;
mod status;
mod validate;

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};

use super::context::Context;
use super::examples;
use crate::error::{Exit, Result};
use crate::jobs::keys::subject::Subject;
use crate::secrets::{AppKey, KeySource, SecretLayout};

/// `rekey keys …`
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Make new keys where there are none, or only placeholders
    #[command(after_long_help = examples::KEYS_GENERATE)]
    Generate(generate::GenerateArgs),
    /// Check keys against every rule of the key management guide
    #[command(after_long_help = examples::KEYS_VALIDATE)]
    Validate(validate::ValidateArgs),
    /// Show where keys are, how old, and when they are due
    #[command(after_long_help = examples::KEYS_STATUS)]
    Status(status::StatusArgs),
    /// Show the fingerprint of the key in a source, never the key
    #[command(after_long_help = examples::KEYS_FINGERPRINT)]
    Fingerprint(fingerprint::FingerprintArgs),
    /// Replace SECRET_KEY; every user is signed out
    #[command(after_long_help = examples::KEYS_ROTATE_SECRET_KEY)]
    RotateSecretKey(rotate_secret_key::RotateSecretKeyArgs),
    /// Write keys into an encrypted file that gpg reads too
    #[command(after_long_help = examples::KEYS_BACKUP)]
    Backup(backup::BackupArgs),
    /// Put a key from an encrypted file back into its place
    #[command(after_long_help = examples::KEYS_RESTORE)]
    Restore(restore::RestoreArgs),
    /// Let go of a retired key for good
    #[command(after_long_help = examples::KEYS_DESTROY)]
    Destroy(destroy::DestroyArgs),
}

/// Runs the command.
pub async fn run(command: KeysCommand, context: &Context) -> Result<Exit> {
    match command {
        KeysCommand::Generate(args) => generate::run(args, context).await,
        KeysCommand::Validate(args) => validate::run(args, context).await,
        KeysCommand::Status(args) => status::run(args, context).await,
        KeysCommand::Fingerprint(args) => fingerprint::run(args, context).await,
        KeysCommand::RotateSecretKey(args) => rotate_secret_key::run(args, context).await,
        KeysCommand::Backup(args) => backup::run(args, context).await,
        KeysCommand::Restore(args) => restore::run(args, context).await,
        KeysCommand::Destroy(args) => destroy::run(args, context).await,
    }
}

/// Which of the application's two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// SECRET_KEY: signs access tokens
    Secret,
    /// ENCRYPTION_KEY: encrypts credentials
    Encryption,
}

impl From<Kind> for AppKey {
    fn from(kind: Kind) -> AppKey {
        match kind {
            Kind::Secret => AppKey::Secret,
            Kind::Encryption => AppKey::Encryption,
        }
    }
}

/// How secrets are named.
#[derive(Args)]
pub struct Layout {
    /// How the application's secrets are laid out in Secrets Manager
    #[arg(long, env = "REKEY_SECRET_LAYOUT", hide_env_values = true, value_enum)]
    pub secret_layout: Option<SecretLayout>,
}

/// A key where it was said to be: in a source, in a dotenv file, or else where the application's settings say.
fn subject(
    source: Option<&str>,
    env_file: Option<&Path>,
    (kind, layout): (AppKey, &Layout),
    context: &Context,
) -> Result<Subject> {
    match (source, env_file) {
        (Some(text), _) => Ok(Subject::given(KeySource::parse(text)?, None)),
        (None, Some(path)) => Ok(Subject::dotenv(path, kind)),
        (None, None) => Subject::application(kind, layout.secret_layout, &context.application),
    }
}

/// The last line of a command's text output.
fn print_head(head: Option<&String>) {
    if let Some(head) = head {
        println!("audit chain head: {head}");
    }
}
