//! What the process says about itself while it works: logs, progress and metrics, and its last word.

pub mod console;
pub mod ending;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod progress;
pub mod termination;
