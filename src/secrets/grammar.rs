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
    /// Parses the text form, as somebody typed it: what looks like a key is refused, and not repeated.
    pub fn parse(text: &str) -> Result<KeySource, SourceError> {
        let source = KeySource::recorded(text)?;
        source.is_no_key()?;
        Ok(source)
    }

    fn is_no_key(&self) -> Result<(), SourceError> {
        let bad = |scheme, expected| Err(SourceError::BadName { scheme, expected });
        const PATH: &str = "a path; if it is one, write it as ./PATH";
        match self {
            KeySource::Env(var) if looks_like_key(var) => bad("env", "the name of an environment variable"),
            KeySource::File(path) if looks_like_key(&path.to_string_lossy()) => bad("file", PATH),
            KeySource::Dotenv { var, .. } if looks_like_key(var) => bad("dotenv", "PATH#VAR"),
            KeySource::Dotenv { path, .. } if looks_like_key(&path.to_string_lossy()) => bad("dotenv", PATH),
            KeySource::Aws(aws) => {
                if aws.field.as_deref().is_some_and(looks_random) {
                    return bad("aws", "a secret with the name of its JSON field after the #");
                }
                no_random_id(&aws.secret_id)
            }
            _ => Ok(()),
        }
    }

    /// Parses what the ledger holds: whatever it looks like, it was a source.
    pub fn recorded(text: &str) -> Result<KeySource, SourceError> {
        let (scheme, rest) = text.split_once(':').ok_or(SourceError::NotASource)?;
        match scheme {
            "env" if is_variable(rest) => Ok(KeySource::Env(rest.to_owned())),
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
    let bad = |expected| Err(SourceError::BadName { scheme, expected });
    match text {
        _ if text.is_empty() || text.contains('\0') => bad("a path"),
        _ => Ok(PathBuf::from(text)),
    }
}

fn parse_dotenv(text: &str) -> Result<KeySource, SourceError> {
    let Some((path, var)) = text.rsplit_once('#') else {
        let path = parse_path("dotenv", text)?;
        if looks_like_key(text) {
            return Err(SourceError::BadName { scheme: "dotenv", expected: "PATH#VAR" });
        }
        return Err(SourceError::DotenvWithoutVariable { path: path.display().to_string() });
    };
    if !is_variable(var) {
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
    is_secret_id(&secret_id)?;
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

/// Refuses what cannot be the name or ARN of a secret, or may be a key. A name that looks like one can be given as its ARN.
pub(super) fn check_secret_id(id: &str) -> Result<(), SourceError> {
    is_secret_id(id)?;
    no_random_id(id)
}

fn is_secret_id(id: &str) -> Result<(), SourceError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-!:".contains(c);
    let bad = |expected| Err(SourceError::BadName { scheme: "aws", expected });
    if id.is_empty() || id.len() > 2048 || !id.chars().all(allowed) {
        return bad("the name or ARN of a secret");
    }
    Ok(())
}

fn no_random_id(id: &str) -> Result<(), SourceError> {
    let expected = "the name of a secret; if it is one, give the secret's ARN";
    if looks_random(id) { Err(SourceError::BadName { scheme: "aws", expected }) } else { Ok(()) }
}

/// `[A-Za-z_][A-Za-z0-9_]*`: what shells, dotenv files and Kubernetes agree on.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// More likely a key than the name of a variable or a file: random, or a long word of upper case, lower case and digits
/// without `/` or `.`.
fn looks_like_key(text: &str) -> bool {
    let has = |class: fn(&char) -> bool| text.chars().any(|c| class(&c));
    looks_random(text)
        || text.len() >= 24
            && !text.contains(['/', '.'])
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit)
}

/// What a generator prints for a key: 16, 32 or 64 bytes as hex, or 24, 32, 48 or 64 as base64 of either alphabet. Random
/// base64 changes between upper case, lower case, digits and signs at two thirds of its places, at a third at least (32
/// characters: all but one in 2000); names seldom do, and a path with a word in it is one.
fn looks_random(text: &str) -> bool {
    let class = |b: u8| match b {
        b'A'..=b'Z' => Some('A'),
        b'a'..=b'z' => Some('a'),
        b'0'..=b'9' => Some('0'),
        b'+' | b'/' | b'-' | b'_' | b'=' => Some('/'),
        _ => None,
    };
    let Some(classes) = text.bytes().map(class).collect::<Option<Vec<char>>>() else { return false };
    let changes = classes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let is_path = text.contains('/') && classes.windows(6).any(|run| run == ['a'; 6]);
    match text.len() {
        32 | 64 | 128 if text.bytes().all(|b| b.is_ascii_hexdigit()) => true,
        32 | 43 | 44 | 64 | 86 | 88 => {
            3 * changes >= text.len() && classes.contains(&'A') && classes.contains(&'a') && !is_path
        }
        _ => false,
    }
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

    /// CloudFormation's names may look like one; a ledger that holds such a name is read all the same.
    #[test]
    fn what_was_recorded_is_a_source_whatever_it_looks_like() {
        for text in ["aws:TokenSecretA720EF05-k8XzYt1Q2wEr", "file:0123456789abcdef0123456789ABCDEF"] {
            assert!(KeySource::parse(text).is_err(), "{text}");
            assert_eq!(
                KeySource::recorded(text).map(|source| source.to_string()).ok().as_deref(),
                Some(text)
            );
        }
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
            format!("aws:{key}"),
            format!("aws:{key}@AWSPENDING"),
            format!("aws:dashtam#{key}"),
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

    /// As `openssl rand` and Python's `secrets` print them.
    #[test]
    fn generated_keys_of_every_form_are_refused() {
        for key in [
            "b115f95a86f052185186bbb6f21adba4", // 16 bytes, hex
            "27100c598ffceec8021b1a4c92678d5b09610273675f8c13841bd7aafea2dca0",
            "t3SV5Wzf52TyWGARkKqeGUayD1UdtovF", // 24 bytes
            "POzEThlVbcaYpzpQqVCtOfVqxEWEohLN", // no digit
            "4f0CHxvzqd6Zs8-umR7n_w4x4RDo1rWG", // URL-safe
            "JAlZovVz5IzRW/mOl1n/1LH3LdPgDTdN",
            "4v5o+sQ+IhdJdMyYYmxbp/tMY/HHi1BKfKeS0Mba8HI=", // 32 bytes
            "bbi1S5vwOiR7WuOURvMu0gLwWtsh4S9MaqiUvzZ4sRs",
            "FrcKlkYwIkSEZwwVVmDxqlDI7ZowJqsY8mpnMrwW3SslTEZIV2byqr7CkrNo2TtN", // 48 bytes
            "iC9+59zMb6HD0K2OlPjXTMUwbZgCvhIgpXaiYrITqml2+O/XQgBaguA/0zIxLs+E",
        ] {
            for text in [
                format!("aws:{key}"),
                format!("aws:{key}#encryption_key@AWSCURRENT"),
                format!("file:{key}"),
                format!("dotenv:{key}"),
                format!("dotenv:{key}#ENCRYPTION_KEY"),
            ] {
                let error = crate::error::Error::from(KeySource::parse(&text).expect_err(&text));
                assert_eq!(error.exit, crate::error::Exit::Usage, "{text}");
                assert!(!format!("{error:?}").contains(key), "{error:?}");
            }
        }
    }

    #[test]
    fn names_that_are_as_long_as_a_key_are_names() {
        for text in [
            "aws:dashtam-production-encryption-ke",             // 32 characters
            "aws:dashtam-2024-q3-encryption-key-1",             // 32
            "aws:dashtam_production_encryption_k2",             // 32
            "aws:DashtamProductionEncryptionKeyEu",             // 32
            "aws:Prod/App1/EncKey2/encryption_key",             // 32
            "aws:dashtam/production/security/encryption-key-2", // 44
            "aws:MySecretA720EF05-k8XzYt1Q2wEr",                // as CloudFormation names them
            "aws:arn:aws:secretsmanager:eu-west-1:123456789012:secret:4f0CHxvzqd6Zs8-umR7n_w4x4RDo1rWG-AbCdEf",
            "aws:dashtam@0123456789abcdef0123456789abcdef", // a version id
            "file:/run/secrets/dashtam/encryption1",        // 32
            "file:/run/secrets/encryption_key",
            "file:./b115f95a86f052185186bbb6f21adba4",
            "dotenv:/srv/Dashtam2/App/Production/env#ENCRYPTION_KEY", // 32
        ] {
            KeySource::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
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
            if let KeySource::Aws(aws) = &source {
                prop_assume!(!looks_random(&aws.secret_id));
            }
            prop_assert_eq!(KeySource::parse(&printed).unwrap_or_else(|e| panic!("{printed}: {e}")), source);
        }
    }
}
