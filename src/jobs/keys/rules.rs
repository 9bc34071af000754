//! The guide's rules for keys (sections 1, 2 and 5), as checks. Pure; lengths are in bytes, because bytes are what
//! AES and HMAC count, and characters are what misleads.

use serde::Serialize;

use crate::crypto::{Weakness, weakness};
use crate::jobs::Environment;
use crate::secrets::AppKey;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The key must not be used.
    Error,
    /// Better done otherwise.
    Warning,
}

/// One rule that a key does not keep. Holds no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFinding {
    /// Which key.
    pub key: String,
    /// How bad.
    pub severity: Severity,
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong.
    pub says: String,
}

/// A finding about a key.
pub fn finding(key: &str, severity: Severity, rule: &'static str, says: impl Into<String>) -> KeyFinding {
    KeyFinding { key: key.to_owned(), severity, rule, says: says.into() }
}

/// Judges one key by itself.
pub fn judge(title: &str, kind: AppKey, value: &[u8], environment: Environment) -> Vec<KeyFinding> {
    let mut found = Vec::new();
    let mut add = |severity, rule, says: String| found.push(finding(title, severity, rule, says));
    let length = value.len();
    match kind {
        AppKey::Encryption if length != 32 => {
            add(Severity::Error, "length", format!("{length} bytes; AES-256 takes exactly 32"));
        }
        AppKey::Secret if length < 32 => {
            add(Severity::Error, "length", format!("{length} bytes; at least 32 are required"));
        }
        AppKey::Secret if length < 64 => {
            add(Severity::Warning, "length", format!("{length} bytes; 64 are recommended"));
        }
        _ => {}
    }
    let url_safe = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if std::str::from_utf8(value).is_err() {
        add(Severity::Error, "characters", "it is not UTF-8 text, which the application requires".into());
    } else if !value.is_ascii() {
        let characters = String::from_utf8_lossy(value).chars().count();
        let says = format!(
            "it has non-ASCII characters: {characters} characters are {length} bytes, and the application \
             counts characters"
        );
        add(Severity::Error, "characters", says);
    } else if value.iter().any(u8::is_ascii_control) {
        add(Severity::Error, "characters", "it has a newline or another control character".into());
    } else if !value.iter().all(url_safe) {
        add(
            Severity::Warning,
            "characters",
            "it has characters other than A-Z a-z 0-9 - _, which shells and files may change".into(),
        );
    }
    if let Some(weak) = weakness(value) {
        let (rule, tolerated) = match weak {
            Weakness::Published => ("published", environment == Environment::Testing),
            Weakness::Placeholder => ("placeholder", environment == Environment::Testing),
            Weakness::LowEntropy => ("entropy", environment != Environment::Production),
        };
        let severity = if tolerated { Severity::Warning } else { Severity::Error };
        add(severity, rule, weak.to_string());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(kind: AppKey, value: &str, environment: Environment) -> Vec<(&'static str, bool)> {
        judge("K", kind, value.as_bytes(), environment)
            .iter()
            .map(|f| (f.rule, f.severity == Severity::Error))
            .collect()
    }

    #[test]
    fn every_rule_finds_what_it_is_for() {
        use AppKey::{Encryption, Secret};
        use Environment::{Ci, Development, Production, Testing};
        let long = "Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODlfYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4";
        type Case<'a> = (AppKey, &'a str, Environment, &'a [(&'a str, bool)]);
        let cases: [Case; 13] = [
            (Encryption, "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0", Production, &[]),
            (Encryption, "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ", Production, &[("length", true)]),
            (Encryption, "xK9+mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ0", Production, &[("characters", false)]),
            (Encryption, "xK9_mQ2vT7-pL4wR8nB3cF6hJ1dS5gZ\n", Production, &[("characters", true)]),
            (Encryption, "ÄÖÜäöüßéèêëïîôûùñ", Production, &[("length", true), ("characters", true)]),
            (
                Encryption,
                "test-key-for-encryption-32-ch!@#",
                Production,
                &[("characters", false), ("published", true)],
            ),
            (
                Encryption,
                "test-key-for-encryption-32-ch!@#",
                Testing,
                &[("characters", false), ("published", false)],
            ),
            (
                Encryption,
                "ci-key-for-encryption-test-32!@#",
                Ci,
                &[("characters", false), ("published", true)],
            ),
            (
                Secret,
                "your-secret-key-will-be-generated-by-make-keys",
                Development,
                &[("length", false), ("placeholder", true)],
            ),
            (Secret, long, Production, &[]),
            (Secret, &long[..40], Production, &[("length", false)]),
            (Secret, "mysecret", Production, &[("length", true), ("published", true)]),
            (Encryption, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Development, &[("entropy", false)]),
        ];
        for (kind, value, environment, want) in cases {
            assert_eq!(rules(kind, value, environment), want, "{value} {environment:?}");
        }
        // 16 characters, 32 bytes: AES would take it, the application would not.
        assert_eq!(rules(Encryption, "ÄÖÜäöüßéèêëïîôûù", Production), [("characters", true)]);
    }
}
