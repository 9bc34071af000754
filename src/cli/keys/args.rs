//! Arguments of `rekey keys`. Key sources and fingerprints stay text here: clap would echo what it cannot parse,
//! and that may be a key.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand, ValueEnum};

use super::super::examples;
use crate::secrets::{AppKey, SecretLayout};

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

/// `rekey keys …`
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Make new keys where there are none, or only placeholders
    #[command(after_long_help = examples::KEYS_GENERATE)]
    Generate(GenerateArgs),
    /// Check keys against every rule of the key management guide
    #[command(after_long_help = examples::KEYS_VALIDATE)]
    Validate(ValidateArgs),
    /// Show where keys are, how old, and when they are due
    #[command(after_long_help = examples::KEYS_STATUS)]
    Status(StatusArgs),
    /// Show the fingerprint of the key in a source, never the key
    #[command(after_long_help = examples::KEYS_FINGERPRINT)]
    Fingerprint(FingerprintArgs),
    /// Replace SECRET_KEY; every user is signed out
    #[command(after_long_help = examples::KEYS_ROTATE_SECRET_KEY)]
    RotateSecretKey(RotateSecretKeyArgs),
    /// Write keys into an encrypted file that gpg reads too
    #[command(after_long_help = examples::KEYS_BACKUP)]
    Backup(BackupArgs),
    /// Put a key from an encrypted file back into its place
    #[command(after_long_help = examples::KEYS_RESTORE)]
    Restore(RestoreArgs),
    /// Let go of a retired key for good
    #[command(after_long_help = examples::KEYS_DESTROY)]
    Destroy(DestroyArgs),
}

/// `keys generate`
#[derive(Args)]
pub struct GenerateArgs {
    /// Which key [default: both]
    #[arg(value_enum)]
    pub kind: Option<Kind>,
    #[command(flatten)]
    pub destination: Destination,
    /// Replace keys that are there; the former ones stay in PATH.bak, or at AWSPREVIOUS
    #[arg(long, env = "REKEY_FORCE", hide_env_values = true, value_parser = BoolishValueParser::new(), conflicts_with = "stdout")]
    pub force: bool,
}

/// Where generated keys go.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Destination {
    /// A dotenv file: SECRET_KEY and ENCRYPTION_KEY in it
    #[arg(long, env = "REKEY_ENV_FILE", hide_env_values = true, value_name = "PATH")]
    pub env_file: Option<PathBuf>,
    /// One key's place: file:PATH, dotenv:PATH#VAR, aws:SECRET_ID[#JSON_FIELD][@AWSPENDING]
    #[arg(long, env = "REKEY_TO", hide_env_values = true, value_name = "SOURCE")]
    pub to: Option<String>,
    /// Print the keys; refuses a terminal
    #[arg(long, env = "REKEY_STDOUT", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub stdout: bool,
}

/// `keys validate`
#[derive(Args)]
pub struct ValidateArgs {
    /// One key's source [default: both keys, where the application's settings say]
    pub source: Option<String>,
    /// A dotenv file: SECRET_KEY and ENCRYPTION_KEY in it
    #[arg(
        long,
        env = "REKEY_ENV_FILE",
        hide_env_values = true,
        value_name = "PATH",
        conflicts_with = "source"
    )]
    pub env_file: Option<PathBuf>,
    /// Which key SOURCE is [default: as its name says]
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

/// `keys status`
#[derive(Args)]
pub struct StatusArgs {
    /// Key sources [default: both keys, where the application's settings say]
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// A dotenv file: SECRET_KEY and ENCRYPTION_KEY in it
    #[arg(
        long,
        env = "REKEY_ENV_FILE",
        hide_env_values = true,
        value_name = "PATH",
        conflicts_with = "sources"
    )]
    pub env_file: Option<PathBuf>,
    #[command(flatten)]
    pub layout: Layout,
}

/// `keys fingerprint`
#[derive(Args)]
pub struct FingerprintArgs {
    /// Where the key is
    pub source: String,
}

/// `keys rotate-secret-key`
#[derive(Args)]
pub struct RotateSecretKeyArgs {
    /// Where SECRET_KEY is [default: where the application's settings say]
    pub source: Option<String>,
    /// A dotenv file: SECRET_KEY in it
    #[arg(
        long,
        env = "REKEY_ENV_FILE",
        hide_env_values = true,
        value_name = "PATH",
        conflicts_with = "source"
    )]
    pub env_file: Option<PathBuf>,
    /// Bring the former SECRET_KEY back
    #[arg(long, env = "REKEY_ROLLBACK", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub rollback: bool,
    /// Do not ask
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    #[command(flatten)]
    pub layout: Layout,
}

/// `keys backup`
#[derive(Args)]
pub struct BackupArgs {
    /// Where the keys are
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// The file to write, mode 0600; one that exists is left alone
    #[arg(long, env = "REKEY_OUT", hide_env_values = true, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub passphrase: Passphrase,
}

/// `keys restore`
#[derive(Args)]
pub struct RestoreArgs {
    /// A file made by `keys backup`, or by gpg --symmetric
    pub file: PathBuf,
    /// Where the key goes
    #[arg(long, env = "REKEY_TO", hide_env_values = true, value_name = "SOURCE")]
    pub to: String,
    /// Which key of a backup that holds several: the source it was read from [default: the one named by --to]
    #[arg(long, env = "REKEY_FROM", hide_env_values = true, value_name = "SOURCE")]
    pub from: Option<String>,
    /// Do not ask
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    #[command(flatten)]
    pub passphrase: Passphrase,
}

/// `keys destroy`
#[derive(Args)]
pub struct DestroyArgs {
    /// The retired key
    #[arg(long, env = "REKEY_FINGERPRINT", hide_env_values = true, value_name = "FINGERPRINT")]
    pub fingerprint: String,
    /// The secret that holds it [default: where the application's settings say]
    pub source: Option<String>,
    /// Do not ask
    #[arg(long, env = "REKEY_YES", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub yes: bool,
    #[command(flatten)]
    pub layout: Layout,
}

/// How secrets are named.
#[derive(Args)]
pub struct Layout {
    /// How the application's secrets are laid out in Secrets Manager
    #[arg(long, env = "REKEY_SECRET_LAYOUT", hide_env_values = true, value_enum)]
    pub secret_layout: Option<SecretLayout>,
}

/// Where the passphrase comes from: this, else REKEY_BACKUP_PASSPHRASE, else a prompt.
#[derive(Args)]
pub struct Passphrase {
    /// Read the passphrase from this file descriptor, up to its first line end [default: REKEY_BACKUP_PASSPHRASE, or a prompt]
    #[arg(long, env = "REKEY_PASSPHRASE_FD", hide_env_values = true, value_name = "FD")]
    pub passphrase_fd: Option<u32>,
}
