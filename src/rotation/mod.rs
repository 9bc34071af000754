//! What is decided, apart from what is done: states, chunk bounds, waves, batch sizes, counters, forecast.
//!
//! Pure: no clock, no randomness, no I/O. Everything here can be tested by calling it.

mod bounds;
mod counters;
mod forecast;
mod progress;
mod servo;
mod state;
mod waves;

pub use bounds::{Bounds, ChunkSize};
pub use counters::Counters;
pub use forecast::{Forecast, Rehearsal, TableFacts};
pub use progress::Progress;
pub use servo::BatchServo;
pub use state::{Desired, Direction, State};
pub use waves::{Slice, Tid, Wavable, deal, next_slice};
