//! Options that several commands share: global ones, where keys are, how hard to work, what to spare. Those of one command
//! stand beside it.

mod global;
mod keys;
mod throttle;
mod values;
mod work;

pub use global::{Global, Output};
pub use keys::{KeyArgs, given};
pub use values::deadline;
pub use work::WorkArgs;
