//! The report as text: JSON for machines, which the page carries along, a page for people, and one for a terminal.

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{CSS, fill, inert_json};
use crate::error::{Error, Exit, Result};
use crate::jobs::report::Report;
use crate::text::json::pretty;

/// A report and its JSON, which is the same in each format.
pub struct Pages<'a> {
    report: &'a Report,
    json: String,
}

impl Pages<'_> {
    /// Of a report.
    pub fn of(report: &Report) -> Result<Pages<'_>> {
        let wrong = |e| Error::new(Exit::Internal, format!("can't print the report: {e}"));
        let json = inert_json(&pretty(report).map_err(wrong)?);
        Ok(Pages { report, json })
    }

    /// The JSON, its last line without an end.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// SHA-256 of the JSON and the end of its last line: of the file that it makes.
    pub fn sha256(&self) -> String {
        let hash = Sha256::new().chain_update(&self.json).chain_update("\n").finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// One page that needs nothing else.
    pub fn html(&self) -> Result<String> {
        let (css, json) = (Value::from_safe_string(CSS.into()), Value::from_safe_string(self.json.clone()));
        let report = Value::from(Serde(self.report));
        let (sha256, css_sha256) = (self.sha256(), base64(&Sha256::digest(CSS)));
        fill("report.html", minijinja::context! { report, css, css_sha256, json, sha256 })
    }

    /// A page for a terminal.
    pub fn text(&self) -> Result<String> {
        fill("report.txt", json!({ "report": self.report, "sha256": self.sha256() }))
    }
}

/// As a Content-Security-Policy writes a hash (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |part: &[u8]| {
        let bits =
            part.iter().chain([0; 2].iter()).take(3).fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        let digit =
            |n: usize| if n <= part.len() { char::from(DIGITS[bits >> (18 - 6 * n) & 63]) } else { '=' };
        [0, 1, 2, 3].map(digit)
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let told = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(told, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }
}
