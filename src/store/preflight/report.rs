//! All findings of one examination, and what follows from them.

use serde::Serialize;

use super::finding::{Finding, Severity};
use super::sample::Sample;
use crate::error::{Error, Exit};
use crate::rotation::TableFacts;
use crate::store::connect::Server;

/// What an examination found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Refusals first.
    pub findings: Vec<Finding>,
    /// The planner's statistics; zeros where the table could not be looked at.
    pub facts: TableFacts,
    /// Rows by the key that opens them, where keys were given and rows could be read.
    pub sample: Option<Sample>,
    /// The server.
    #[serde(skip)]
    pub server: Server,
}

impl Report {
    pub(super) fn new(server: Server) -> Report {
        Report { findings: Vec::new(), facts: TableFacts::default(), sample: None, server }
    }

    /// What stops the command.
    pub fn refusals(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.refuses())
    }

    /// How a command ends that has no other reason to fail: 3 where the keys are wrong, 4 for any other refusal.
    pub fn exit(&self) -> Exit {
        match self.refusals().map(|f| f.severity).min() {
            None => Exit::Ok,
            Some(Severity::RefuseKey) => Exit::Key,
            Some(_) => Exit::Preflight,
        }
    }

    /// Logs warnings, and everything that was let pass; then the report, or one error that tells every refusal.
    pub fn into_result(self) -> Result<Report, Error> {
        for f in self.findings.iter().filter(|f| f.allowed || f.severity == Severity::Warn) {
            tracing::warn!(finding = f.name, allowed = f.allowed, remedy = f.remedy, "{}", f.message);
        }
        let exit = self.exit();
        if exit == Exit::Ok {
            return Ok(self);
        }
        let told: Vec<String> = self.refusals().map(tell).collect();
        let message = format!("preflight refuses, and nothing was written\n{}", told.join("\n"));
        let mut allowable: Vec<&str> =
            self.refusals().filter(|f| f.may_be_allowed()).map(|f| f.name).collect();
        allowable.dedup();
        let hint = if allowable.is_empty() {
            "mend what is named above; rekey plan shows the whole picture".to_owned()
        } else {
            let flags: Vec<String> = allowable.iter().map(|name| format!("--allow {name}")).collect();
            format!("mend what is named above, or let it pass with {}", flags.join(" "))
        };
        Err(Error::new(exit, message).hint(hint))
    }
}

/// `  name: message` and, below it, the remedy.
fn tell(f: &Finding) -> String {
    format!("  {}: {}\n    {}", f.name, f.message, f.remedy)
}
