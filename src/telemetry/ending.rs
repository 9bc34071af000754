//! The last line of the log: the command, the exit code, and the rotation that the command was about.
//!
//! One for the process, as there is one log: whoever ends it, `main` or a second signal, knows what it was about. People
//! at a terminal read the same in the command's output, so only JSON logs have the line.

use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use super::logging::FINISHED;
use crate::error::Exit;

static ABOUT: Mutex<About> = Mutex::new(About { command: None, rotation: None, ended: false });

struct About {
    command: Option<String>,
    rotation: Option<Uuid>,
    ended: bool,
}

/// The command that is carried out, in words.
pub fn command(words: &str) {
    ABOUT.lock().unwrap_or_else(PoisonError::into_inner).command = Some(words.to_owned());
}

/// The rotation that it is about; the last one named counts.
pub fn rotation(id: Uuid) {
    ABOUT.lock().unwrap_or_else(PoisonError::into_inner).rotation = Some(id);
}

/// Logs how the process ends, once.
pub fn finished(exit: Exit) {
    let mut about = ABOUT.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::replace(&mut about.ended, true) {
        return;
    }
    tracing::info!(
        target: FINISHED,
        command = about.command,
        exit_code = exit.code(),
        meaning = exit.meaning(),
        rotation = about.rotation.map(|id| id.to_string()),
        "finished"
    );
}
