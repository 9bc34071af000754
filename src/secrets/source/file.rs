//! `file:PATH`: a file that holds one key, as it is named.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{KeySource, Place, SourceError, bad_name};
use crate::crypto::Fingerprint;
use crate::crypto::likeness::looks_like_key;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyFile {
    /// Where it is.
    pub path: PathBuf,
}

impl fmt::Display for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.path.display())
    }
}

impl Place for KeyFile {
    fn parse(rest: &str) -> Result<KeyFile, SourceError> {
        Ok(KeyFile { path: parse_path("file", rest)? })
    }

    fn refuse_key(&self) -> Result<(), SourceError> {
        no_key_as_path("file", &self.path)
    }

    fn key_name(&self) -> Option<String> {
        Some(self.path.file_name()?.to_string_lossy().into_owned())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn in_copy(&self, copy: &Path) -> Option<KeySource> {
        Some(KeySource::File(KeyFile { path: copy.to_path_buf() }))
    }

    fn instruction(&self, fingerprint: Fingerprint) -> String {
        format!("write the key with fingerprint {fingerprint} to {}", self.path.display())
    }
}

pub(super) fn parse_path(scheme: &'static str, text: &str) -> Result<PathBuf, SourceError> {
    if text.is_empty() || text.contains('\0') { bad_name(scheme, "a path") } else { Ok(PathBuf::from(text)) }
}

pub(super) fn no_key_as_path(scheme: &'static str, path: &Path) -> Result<(), SourceError> {
    if looks_like_key(&path.to_string_lossy()) {
        return bad_name(scheme, "a path; if it is one, write it as ./PATH");
    }
    Ok(())
}
