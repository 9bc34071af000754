//! Where a key was, as a rotation records it: text for people and for the ledger. Whether that place can be read again is
//! for `secrets` to say, which gives a recorded source its typed form.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A key source as it stands in the ledger, in canonical form. It holds no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RecordedSource(String);

impl RecordedSource {
    /// The text, as the ledger stores it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for RecordedSource {
    fn from(text: String) -> Self {
        RecordedSource(text)
    }
}

impl FromStr for RecordedSource {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(RecordedSource(text.to_owned()))
    }
}

impl fmt::Display for RecordedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
