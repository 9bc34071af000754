//! `env:VAR`: a key in this process's environment.
//!
//! The copy handed out is wiped; the environment block itself belongs to the process and stays, which is why
//! preflight warns about sources that are not durable.

use std::os::unix::ffi::OsStringExt;

use zeroize::Zeroizing;

use super::{EnvVariable, Fetched, KeyProvider, SourceError};

impl KeyProvider for EnvVariable {
    async fn fetch(&self) -> Result<Fetched, SourceError> {
        let missing = |what: &str| SourceError::Missing {
            source_name: self.to_string(),
            what: what.to_owned(),
            hint: format!("Set {} in the environment of this process, or name another source", self.name),
        };
        crate::program::withhold(&self.name);
        let value = std::env::var_os(&self.name).ok_or_else(|| missing("the variable is not set"))?;
        let value = Zeroizing::new(value.into_vec());
        if value.is_empty() { Err(missing("the variable is empty")) } else { Ok(Fetched::plain(value)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_variable_that_is_not_set_is_named() {
        let e = EnvVariable::new("REKEY_TEST_NOT_SET").fetch().await.map(|_| ()).unwrap_err();
        assert!(e.to_string().contains("REKEY_TEST_NOT_SET"));
        let cargo = EnvVariable::new("CARGO_PKG_NAME").fetch().await.map(|f| f.value.to_vec()).unwrap();
        assert_eq!(cargo, b"rekey");
    }
}
