//! Options that several commands share: global ones, key sources, work settings, throttle limits. Options of one command
//! are beside it.

mod global;
mod keys;
mod throttle;
mod values;
mod work;

pub use global::{Global, Output};
pub use keys::{KeyArgs, given, program};
pub use values::{deadline, duration};
pub use work::WorkArgs;
