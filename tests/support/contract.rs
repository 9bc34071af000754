//! The contract of `--output json`: one envelope around what each command prints, as docs/schema/output-v1.json describes
//! it. Judged by a validator that is not ours.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Outcome;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schema/output-v1.json");
const VALIDATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/schema.py");
const OWN: [&str; 10] =
    ["format", "command", "outcome", "exit_code", "meaning", "next", "error", "hint", "event_head", "result"];

/// Documents to be judged.
#[derive(Default)]
pub struct Contract {
    documents: Vec<(String, Value)>,
}

impl Contract {
    /// One more document, the only one that a command printed; it is returned.
    #[track_caller]
    pub fn see(&mut self, outcome: &Outcome) -> Value {
        let document = outcome.json();
        let title = format!("rekey {}", outcome.title);
        assert_eq!(document["exit_code"].as_i64(), outcome.code().map(i64::from), "{outcome}");
        self.add(title, document.clone());
        document
    }

    /// One of several.
    #[track_caller]
    pub fn add(&mut self, title: String, document: Value) {
        assert_eq!(document["format"], 1, "{title}: {document:#}");
        let fields = document["result"].as_object().into_iter().flatten();
        for (name, value) in fields.filter(|(name, _)| !OWN.contains(&name.as_str())) {
            // The list of those who are affected is too long to be printed twice.
            if document["affected"].is_array() {
                break;
            }
            assert_eq!(document.get(name), Some(value), "{title}: the copy of {name} in {document:#}");
        }
        self.documents.push((title, document));
    }

    /// The commands whose result was seen.
    pub fn commands(&self) -> BTreeSet<String> {
        let with_result = self.documents.iter().filter(|(_, document)| !document["result"].is_null());
        with_result.filter_map(|(_, document)| document["command"].as_str().map(str::to_owned)).collect()
    }

    /// What is wrong with them, by an independent validator; nothing where there is none.
    pub fn faults(&self) -> Option<Vec<String>> {
        let mut validate = Command::new(python()?);
        let validate = validate.args([VALIDATE, SCHEMA]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut validator = validate.spawn().expect("python starts");
        let mut documents = validator.stdin.take().expect("a pipe");
        for (title, document) in &self.documents {
            let line = json!({ "title": title, "document": document });
            writeln!(documents, "{line}").expect("the validator reads");
        }
        drop(documents);
        let said = validator.wait_with_output().expect("it ends");
        assert!(said.status.success(), "the validator failed");
        Some(String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect())
    }

    /// Asserts that nothing is.
    #[track_caller]
    pub fn holds(&self) {
        let Some(faults) = self.faults() else { return };
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// A Python with `jsonschema`: the one that scripts/test prepared, or any.
fn python() -> Option<&'static str> {
    const PREPARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python3");
    let works = |python: &&str| {
        let probe = Command::new(python).args(["-c", "import jsonschema"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let found = [PREPARED, "python3"].into_iter().find(works);
    if found.is_none() {
        super::skipped(format_args!(
            "no python3 with `jsonschema` (tests/requirements.txt); scripts/test installs it"
        ));
    }
    found
}
