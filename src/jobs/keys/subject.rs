//! Which keys a job is about: a source given, a dotenv file's two variables, or the application's settings.

use std::path::Path;

use crate::error::{Error, Exit, Result};
use crate::secrets::{AppKey, AppSettings, KeySource, SecretLayout, application_source};

/// A key and where it is.
pub struct Subject {
    /// Which of the two, where that is known.
    pub kind: Option<AppKey>,
    /// Its place.
    pub source: KeySource,
}

impl Subject {
    /// A source as given; its name says which key it is, unless `kind` does.
    pub fn given(source: KeySource, kind: Option<AppKey>) -> Subject {
        Subject { kind: kind.or_else(|| kind_of(&source)), source }
    }

    /// One of a dotenv file's variables.
    pub fn dotenv(path: &Path, kind: AppKey) -> Subject {
        Subject { kind: Some(kind), source: KeySource::dotenv_variable(path, kind.variable()) }
    }

    /// Where the application's settings say.
    pub fn application(
        kind: AppKey,
        layout: Option<SecretLayout>,
        settings: &AppSettings,
    ) -> Result<Subject> {
        Ok(Subject { kind: Some(kind), source: application_source(kind, layout, settings)? })
    }

    /// SECRET_KEY, ENCRYPTION_KEY, or the source itself.
    pub fn title(&self) -> String {
        self.kind.map_or_else(|| self.source.to_string(), |kind| kind.variable().to_owned())
    }
}

/// SECRET_KEY first, as in the guide.
pub const BOTH: [AppKey; 2] = [AppKey::Secret, AppKey::Encryption];

/// Both keys, in a dotenv file or where the application's settings say.
pub fn both(
    env_file: Option<&Path>,
    layout: Option<SecretLayout>,
    settings: &AppSettings,
) -> Result<Vec<Subject>> {
    BOTH.into_iter()
        .map(|kind| match env_file {
            Some(path) => Ok(Subject::dotenv(path, kind)),
            None => Subject::application(kind, layout, settings),
        })
        .collect()
}

/// Which key a place is for, as its name says.
pub fn kind_of(source: &KeySource) -> Option<AppKey> {
    let name = source.key_name()?.to_ascii_lowercase().replace('-', "_");
    match (name.contains("secret_key"), name.contains("encryption_key")) {
        (true, false) => Some(AppKey::Secret),
        (false, true) => Some(AppKey::Encryption),
        _ => None,
    }
}

/// Refuses a place that cannot be written.
pub fn writable(source: &KeySource) -> Result<()> {
    if source.is_writable() {
        return Ok(());
    }
    Err(Error::new(Exit::Usage, format!("rekey can't write {source}: it belongs to this process")).hint(
        "Name the file or secret that sets the variable: `--env-file PATH`, `file:PATH` or `aws:SECRET_ID`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_says_which_key_it_is_for() {
        for (text, kind) in [
            ("env:SECRET_KEY", Some(AppKey::Secret)),
            ("env:NEW_ENCRYPTION_KEY", Some(AppKey::Encryption)),
            ("dotenv:env/.env.dev#ENCRYPTION_KEY", Some(AppKey::Encryption)),
            ("file:/run/secrets/secret-key", Some(AppKey::Secret)),
            ("file:/run/secrets/key", None),
            ("aws:dashtam/production/encryption_key_new", Some(AppKey::Encryption)),
            ("aws:dashtam/production#secret_key@AWSPREVIOUS", Some(AppKey::Secret)),
            ("aws:dashtam/secret_keys/production", None),
        ] {
            assert_eq!(kind_of(&KeySource::parse(text).unwrap_or_else(|e| panic!("{e}"))), kind, "{text}");
        }
    }
}
