//! The default sources of the two keys, from the application's own settings.
//!
//! `SECRETS_BACKEND=aws` or a `--secret-layout` means Secrets Manager, anything else the environment. The three
//! layouts are those met in the wild: the guide's one secret a key, its one JSON secret, the code's own paths.

use std::str::FromStr;

use super::{AwsSource, EnvVariable, KeySource, SourceError};

/// How the application's secrets are laid out (`--secret-layout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretLayout {
    /// `$AWS_SECRET_NAME/encryption_key`, a plain string each.
    Plain,
    /// `$AWS_SECRET_NAME`, one JSON object with a field for each key; the new one waits at AWSPENDING.
    Json,
    /// `/dashtam/{environment}/security/encryption_key`, a plain string each.
    Path,
}

impl FromStr for SecretLayout {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            "path" => Ok(Self::Path),
            _ => Err("expected plain, json or path".into()),
        }
    }
}

/// The application's two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppKey {
    /// ENCRYPTION_KEY: AES-256-GCM over the credentials, exactly 32 bytes.
    Encryption,
    /// SECRET_KEY: signs access tokens, at least 32 bytes.
    Secret,
}

impl AppKey {
    /// The variable the application reads.
    pub fn variable(self) -> &'static str {
        match self {
            AppKey::Encryption => "ENCRYPTION_KEY",
            AppKey::Secret => "SECRET_KEY",
        }
    }

    /// The JSON field, and the last part of a secret's name.
    pub fn field(self) -> &'static str {
        match self {
            AppKey::Encryption => "encryption_key",
            AppKey::Secret => "secret_key",
        }
    }
}

/// The application's settings, as far as they say where its keys are. Blanks are no setting.
#[derive(Clone, Default)]
pub struct AppSettings {
    backend: Option<String>,
    secret_name: Option<String>,
    environment: Option<String>,
}

impl AppSettings {
    /// From the application's variables, as `env` has them.
    pub fn read(env: impl Fn(&str) -> Option<String>) -> AppSettings {
        let set = |name: &str| env(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        AppSettings {
            backend: set("SECRETS_BACKEND"),
            secret_name: set("AWS_SECRET_NAME"),
            environment: set("ENVIRONMENT"),
        }
    }
}

/// The sources of the old and the new encryption key, as the application's settings have them.
pub fn defaults(
    layout: Option<SecretLayout>,
    settings: &AppSettings,
) -> Result<(KeySource, KeySource), SourceError> {
    let old = application_source(AppKey::Encryption, layout, settings)?;
    let new = match old.aws() {
        Some(aws) if aws.field.is_some() => aws.at("AWSPENDING").into(),
        Some(aws) => AwsSource { secret_id: format!("{}_new", aws.secret_id), ..aws.clone() }.into(),
        None => KeySource::Env(EnvVariable::new("NEW_ENCRYPTION_KEY")),
    };
    Ok((old, new))
}

/// Where the application reads one of its keys.
pub fn application_source(
    key: AppKey,
    layout: Option<SecretLayout>,
    settings: &AppSettings,
) -> Result<KeySource, SourceError> {
    let layout = match (layout, settings.backend.as_deref()) {
        (Some(layout), _) => layout,
        (None, Some("aws")) => SecretLayout::Plain,
        (None, None | Some("env")) => return Ok(KeySource::Env(EnvVariable::new(key.variable()))),
        (None, Some(_)) => {
            return Err(SourceError::Config {
                what: "SECRETS_BACKEND is neither env nor aws".into(),
                hint: "Set SECRETS_BACKEND to the value that the application uses, or name both keys".into(),
            });
        }
    };
    let base = match (layout, settings.secret_name.clone()) {
        (_, Some(base)) => base,
        (SecretLayout::Path, None) => {
            format!("dashtam/{}", settings.environment.as_deref().unwrap_or("production"))
        }
        (_, None) => {
            return Err(SourceError::Config {
                what: "AWS_SECRET_NAME is not set, so rekey doesn't know the secret's name".into(),
                hint:
                    "Set AWS_SECRET_NAME as the application does (such as dashtam/production), or name both \
                     keys"
                        .into(),
            });
        }
    };
    let (secret_id, field) = match layout {
        SecretLayout::Plain => (format!("{}/{}", base.trim_end_matches('/'), key.field()), None),
        SecretLayout::Json => (base, Some(key.field().to_owned())),
        SecretLayout::Path => (format!("/{}/security/{}", base.trim_matches('/'), key.field()), None),
    };
    // It is recorded, and parsed again.
    Ok(AwsSource::named(secret_id, field)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(layout: Option<SecretLayout>, env: &[(&str, &str)]) -> Result<(String, String), SourceError> {
        let settings =
            AppSettings::read(|name| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()));
        defaults(layout, &settings).map(|(old, new)| (old.to_string(), new.to_string()))
    }

    #[test]
    fn defaults_follow_the_application() {
        let aws: &[(&str, &str)] = &[("SECRETS_BACKEND", "aws"), ("AWS_SECRET_NAME", "dashtam/production")];
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let none = pair("env:ENCRYPTION_KEY", "env:NEW_ENCRYPTION_KEY");
        let plain = "aws:dashtam/production/encryption_key";
        let path = "aws:/dashtam/production/security/encryption_key";
        assert_eq!(sources(None, &[]).unwrap(), none);
        assert_eq!(sources(None, &[("SECRETS_BACKEND", "env")]).unwrap(), none);
        assert_eq!(sources(None, aws).unwrap(), pair(plain, &format!("{plain}_new")));
        assert_eq!(
            sources(Some(SecretLayout::Json), aws).unwrap(),
            pair("aws:dashtam/production#encryption_key", "aws:dashtam/production#encryption_key@AWSPENDING")
        );
        assert_eq!(sources(Some(SecretLayout::Path), aws).unwrap(), pair(path, &format!("{path}_new")));
        assert_eq!(sources(Some(SecretLayout::Path), &[]).unwrap(), pair(path, &format!("{path}_new")));
        assert!(sources(None, &[("SECRETS_BACKEND", "aws")]).is_err());
        assert!(sources(None, &[("SECRETS_BACKEND", "vault")]).is_err());
        let key = [("AWS_SECRET_NAME", "4f0CHxvzqd6Zs8-umR7n_w4x4RDo1rWG")];
        assert!(sources(Some(SecretLayout::Json), &key).is_err());
    }
}
