//! Finding a rotation's key again by its fingerprint, whatever the names yield by then.
//!
//! Names only say where to look. What is found is judged by the caller, who alone knows the recorded fingerprint.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use uuid::Uuid;

use crate::error::Exit;

use super::{
    AwsSource, DotenvVariable, Fetched, KeySource, SourceError, Sources, aws::promote_label, dotenv,
};

/// Where one of a rotation's two keys may be.
pub struct Trail<'a> {
    /// The rotation.
    pub rotation: Uuid,
    /// The source that the first `run` recorded for this role.
    pub recorded: &'a KeySource,
    /// The secret's ARN and version id at that time, where it was a secret.
    pub version: Option<(&'a str, &'a str)>,
    /// Our pin label on that version (`old_pin` or `new_pin`).
    pub pin: &'a str,
    /// The source given on this command line.
    pub given: Option<&'a KeySource>,
    /// The source that the application reads: for the old key always, for the new one from `promoting` on.
    pub target: Option<&'a KeySource>,
    /// For the new key, from `promoting` on: what promote made of the target, whatever is current there now.
    pub promoted: Option<Promoted<'a>>,
}

/// What a promotion made.
pub struct Promoted<'a> {
    /// The version, once it was recorded: a killed one may have put it under its label, and no more.
    pub version: Option<&'a str>,
}

impl Trail<'_> {
    /// Every place to look, the most certain first, each once.
    pub fn candidates(&self) -> Vec<KeySource> {
        let mut places = Vec::new();
        if let Some(aws) = self.recorded.aws() {
            if let Some((arn, version_id)) = self.version {
                let secret_id = if arn.is_empty() { aws.secret_id.clone() } else { arn.to_owned() };
                places.push(AwsSource { secret_id, ..aws.at(version_id) }.into());
            }
            places.push(aws.at(self.pin).into());
        }
        places.push(self.recorded.clone());
        places.extend(self.given.cloned());
        places.extend(self.target.cloned());
        if let (Some(aws), Some(promoted)) = (self.target.and_then(KeySource::aws), &self.promoted) {
            let at = promoted.version.map(str::to_owned).into_iter().chain([promote_label(self.rotation)]);
            places.extend(at.map(|at| aws.at(at).into()));
        }
        for place in [Some(self.recorded), self.target].into_iter().flatten() {
            if let Some(aws) = place.aws() {
                places.extend(["AWSPREVIOUS", self.pin].map(|label| aws.at(label).into()));
            }
            if let Some(DotenvVariable { path, .. }) = place.dotenv() {
                let suffixes = [dotenv::old_key_suffix(self.rotation), dotenv::new_key_suffix(self.rotation)];
                let copies = suffixes.map(|suffix| dotenv::backup_path(path, &suffix));
                places.extend(copies.iter().filter_map(|copy| place.in_copy(copy)));
            }
        }
        // What `keys generate --force` replaced, or `keys restore`, is beside the file.
        for place in [Some(self.recorded), self.given, self.target].into_iter().flatten() {
            let copies = place.file().map(dotenv::copies).unwrap_or_default();
            places.extend(copies.iter().filter_map(|copy| place.in_copy(copy)));
        }
        let mut seen = std::collections::HashSet::new();
        places.retain(|place| seen.insert(place.clone()));
        places
    }
}

