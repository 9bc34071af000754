//! Giving up a job in the middle, where that is safe: while it reads, asks a server, or waits. Signals are listened for
//! in `cli`; a job is handed the [`Stop`].

use std::future::Future;

use crate::engine::Stop;
use crate::error::{Error, Exit, Result};

/// Does the work, unless `stop` is set first: then the work is dropped where it stands.
pub async fn unless_stopped<T>(stop: &mut Stop, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = stop.wait() => Err(stopped()),
    }
}

/// The error of a job that a signal stopped before there was anything to tell.
pub fn stopped() -> Error {
    Error::new(Exit::Signalled, "stopped by a signal; everything committed before it is saved")
        .hint("Run the same command again")
}
