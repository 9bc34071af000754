//! The one form of JSON on stdout. A command hands in how it ended, what comes next and its result; the envelope around
//! them is written here and nowhere else, so that no command can print JSON without it. `docs/schema/output-v1.json`
//! describes it, docs/json.md explains it.
//!
//! Format 1 repeats the fields of `result` at the top level, where they stood before there was an envelope.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::error::{Error, Exit, Result};
use crate::rotation::Step;
use crate::text::json;
use crate::text::printable::printable;

/// Version of the envelope. A field that goes, or changes its meaning, makes a new one.
const FORMAT: u8 = 1;

/// The envelope's own fields. A result's field of such a name stands in `result` alone.
const OWN: [&str; 10] =
    ["format", "command", "outcome", "exit_code", "meaning", "next", "error", "hint", "event_head", "result"];

/// How a command ended, and what it found.
#[derive(Debug)]
pub struct Document {
    outcome: String,
    exit: Exit,
    next: Vec<String>,
    error: Option<Error>,
    event_head: Option<String>,
    /// Nothing where the result was printed [beside it](Document::around).
    result: Option<Value>,
    more: Option<Value>,
}

impl Document {
    /// A command's result, with the code that it ends with.
    pub fn new(exit: Exit, result: &impl Serialize) -> Result<Document> {
        let result = serde_json::to_value(result).map_err(wrong)?;
        let event_head = result["event_head"].as_str().map(str::to_owned);
        Ok(Document { event_head, result: Some(result), ..Document::without_result(exit) })
    }

    /// For a result that a [`List`](super::list::List) has printed.
    pub fn without_result(exit: Exit) -> Document {
        let outcome = if exit == Exit::Ok { "ok" } else { "failed" };
        Document {
            outcome: outcome.to_owned(),
            exit,
            next: Vec::new(),
            error: None,
            event_head: None,
            result: None,
            more: None,
        }
    }

    /// An error before there was a result.
    pub fn refused(error: &Error, event_head: Option<&str>) -> Document {
        let refused = Document::without_result(error.exit).head(event_head).because(error).outcome("error");
        Document { result: Some(Value::Null), ..refused }
    }

    /// How it ended, in words, for whoever reads the document. Code compares `exit_code`.
    #[must_use]
    pub fn outcome(mut self, outcome: &str) -> Document {
        outcome.clone_into(&mut self.outcome);
        self
    }

    /// What to do next, the first thing first.
    #[must_use]
    pub fn next(mut self, steps: &[Step]) -> Document {
        self.next = steps.iter().map(ToString::to_string).collect();
        self
    }

    /// The same in words that are there already.
    #[must_use]
    pub fn next_words(mut self, steps: &[String]) -> Document {
        steps.clone_into(&mut self.next);
        self
    }

    /// The head of the audit chain, where the result does not say it.
    #[must_use]
    pub fn head(mut self, head: Option<&str>) -> Document {
        self.event_head = head.map(str::to_owned);
        self
    }

    /// What went wrong. What its hint names is what to do next.
    #[must_use]
    pub fn because(mut self, error: &Error) -> Document {
        self.next = error.hint.as_deref().map(commands).unwrap_or_default();
        self.error = Some(error.clone());
        self
    }

    /// Fields at the top level that are not in the result.
    #[must_use]
    pub fn and(mut self, fields: Value) -> Document {
        self.more = Some(fields);
        self
    }

    /// The code that the command ends with.
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// The head of the audit chain.
    pub fn event_head(&self) -> Option<&str> {
        self.event_head.as_deref()
    }

    /// As text.
    pub fn text(&self, command: Option<&str>, form: Form) -> Result<String> {
        let envelope = Envelope { command: Some(command), document: self };
        let text = match form {
            Form::Line => json::compact(&envelope),
            Form::Page => json::pretty(&envelope),
        };
        Ok(printable(&text.map_err(wrong)?).into_owned())
    }

