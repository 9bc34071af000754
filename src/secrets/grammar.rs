//! How a key is named: `env:VAR`, `file:PATH`, `dotenv:PATH#VAR`, `aws:SECRET_ID[#FIELD][@STAGE_OR_VERSION_ID]`.
//!
//! Parsing is pure and never touches what is named. Anything that might be a key typed in place of its name is
//! refused without being repeated, so [`SourceError`] is the only thing to print; give these texts to clap as
//! plain strings, because clap repeats a value that its parser refuses.

use std::{fmt, path::PathBuf, str::FromStr};

use uuid::Uuid;

use super::error::SourceError;

/// The name of the place where a key is. Safe to print and to store: it holds no key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// A variable of this process's environment.
    Env(String),
    /// A file that holds the key and nothing else, one trailing line end apart.
    File(PathBuf),
    /// One variable of a dotenv file.
    Dotenv { path: PathBuf, var: String },
    /// A secret in AWS Secrets Manager.
    Aws(AwsSource),
}

/// A secret, a field of it, a version of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwsSource {
    /// Name or ARN, with a literal `@`.
    pub secret_id: String,
    /// The field, where the secret is a JSON object; `None`: the whole string is the key.
    pub field: Option<String>,
    /// A staging label or a version id; `None`: AWSCURRENT.
    pub stage_or_version: Option<String>,
}

impl AwsSource {
    /// True where [`AwsSource::stage_or_version`] is a version id for certain. Ids are UUIDs unless the writer
    /// chose another ClientRequestToken of 32 to 64 characters; those are tried as a label first.
    pub fn names_version_id(&self) -> bool {
        self.stage_or_version.as_deref().is_some_and(|s| s.len() == 36 && Uuid::try_parse(s).is_ok())
    }

    /// The same secret and field at another label or version id.
    pub fn at(&self, stage_or_version: impl Into<String>) -> AwsSource {
        AwsSource { stage_or_version: Some(stage_or_version.into()), ..self.clone() }
    }

    /// The same secret and field at whatever is current.
    pub fn at_current(&self) -> AwsSource {
        AwsSource { stage_or_version: None, ..self.clone() }
    }
}

impl KeySource {
    /// Parses the text form.
    pub fn parse(text: &str) -> Result<KeySource, SourceError> {
        let (scheme, rest) = text.split_once(':').ok_or(SourceError::NotASource)?;
        match scheme {
            "env" if is_variable(rest) && !looks_like_key(rest) => Ok(KeySource::Env(rest.to_owned())),
            "env" => {
                Err(SourceError::BadName { scheme: "env", expected: "the name of an environment variable" })
            }
            "file" => Ok(KeySource::File(parse_path("file", rest)?)),
            "dotenv" => parse_dotenv(rest),
            "aws" => parse_aws(rest).map(KeySource::Aws),
            _ => Err(SourceError::NotASource),
        }
    }
}

impl FromStr for KeySource {
    type Err = SourceError;
    fn from_str(s: &str) -> Result<Self, SourceError> {
        KeySource::parse(s)
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Env(var) => write!(f, "env:{var}"),
            KeySource::File(path) => write!(f, "file:{}", path.display()),
            KeySource::Dotenv { path, var } => write!(f, "dotenv:{}#{var}", path.display()),
            KeySource::Aws(aws) => aws.fmt(f),
        }
    }
}

impl fmt::Display for AwsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aws:{}", self.secret_id.replace('@', "%40"))?;
        if let Some(field) = &self.field {
            write!(f, "#{}", field.replace('%', "%25").replace('@', "%40").replace('#', "%23"))?;
        }
        match &self.stage_or_version {
            Some(at) => write!(f, "@{at}"),
            None => Ok(()),
        }
    }
}

fn parse_path(scheme: &'static str, text: &str) -> Result<PathBuf, SourceError> {
    let bad = text.is_empty() || text.contains('\0') || looks_like_key(text);
    if bad { Err(SourceError::BadName { scheme, expected: "a path" }) } else { Ok(PathBuf::from(text)) }
}

fn parse_dotenv(text: &str) -> Result<KeySource, SourceError> {
    let Some((path, var)) = text.rsplit_once('#') else {
        let path = parse_path("dotenv", text)?;
        return Err(SourceError::DotenvWithoutVariable { path: path.display().to_string() });
    };
    if !is_variable(var) || looks_like_key(var) {
        return Err(SourceError::BadName { scheme: "dotenv", expected: "PATH#VAR" });
    }
    Ok(KeySource::Dotenv { path: parse_path("dotenv", path)?, var: var.to_owned() })
}

fn parse_aws(text: &str) -> Result<AwsSource, SourceError> {
    let bad = |expected| SourceError::BadName { scheme: "aws", expected };
    let (text, at) = match text.rsplit_once('@') {
        Some((text, at)) => (text, Some(at)),
        None => (text, None),
    };
    let (id, field) = match text.rsplit_once('#') {
        Some((id, field)) => (id, Some(field)),
        None => (text, None),
    };
    // An `@` in the middle is a name that was not escaped, or two versions: either way a guess.
    if text.contains('@') {
        return Err(bad("SECRET_ID[#JSON_FIELD][@STAGE_OR_VERSION_ID] (write an @ inside a name as %40)"));
    }
    let secret_id = id.replace("%40", "@");
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-!:".contains(c);
    if secret_id.is_empty() || secret_id.len() > 2048 || !secret_id.chars().all(allowed) {
        return Err(bad("the name or ARN of a secret"));
    }
    if field.is_some_and(str::is_empty) {
        return Err(bad("a secret with the name of its JSON field after the #"));
    }
    let label =
        |s: &str| s.is_empty() || s.len() > 256 || !s.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if at.is_some_and(label) {
        return Err(bad("a secret with a staging label or version id after the @"));
    }
    Ok(AwsSource {
        secret_id,
        field: field.map(|f| f.replace("%23", "#").replace("%40", "@").replace("%25", "%")),
        stage_or_version: at.map(str::to_owned),
    })
}

