//! What the process says about itself while it works: logs and progress, on stderr.

pub mod logging;
pub mod progress;
