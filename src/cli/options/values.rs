//! Times as they are written on a command line.

use std::time::Duration;

use crate::rotation::{Deadline, DeadlineAt};

/// A duration like 500ms, 30s, 5m or 2h.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| "write a duration like 500ms, 30s, 5m or 2h".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a duration can't be negative".to_owned())
}

/// A duration from now, or a time.
pub fn deadline(text: &str) -> Result<Deadline, String> {
    Ok(Deadline { at: deadline_at(text)?, standing: deadline_is_standing() })
}

fn deadline_at(text: &str) -> Result<DeadlineAt, String> {
    if let Ok(duration) = duration(text) {
        // Ten years: what comes after is a slip, and beyond what PostgreSQL can add to a time.
        return match duration.as_secs() <= 10 * 366 * 86_400 {
            true => Ok(DeadlineAt::In(duration)),
            false => Err("that is more than ten years from now".to_owned()),
        };
    }
    let time = text
        .parse()
        .map_err(|_| "write a duration like 2h, or a time like 2026-11-24T05:00:00Z".to_owned())?;
    Ok(DeadlineAt::At(time))
}

/// Whether a deadline is the environment's: none is on the command line.
fn deadline_is_standing() -> bool {
    !std::env::args_os().any(|argument| argument.to_string_lossy().starts_with("--deadline"))
}
