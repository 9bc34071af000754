//! `env:VAR`: a key in this process's environment.
//!
//! The copy handed out is wiped; the environment block itself belongs to the process and stays, which is why
//! preflight warns about sources that are not durable.

use std::os::unix::ffi::OsStringExt;

use zeroize::Zeroizing;

use super::{Fetched, KeyProvider, SourceError};

/// One environment variable.
pub(super) struct EnvVariable<'a>(pub &'a str);

impl KeyProvider for EnvVariable<'_> {
    async fn fetch(&self) -> Result<Fetched, SourceError> {
        let missing = |what: &str| SourceError::Missing {
            source_name: format!("env:{}", self.0),
            what: what.to_owned(),
            hint: format!("set {} in the environment of this process, or name another source", self.0),
        };
        let value = std::env::var_os(self.0).ok_or_else(|| missing("the variable is not set"))?;
        let value = Zeroizing::new(value.into_vec());
        if value.is_empty() { Err(missing("the variable is empty")) } else { Ok(Fetched::plain(value)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_variable_that_is_not_set_is_named() {
        let e = EnvVariable("REKEY_TEST_NOT_SET").fetch().await.map(|_| ()).unwrap_err();
        assert!(e.to_string().contains("REKEY_TEST_NOT_SET"));
        let cargo = EnvVariable("CARGO_PKG_NAME").fetch().await.map(|f| f.value.to_vec()).unwrap();
        assert_eq!(cargo, b"rekey");
    }
}
