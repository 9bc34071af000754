//! The report as text: JSON for machines, which the page carries along, a page for people, and one for a terminal.

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cli::templates::{CSS, fill, inert_json};
use crate::error::{Error, Exit, Result};
use crate::jobs::report::Report;

/// A report and its JSON, which is the same in each format.
pub struct Pages<'a> {
    report: &'a Report,
    json: String,
}

impl Pages<'_> {
    /// Of a report.
    pub fn of(report: &Report) -> Result<Pages<'_>> {
        let wrong = |e| Error::new(Exit::Internal, format!("cannot print the report: {e}"));
        let json = inert_json(&serde_json::to_string_pretty(report).map_err(wrong)?);
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
        fill("report.html", minijinja::context! { report, css, json, sha256 => self.sha256() })
    }

    /// A page for a terminal.
    pub fn text(&self) -> Result<String> {
        fill("report.txt", json!({ "report": self.report, "sha256": self.sha256() }))
    }
}
