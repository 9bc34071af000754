//! Which key a subcommand is about: a kind, a layout, or a place that is named.

use std::path::Path;

use clap::{Args, ValueEnum};

use super::super::context::Context;
use crate::error::Result;
use crate::jobs::keys::subject::Subject;
use crate::secrets::{AppKey, KeySource, SecretLayout};

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
    /// How the application lays out its secrets in Secrets Manager
    #[arg(long, env = "REKEY_SECRET_LAYOUT", hide_env_values = true, value_enum)]
    pub secret_layout: Option<SecretLayout>,
}

/// A key where it was said to be: in a source, in a dotenv file, or else where the application's settings say.
pub fn subject(
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
