//! Fault points: one before and one after every statement, COMMIT, AWS call and file operation, where a test build
//! can be told to fail, to lose its connections, or to die.
//!
//! Without the cargo feature `fault-points`, which is not a default, there is nothing of it in the binary: [`reach`]
//! is a constant. What a fault looks like to the caller is the adapters' business (`store`, `secrets`).

#[cfg(feature = "fault-points")]
mod armed;

#[cfg(feature = "fault-points")]
pub use armed::reach;

/// On which side of an operation a point lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It has not been started.
    Before,
    /// It has been done; whoever asked for it may be told otherwise.
    After,
}

/// What a caller has to report instead of how its operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other side says no. For a database, with this SQLSTATE.
    Error(&'static str),
    /// Every connection of this process has just been cut.
    Dropped,
}

/// Passes the point on one side of `operation`; nothing ever happens there in this build.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub const fn reach(_side: Side, _operation: &str) -> Option<Fault> {
    None
}
