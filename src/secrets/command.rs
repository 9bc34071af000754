//! `command:PROGRAM ARG…`: what a program prints, less one line end. [`crate::program`] runs it.

use super::{CommandSource, Fetched, KeyProvider, SourceError};

impl KeyProvider for CommandSource {
    async fn fetch(&self) -> Result<Fetched, SourceError> {
        let Some(program) = self.given() else {
            return Err(SourceError::NotGiven { source_name: self.to_string() });
        };
        let failed = |failure| SourceError::Program { source_name: self.to_string(), failure };
        let value = program.run(None).await.map_err(failed)?;
        if value.is_empty() {
            return Err(SourceError::Missing {
                source_name: self.to_string(),
                what: "the program printed nothing".into(),
                hint: "name a command that prints the key on stdout".into(),
            });
        }
        Ok(Fetched::plain(value))
    }
}
