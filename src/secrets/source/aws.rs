//! `aws:SECRET_ID[#JSON_FIELD][@LABEL_OR_VERSION_ID]`: a secret in AWS Secrets Manager, as it is named.

use std::fmt;

use uuid::Uuid;

use super::{Place, SourceError, bad_name};
use crate::crypto::likeness::looks_random;

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
    /// What is current in a secret whose name was put together. Refuses what cannot be a name or ARN, or may be a key; a
    /// name that looks like one can be given as its ARN.
    pub(in crate::secrets) fn named(
        secret_id: String,
        field: Option<String>,
    ) -> Result<AwsSource, SourceError> {
        is_secret_id(&secret_id)?;
        no_random_id(&secret_id)?;
        Ok(AwsSource { secret_id, field, stage_or_version: None })
    }

    /// True where [`AwsSource::stage_or_version`] is a version id for certain. Ids are UUIDs unless the writer
    /// chose another ClientRequestToken of 32 to 64 characters; those are tried as a label first.
    pub fn names_version_id(&self) -> bool {
        self.stage_or_version.as_deref().is_some_and(|s| s.len() == 36 && Uuid::try_parse(s).is_ok())
    }

    /// Whether both are the same secret, by its name or by its ARN, which ends with the name and six characters.
    pub fn is_same_secret(&self, other: &AwsSource) -> bool {
        let (one, other) = (self.secret_id.as_str(), other.secret_id.as_str());
        let is_arn_of = |arn: &str, name: &str| {
            let end = arn.split_once(":secret:").and_then(|(_, end)| end.strip_prefix(name));
            end.is_some_and(|rest| rest.is_empty() || rest.len() == 7 && rest.starts_with('-'))
        };
        one == other || is_arn_of(one, other) || is_arn_of(other, one)
    }

    /// Whether it names what is current, by that label or by none.
    pub fn names_current(&self) -> bool {
        matches!(self.stage_or_version.as_deref(), None | Some("AWSCURRENT"))
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

const A_FIELD: &str = "a secret with the name of its JSON field after the #";

impl Place for AwsSource {
    fn parse(rest: &str) -> Result<AwsSource, SourceError> {
        let (text, at) = match rest.rsplit_once('@') {
            Some((text, at)) => (text, Some(at)),
            None => (rest, None),
        };
        let (id, field) = match text.rsplit_once('#') {
            Some((id, field)) => (id, Some(field)),
            None => (text, None),
        };
        // An `@` in the middle is a name that was not escaped, or two versions: either way a guess.
        if text.contains('@') {
            return bad_name(
                "aws",
                "SECRET_ID[#JSON_FIELD][@LABEL_OR_VERSION_ID] (write an @ inside a name as %40)",
            );
        }
        let secret_id = id.replace("%40", "@");
        is_secret_id(&secret_id)?;
        if field.is_some_and(str::is_empty) {
            return bad_name("aws", A_FIELD);
        }
        let label =
            |s: &str| s.is_empty() || s.len() > 256 || !s.chars().all(|c| c.is_ascii_graphic() && c != '#');
        if at.is_some_and(label) {
            return bad_name("aws", "a secret with a staging label or version id after the @");
        }
        Ok(AwsSource {
            secret_id,
            field: field.map(|f| f.replace("%23", "#").replace("%40", "@").replace("%25", "%")),
            stage_or_version: at.map(str::to_owned),
        })
    }

    fn refuse_key(&self) -> Result<(), SourceError> {
        if self.field.as_deref().is_some_and(looks_random) {
            return bad_name("aws", A_FIELD);
        }
        no_random_id(&self.secret_id)
    }

    fn key_name(&self) -> Option<String> {
        match &self.field {
            Some(field) => Some(field.clone()),
            None => self.secret_id.rsplit('/').next().map(str::to_owned),
        }
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn is_promotable(&self) -> bool {
        true
    }

    fn is_live(&self) -> bool {
        self.names_current()
    }

    fn is_durable(&self) -> bool {
        true
    }
}

fn is_secret_id(id: &str) -> Result<(), SourceError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-!:".contains(c);
    if id.is_empty() || id.len() > 2048 || !id.chars().all(allowed) {
        return bad_name("aws", "the name or ARN of a secret");
    }
    Ok(())
}

fn no_random_id(id: &str) -> Result<(), SourceError> {
    if looks_random(id) {
        return bad_name("aws", "the name of a secret; if it is one, give the secret's ARN");
    }
    Ok(())
}
