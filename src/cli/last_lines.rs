//! The last lines of a command's text: what to do next, and the head of the audit chain, so that shipped logs witness it.

use crate::rotation::Step;
use crate::telemetry::logging::HEAD;

/// What to do next, one step a line.
pub fn print_next(steps: &[Step]) {
    for (i, step) in steps.iter().enumerate() {
        println!("{} {step}", if i == 0 { "next:" } else { "     " });
    }
}

/// The head, where there is a trail that may be read.
pub fn print_head(head: Option<&str>) {
    if let Some(head) = head {
        println!("audit chain head: {head}");
        witness(head);
    }
}

/// Logs the head, so that shipped logs witness it: `rekey report --expect` checks the chain against one that was noted.
pub fn witness(head: &str) {
    tracing::info!(target: HEAD, event_head = head, "audit chain head");
}