/// Whether what changes the one place changes the other: a file by another name, a secret by its ARN. A version of a secret
/// stays as it is; a label that is not rekey's moves on.
pub fn is_same_place(one: &KeySource, other: &KeySource) -> bool {
    match (one, other) {
        (KeySource::Aws(one), KeySource::Aws(other)) => {
            let stays = |aws: &AwsSource| {
                let at = aws.stage_or_version.as_deref();
                aws.names_version_id() || at.is_some_and(|at| at.starts_with("rekey-"))
            };
            one.field == other.field && one.is_same_secret(other) && !stays(one) && !stays(other)
        }
        (KeySource::Command(one), KeySource::Command(other)) => one.is_same_text(other),
        (KeySource::Dotenv(one), KeySource::Dotenv(other)) => {
            one.var == other.var && is_same_file(&one.path, &other.path)
        }
        _ => match (one.file(), other.file()) {
            (Some(one), Some(other)) => is_same_file(one, other),
            _ => one == other,
        },
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let found = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    one == other || found(one).is_some_and(|file| found(other) == Some(file))
}

/// The result of a search.
pub enum Search {
    /// The first place that yields the key.
    Found { source: KeySource, fetched: Fetched },
    /// No place does. Each is named with what was found there instead, for the error message.
    Nowhere { looked: Vec<String> },
}

impl Sources {
    /// The first of the places whose value is the one. Places that yield nothing are passed over; a backend that is
    /// unreachable, or that our settings or credentials do not open, is an error only if no other place yields the key.
    pub async fn find(
        &self,
        places: &[KeySource],
        is_it: impl Fn(&[u8]) -> bool,
    ) -> Result<Search, SourceError> {
        let (mut looked, mut unreachable, mut aws_is_away) = (Vec::new(), None, false);
        for source in places {
            let is_aws = source.aws().is_some();
            // The others of the same backend would each wait their minute, too.
            if is_aws && aws_is_away {
                continue;
            }
            match self.fetch(source).await {
                Ok(fetched) if is_it(&fetched.value) => {
                    return Ok(Search::Found { source: source.clone(), fetched });
                }
                Ok(_) => looked.push(format!("{source} (another key)")),
                Err(e @ SourceError::Unavailable { .. }) => {
                    looked.push(format!("{source} (unreachable)"));
                    unreachable = Some(e);
                    aws_is_away |= is_aws;
                }
                Err(SourceError::Denied { action, .. }) => looked.push(format!("{source} ({action} denied)")),
                Err(SourceError::Missing { .. }) => looked.push(format!("{source} (not found)")),
                Err(e @ SourceError::Config { .. }) => {
                    looked.push(format!("{source} (can't be read)"));
                    unreachable.get_or_insert(e);
                }
                Err(SourceError::Io { operation, cause, .. }) => {
                    looked.push(format!("{source} (can't {operation}: {cause})"));
                }
                Err(SourceError::NotGiven { .. }) => {
                    looked.push(format!("{source} (not run: this invocation does not name it)"));
                }
                Err(SourceError::Program { failure, .. }) if failure.exit() == Exit::Unavailable => {
                    looked.push(format!("{source} ({failure})"));
                    unreachable
                        .get_or_insert(SourceError::Program { source_name: source.to_string(), failure });
                }
                Err(SourceError::Program { failure, .. }) => looked.push(format!("{source} ({failure})")),
                Err(SourceError::Refused { detail, .. }) => looked.push(format!("{source} ({detail})")),
                Err(_) => looked.push(format!("{source} (no key there)")),
            }
        }
        unreachable.map_or(Ok(Search::Nowhere { looked }), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> KeySource {
        KeySource::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_trail_begins_with_what_was_recorded() {
        let rotation = Uuid::try_parse("0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c").unwrap();
        let (recorded, target) = (source("aws:new"), source("dotenv:a/.env#ENCRYPTION_KEY"));
        let trail = Trail {
            rotation,
            recorded: &recorded,
            version: Some(("arn:aws:x:secret:new-AbCdEf", "v1")),
            pin: "rekey-new-2f3a4b5c",
            given: Some(&recorded),
            target: Some(&target),
            promoted: None,
        };
        let shown: Vec<_> = trail.candidates().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "aws:arn:aws:x:secret:new-AbCdEf@v1",
                "aws:new@rekey-new-2f3a4b5c",
                "aws:new",
                "dotenv:a/.env#ENCRYPTION_KEY",
                "aws:new@AWSPREVIOUS",
                "dotenv:a/.env.rekey-2f3a4b5c.bak#ENCRYPTION_KEY",
                "dotenv:a/.env.rekey-2f3a4b5c.new.bak#ENCRYPTION_KEY",
            ]
        );
    }

    #[test]
    fn what_promote_made_is_looked_for_too() {
        let rotation = Uuid::try_parse("0193b3b0-7d3e-7c1a-9a52-0d1e2f3a4b5c").unwrap();
        let (recorded, target) = (source("aws:new"), source("aws:app#encryption_key"));
        let trail = Trail {
            rotation,
            recorded: &recorded,
            version: None,
            pin: "rekey-new-2f3a4b5c",
            given: None,
            target: Some(&target),
            promoted: Some(Promoted { version: Some("v2") }),
        };
        let shown: Vec<_> = trail.candidates().iter().map(ToString::to_string).collect();
        for place in [
            "aws:app#encryption_key",
            "aws:app#encryption_key@v2",
            "aws:app#encryption_key@rekey-promote-2f3a4b5c",
        ] {
            assert!(shown.iter().any(|s| s == place), "{place} is not in {shown:?}");
        }
    }

    #[test]
    fn what_was_replaced_by_force_is_looked_for_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".env", ".env.bak", ".env.bak.2", ".env.bak.x", ".env.dev.bak"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let file = dir.path().join(".env");
        let recorded = source(&format!("dotenv:{}#K", file.display()));
        let (rotation, pin) = (Uuid::nil(), "rekey-old-00000000");
        let (version, given, target, promoted) = (None, None, None, None);
        let trail = Trail { rotation, recorded: &recorded, version, pin, given, target, promoted };
        let shown: Vec<_> = trail.candidates().iter().map(ToString::to_string).collect();
        let found = [".bak", ".bak.2"].map(|suffix| format!("dotenv:{}{suffix}#K", file.display()));
        assert_eq!(shown[3..], found);
    }

    #[tokio::test]
    async fn the_fingerprint_decides_and_the_places_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "the key").unwrap();
        let places = [source("env:REKEY_TEST_NOT_SET"), source(&format!("file:{}", path.display()))];
        let sources = Sources::from_env();
        match sources.find(&places, |v| v == b"the key").await.unwrap() {
            Search::Found { source, .. } => assert_eq!(source, places[1]),
            Search::Nowhere { looked } => panic!("{looked:?}"),
        }
        match sources.find(&places, |_| false).await.unwrap() {
            Search::Found { .. } => panic!("found"),
            Search::Nowhere { looked } => {
                assert_eq!(looked[0], "env:REKEY_TEST_NOT_SET (not found)");
                assert!(looked[1].ends_with("(another key)"));
            }
        }
    }
}
