//! The last word of a pod: one JSON line where Kubernetes picks up termination messages.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

/// Kubernetes cuts a message at 4096 bytes. rekey cuts a longer outcome to this many characters and keeps the JSON whole.
const MAX_TEXT: usize = 600;

/// What a command wants to be its last word.
#[derive(Clone, Debug, Default)]
pub struct LastWord(Arc<Mutex<Option<Word>>>);

#[derive(Clone, Debug)]
struct Word {
    outcome: String,
    next: Option<String>,
}

impl LastWord {
    /// How it ended, and the command to type next.
    pub fn say(&self, outcome: &str, next: Option<&str>) {
        let word = Word { outcome: outcome.to_owned(), next: next.map(str::to_owned) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
    }

    /// Writes it to REKEY_TERMINATION_LOG, or to /dev/termination-log where that is there. Failure is no error: most
    /// processes are not pods.
    pub fn write(&self, code: u8, otherwise: &str) {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Word { outcome, next } = said.unwrap_or(Word { outcome: otherwise.to_owned(), next: None });
        let line = json!({ "outcome": cut(&outcome), "code": code, "next": next.as_deref().map(cut) });
        let named = std::env::var_os("REKEY_TERMINATION_LOG");
        let path = named.clone().unwrap_or_else(|| "/dev/termination-log".into());
        let file = OpenOptions::new().write(true).truncate(true).create(named.is_some()).open(path);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{line}");
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
