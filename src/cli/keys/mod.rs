//! `rekey keys`: the life of both keys outside a rotation. One file per subcommand: its arguments, its questions, its
//! text and JSON. What each does is in `jobs::keys`.
//!
//! Key sources and fingerprints stay text in the arguments: clap would echo what it cannot parse, and that may be a key.
//!
//! Signals are handled only after the questions, so that Ctrl-C ends a question immediately.

mod backup;
mod destroy;
mod fingerprint;
mod generate;
mod passphrase;
mod print_new;
mod prompt;
mod restore;
mod rotate_secret_key;
mod status;
mod subject;
mod validate;

use clap::Subcommand;

use super::context::Context;
use crate::error::{Exit, Result};
use crate::manual::examples;

/// `rekey keys …`
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Generate keys where none exist, or only placeholders
    #[command(after_long_help = examples::KEYS_GENERATE)]
    Generate(generate::GenerateArgs),
    /// Check keys against every rule of the key management guide
    #[command(after_long_help = examples::KEYS_VALIDATE)]
    Validate(validate::ValidateArgs),
    /// Show where each key is, its age, and when it is due for rotation
    #[command(after_long_help = examples::KEYS_STATUS)]
    Status(status::StatusArgs),
    /// Show the fingerprint of the key in a source, never the key
    #[command(after_long_help = examples::KEYS_FINGERPRINT)]
    Fingerprint(fingerprint::FingerprintArgs),
    /// Replace SECRET_KEY; signs every user out
    #[command(after_long_help = examples::KEYS_ROTATE_SECRET_KEY)]
    RotateSecretKey(rotate_secret_key::RotateSecretKeyArgs),
    /// Write keys into an encrypted file that gpg reads too
    #[command(after_long_help = examples::KEYS_BACKUP)]
    Backup(backup::BackupArgs),
    /// Restore a key from an encrypted file
    #[command(after_long_help = examples::KEYS_RESTORE)]
    Restore(restore::RestoreArgs),
    /// Destroy a retired key permanently
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
