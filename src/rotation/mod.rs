//! What is decided, apart from what is done: states and what they permit, chunk bounds, waves, batch sizes, the throttle,
//! counters, forecast.
//!
//! Pure: no clock, no randomness, no I/O. Everything here can be tested by calling it.

mod bounds;
mod claim;
mod closing;
mod counters;
mod deadline;
mod forecast;
mod pass;
pub mod permits;
mod pressure;
mod progress;
mod rate;
mod read_size;
mod recorded;
mod servo;
mod state;
pub mod throttle;
mod waiting;
mod waves;
mod window;
mod words;

pub use bounds::{Bounds, ChunkKind, ChunkSize};
pub use claim::{Claim, Contradicted};
pub use closing::{Conclusion, Proven, Stragglers};
pub use counters::Counters;
pub use deadline::{Deadline, DeadlineAt};
pub use forecast::{Forecast, Rehearsal, TableFacts};
pub use pass::{Addressing, PassKind, PassOutcome, QuarantineReason};
pub use permits::{Command, Refusal, Standing, Step, next, permits};
pub use pressure::Pace;
pub use progress::{Activity, Counted, Extent, Outage, Progress};
pub use rate::{Limiter, Rate};
pub use read_size::ReadSize;
pub use recorded::RecordedSource;
pub use servo::{BatchServo, BatchTiming};
pub use state::{Desired, Direction, KeyRole, State};
pub use waiting::{Holder, Waiting};
pub use waves::{Deal, Slice, Tid, Wavable, deal, next_slice, share};
pub use window::Window;
