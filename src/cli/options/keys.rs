//! Where the two keys are.

use clap::Args;

use crate::cli::variables::naming;
use crate::error::{Error, Exit, Result};
use crate::jobs::key_pair::NamedKeys;
use crate::program::Program;
use crate::secrets::{KeySource, SecretLayout};

/// Where the two keys are. Kept as text: clap would echo what it cannot parse, and that may be a key.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Keys")]
pub struct KeyArgs {
    /// Source of the old key [default: from the application's settings]
    #[arg(long, env = "REKEY_OLD_KEY", hide_env_values = true, value_name = "SOURCE")]
    pub old_key: Option<String>,
    /// Source of the new key [default: env:NEW_ENCRYPTION_KEY, or from AWS_SECRET_NAME]
    #[arg(long, env = "REKEY_NEW_KEY", hide_env_values = true, value_name = "SOURCE")]
    pub new_key: Option<String>,
    /// How the application lays out its secrets in Secrets Manager
    #[arg(long, env = "REKEY_SECRET_LAYOUT", hide_env_values = true, value_enum)]
    pub secret_layout: Option<SecretLayout>,
}

impl KeyArgs {
    /// The sources that are named; what does not parse is not echoed.
    pub fn named(&self) -> Result<NamedKeys> {
        Ok(NamedKeys {
            old: given("--old-key", &self.old_key)?,
            new: given("--new-key", &self.new_key)?,
            target: None,
            layout: self.secret_layout,
        })
    }
}

/// `--promote-command`: recorded nowhere, and run only here.
pub fn program(text: &Option<String>) -> Result<Option<Program>> {
    let parsed = |text: &String| {
        Program::parse(text).ok_or_else(|| {
            Error::new(Exit::Usage, "`--promote-command` is empty or has unmatched quotes")
                .hint("Quote it as in a shell: `--promote-command 'vault kv put kv/dashtam/key value=-'`")
        })
    };
    text.as_ref().map(parsed).transpose()
}

/// A source as given with this flag or in its variable; what does not parse is not echoed.
pub fn given(flag: &str, text: &Option<String>) -> Result<Option<KeySource>> {
    naming(flag, text.as_deref().map(KeySource::parse).transpose())
}
