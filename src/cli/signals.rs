//! SIGTERM and SIGINT ask to stop; a second one stops at once. Either way the checkpoint in the database stands.

use tokio::signal::unix::{SignalKind, signal};

use crate::engine::{Stop, StopSource};
use crate::error::{Error, Exit, Result};

/// Listens from now on.
pub fn listen() -> Result<Stop> {
    let (source, stop) = StopSource::new();
    let cannot = |e| Error::new(Exit::Internal, format!("cannot listen for signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if source.stop() {
                std::process::exit(i32::from(Exit::Signalled.code()));
            }
            tracing::info!("stopping after the batch under way; a second signal stops at once");
        }
    });
    Ok(stop)
}
