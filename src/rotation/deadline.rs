//! When the window for moving rows ends.

use std::time::Duration;

/// The end of a window, and how it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: DeadlineAt,
    /// In the environment that each pod of a Job brings along: it opens a window, and never moves the end of one that is
    /// open; nor does a duration open another one where one has just ended.
    pub standing: bool,
}

/// A duration from now by the database's clock, or a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineAt {
    /// From now.
    In(Duration),
    /// RFC 3339.
    At(jiff::Timestamp),
}