    /// `"outcome":…}`: the rest of an object that began with [`beginning`].
    pub fn rest(&self) -> Result<String> {
        let text = json::compact(&Envelope { command: None, document: self }).map_err(wrong)?;
        Ok(printable(text.trim_start_matches('{')).into_owned())
    }
}

/// `{"format":1,"command":"…"`: an object that goes on.
pub fn beginning(command: Option<&str>) -> Result<String> {
    Ok(format!("{{\"format\":{FORMAT},\"command\":{}", json::compact(&command).map_err(wrong)?))
}

/// How a document is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// On one line, for programs.
    Line,
    /// Indented, for people.
    Page,
}

/// A document, after the name of its command unless that was printed before.
struct Envelope<'a> {
    command: Option<Option<&'a str>>,
    document: &'a Document,
}

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let d = self.document;
        let mut map = s.serialize_map(None)?;
        if let Some(command) = self.command {
            map.serialize_entry("format", &FORMAT)?;
            map.serialize_entry("command", &command)?;
        }
        map.serialize_entry("outcome", &d.outcome)?;
        map.serialize_entry("exit_code", &d.exit.code())?;
        map.serialize_entry("meaning", d.exit.meaning())?;
        map.serialize_entry("next", &d.next)?;
        if let Some(error) = &d.error {
            map.serialize_entry("error", &error.message)?;
            map.serialize_entry("hint", &error.hint)?;
        }
        map.serialize_entry("event_head", &d.event_head)?;
        if let Some(result) = &d.result {
            map.serialize_entry("result", result)?;
        }
        let copies = d.result.iter().chain(&d.more).filter_map(Value::as_object).flatten();
        for (name, value) in copies.filter(|(name, _)| !OWN.contains(&name.as_str())) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The commands that a sentence names in backquotes.
fn commands(sentence: &str) -> Vec<String> {
    let quoted = sentence.split('`').skip(1).step_by(2);
    quoted.filter(|words| words.starts_with("rekey ")).map(str::to_owned).collect()
}

pub(super) fn wrong(e: impl std::fmt::Display) -> Error {
    Error::new(Exit::Internal, format!("can't print the result: {e}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(document: &Document) -> Value {
        serde_json::from_str(&document.text(Some("keys status"), Form::Line).unwrap()).unwrap()
    }

    #[test]
    fn a_result_is_in_the_envelope_and_beside_it() {
        let result = json!({ "rows": 3.0, "meaning": "of the result", "event_head": "1:ab" });
        let document = Document::new(Exit::Ok, &result).unwrap();
        let text = document.text(Some("keys status"), Form::Line).unwrap();
        assert_eq!(
            text,
            "{\"format\":1,\"command\":\"keys status\",\"outcome\":\"ok\",\"exit_code\":0,\"meaning\":\"Success: requested state \
             reached\",\"next\":[],\"event_head\":\"1:ab\",\"result\":{\"rows\":3,\"meaning\":\"of the \
             result\",\"event_head\":\"1:ab\"},\"rows\":3}"
        );
        assert!(
            document.text(None, Form::Page).unwrap().starts_with("{\n  \"format\": 1,\n  \"command\": null,")
        );
        assert_eq!(format!("{},{}", beginning(Some("keys status")).unwrap(), document.rest().unwrap()), text);
        assert_eq!(printed(&Document::new(Exit::Key, &json!([1])).unwrap())["outcome"], "failed");
    }

    #[test]
    fn an_error_has_no_result_and_its_hint_names_the_next_steps() {
        let error =
            Error::new(Exit::State, "no").hint("Set `--x`, then run `rekey plan`; or run `rekey resume`");
        let said = printed(&Document::refused(&error, None));
        assert_eq!(said["result"], Value::Null);
        assert_eq!(said["next"], json!(["rekey plan", "rekey resume"]));
        assert_eq!(
            (&said["outcome"], &said["error"], &said["exit_code"]),
            (&json!("error"), &json!("no"), &json!(7))
        );
    }
}
