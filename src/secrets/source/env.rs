//! `env:VAR`: a key in this process's environment, as it is named.

use std::fmt;

use super::{Place, SourceError, bad_name};
use crate::crypto::Fingerprint;
use crate::crypto::likeness::looks_like_key;

const A_VARIABLE: &str = "the name of an environment variable";

/// One variable of this process's environment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnvVariable {
    /// Its name.
    pub name: String,
}

impl EnvVariable {
    /// A variable by its name, which is not checked.
    pub fn new(name: impl Into<String>) -> EnvVariable {
        EnvVariable { name: name.into() }
    }
}

impl fmt::Display for EnvVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "env:{}", self.name)
    }
}

impl Place for EnvVariable {
    fn parse(rest: &str) -> Result<EnvVariable, SourceError> {
        if is_variable(rest) { Ok(EnvVariable::new(rest)) } else { bad_name("env", A_VARIABLE) }
    }

    fn refuse_key(&self) -> Result<(), SourceError> {
        if looks_like_key(&self.name) { bad_name("env", A_VARIABLE) } else { Ok(()) }
    }

    fn key_name(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn may_change(&self) -> bool {
        false
    }

    fn instruction(&self, fingerprint: Fingerprint) -> String {
        format!("set {} to the key with fingerprint {fingerprint} where the application starts", self.name)
    }
}

/// `[A-Za-z_][A-Za-z0-9_]*`: what shells, dotenv files and Kubernetes agree on.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
