//! The last lines of a command's text: what to do next, and the head of the audit chain, so that shipped logs witness it.

use crate::rotation::Step;
use crate::telemetry::logging::HEAD;

/// What to do next, one step a line.
pub fn next_lines(steps: &[Step]) -> String {
    let begin = |i| if i == 0 { "next:" } else { "     " };
    steps.iter().enumerate().map(|(i, step)| format!("{} {step}\n", begin(i))).collect()
}

/// Prints them.
pub fn print_next(steps: &[Step]) {
    if !steps.is_empty() {
        println!("{}", next_lines(steps).trim_end());
    }
}

/// The head, where there is a trail that may be read.
pub fn head_line(head: Option<&str>) -> String {
    head.map_or_else(String::new, |head| format!("audit chain head: {head}\n"))
}

/// Prints and logs it.
pub fn print_head(head: Option<&str>) {
    if let Some(head) = head {
        println!("{}", head_line(Some(head)).trim_end());
        witness(head);
    }
}

/// Logs the head, so that shipped logs witness it: `rekey report --expect` checks the chain against one that was noted.
pub fn witness(head: &str) {
    tracing::info!(target: HEAD, event_head = head, "audit chain head");
}
