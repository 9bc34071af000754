//! All findings of one examination, and what follows from them.

use serde::Serialize;

use super::finding::{Finding, Kind, Severity};
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
    /// Rows whose update a constraint would reject; none where they could not be counted.
    pub rejected_rows: Option<u64>,
    /// The server.
    #[serde(skip)]
    pub server: Server,
}

impl Report {
    pub(super) fn new(server: Server) -> Report {
        Report {
            findings: Vec::new(),
            facts: TableFacts::default(),
            sample: None,
            rejected_rows: None,
            server,
        }
    }

    /// How a command ends that has no other reason to fail: 3 where the keys are wrong, 4 for any other refusal.
    pub fn exit(&self) -> Exit {
        exit(&self.findings)
    }

    /// This role lacks what a run needs, which is no reason not to plan one.
    pub fn may_only_look(&self) -> bool {
        self.findings.iter().any(|f| f.kind() == Kind::Privileges && f.severity == Severity::Note)
    }

    /// The report, unless [`refuse`] refuses.
    pub fn into_result(self) -> Result<Report, Error> {
        refuse(&self.findings).map(|()| self)
    }
}

/// Logs warnings, and everything that was let pass; then one error that tells every refusal, if there is one.
pub fn refuse(findings: &[Finding]) -> Result<(), Error> {
    for f in findings.iter().filter(|f| f.allowed || f.severity == Severity::Warn) {
        tracing::warn!(finding = f.name, allowed = f.allowed, remedy = f.remedy, "{}", f.message);
    }
    let refusals: Vec<&Finding> = findings.iter().filter(|f| f.refuses()).collect();
    let exit = exit(findings);
    if exit == Exit::Ok {
        return Ok(());
    }
    let told: Vec<String> = refusals.iter().map(|f| tell(f)).collect();
    let message = format!("preflight refused; nothing was written\n{}", told.join("\n"));
    let mut allowable: Vec<&str> = refusals.iter().filter(|f| f.may_be_allowed()).map(|f| f.name).collect();
    allowable.dedup();
    let hint = if allowable.is_empty() {
        "Fix the refused findings. Run `rekey plan` to see every finding".to_owned()
    } else {
        let flags: Vec<String> = allowable.iter().map(|name| format!("--allow {name}")).collect();
        format!("Fix the refused findings, or allow them with `{}`", flags.join(" "))
    };
    Err(Error::new(exit, message).hint(hint))
}

fn exit(findings: &[Finding]) -> Exit {
    match findings.iter().filter(|f| f.refuses()).map(|f| f.severity).min() {
        None => Exit::Ok,
        Some(Severity::RefuseKey) => Exit::Key,
        Some(_) => Exit::Preflight,
    }
}

/// `  name: message` and, below it, the remedy.
fn tell(f: &Finding) -> String {
    format!("  {}: {}\n    {}", f.name, f.message, f.remedy)
}