/// `[A-Za-z_][A-Za-z0-9_]*`: what shells, dotenv files and Kubernetes agree on.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A long word of upper case, lower case and digits without `/` or `.`: more likely a key than a name.
fn looks_like_key(text: &str) -> bool {
    let has = |class: fn(&char) -> bool| text.chars().any(|c| class(&c));
    text.len() >= 24
        && !text.contains(['/', '.'])
        && has(char::is_ascii_uppercase)
        && has(char::is_ascii_lowercase)
        && has(char::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{option, prelude::*};

    fn aws(id: &str, field: Option<&str>, at: Option<&str>) -> KeySource {
        KeySource::Aws(AwsSource {
            secret_id: id.into(),
            field: field.map(Into::into),
            stage_or_version: at.map(Into::into),
        })
    }

    #[test]
    fn every_form_parses_and_prints_back() {
        let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:dashtam/production-AbCdEf";
        let id = "0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c";
        let cases = [
            ("env:ENCRYPTION_KEY", KeySource::Env("ENCRYPTION_KEY".into())),
            ("file:/run/secrets/key", KeySource::File("/run/secrets/key".into())),
            ("file:key", KeySource::File("key".into())),
            (
                "dotenv:env/.env.prod#ENCRYPTION_KEY",
                KeySource::Dotenv { path: "env/.env.prod".into(), var: "ENCRYPTION_KEY".into() },
            ),
            ("dotenv:a#b/.env#K", KeySource::Dotenv { path: "a#b/.env".into(), var: "K".into() }),
            ("aws:dashtam/production/encryption_key", aws("dashtam/production/encryption_key", None, None)),
            (
                "aws:dashtam/production#encryption_key",
                aws("dashtam/production", Some("encryption_key"), None),
            ),
            ("aws:s#f@AWSPENDING", aws("s", Some("f"), Some("AWSPENDING"))),
            ("aws:team%40bank/key@AWSPREVIOUS", aws("team@bank/key", None, Some("AWSPREVIOUS"))),
            ("aws:s#odd%40%23%25", aws("s", Some("odd@#%"), None)),
            (&format!("aws:{arn}#encryption_key@{id}"), aws(arn, Some("encryption_key"), Some(id))),
            (&format!("aws:{arn}"), aws(arn, None, None)),
        ];
        for (text, want) in cases {
            let got = KeySource::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(got, want);
            assert_eq!(got.to_string(), text);
        }
    }

    #[test]
    fn what_may_be_a_key_is_refused_and_never_repeated() {
        let key = "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi";
        for text in [
            key.to_owned(),
            "test-key-for-encryption-32-ch!@#".to_owned(),
            format!("key:{key}"),
            format!("ENV:{key}"),
            format!("env:{key}"),
            format!("env:{key}!"),
            format!("file:{key}"),
            format!("dotenv:{key}"),
            format!("dotenv:.env#{key}"),
            format!("aws:{key}$"),
            String::new(),
            "env:".to_owned(),
            "file:".to_owned(),
            "aws:".to_owned(),
            "aws:s#".to_owned(),
            "aws:s@".to_owned(),
            "aws:a@b@c".to_owned(),
            "aws:s@AWSPENDING#encryption_key".to_owned(),
        ] {
            let error = crate::error::Error::from(KeySource::parse(&text).expect_err(&text));
            assert_eq!(error.exit, crate::error::Exit::Usage, "{text}");
            let shown = format!("{error:?}");
            assert!(!shown.contains(key) && !shown.contains("test-key"), "{shown}");
        }
    }

    #[test]
    fn a_dotenv_file_needs_its_variable() {
        let error = crate::error::Error::from(KeySource::parse("dotenv:env/.env.dev").unwrap_err());
        assert_eq!(error.exit, crate::error::Exit::Usage);
        assert!(error.hint.unwrap().contains("dotenv:env/.env.dev#ENCRYPTION_KEY"));
    }

    fn source() -> impl Strategy<Value = KeySource> {
        let variable = "[A-Za-z_][A-Za-z0-9_]{0,20}";
        let path = "[ -~é]{1,11}";
        let label = "[!\"$-?A-~]{1,40}"; // no # and no @
        prop_oneof![
            variable.prop_map(KeySource::Env),
            path.prop_map(|path| KeySource::File(path.into())),
            (path, variable).prop_map(|(path, var)| KeySource::Dotenv { path: path.into(), var }),
            ("[A-Za-z0-9/_+=.@:!-]{1,60}", option::of("\\PC{1,20}"), option::of(label)).prop_map(
                |(secret_id, field, stage_or_version)| KeySource::Aws(AwsSource {
                    secret_id,
                    field,
                    stage_or_version
                })
            ),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_itself(source in source()) {
            let printed = source.to_string();
            prop_assert_eq!(KeySource::parse(&printed).unwrap_or_else(|e| panic!("{printed}: {e}")), source);
        }
    }
}
