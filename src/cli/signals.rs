//! SIGTERM and SIGINT ask to stop; a second one stops at once, and so does time. Either way the checkpoint in the
//! database stands.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::engine::{Stop, StopSource};
use crate::error::{Error, Exit, Result};
use crate::jobs::interrupt::stopped;
use crate::telemetry::{console, ending};

/// Time to shut down after a signal. A database that hangs must not make it longer than ten seconds.
const LIMIT: Duration = Duration::from_secs(9);

/// Watches until it is over; `None` where Ctrl-C ended it, which is how people stop watching. SIGTERM is an order to
/// stop like any other.
pub async fn unless_interrupted<T>(watching: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let cannot = |e| Error::new(Exit::Internal, format!("can't listen for signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    tokio::select! {
        done = watching => done.map(Some),
        _ = int.recv() => Ok(None),
        _ = term.recv() => Err(stopped()),
    }
}

/// Listens from now on.
pub fn listen() -> Result<Stop> {
    let (source, stop) = StopSource::new();
    let cannot = |e| Error::new(Exit::Internal, format!("can't listen for signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if source.stop() {
                console::take_off();
                ending::finished(Exit::Signalled);
                #[expect(clippy::disallowed_methods, reason = "the second signal does not wait for main")]
                std::process::exit(i32::from(Exit::Signalled.code()));
            }
            tracing::info!("Stopping after the current step. Send a second signal to stop now");
            tokio::spawn(async {
                tokio::time::sleep(LIMIT).await;
                tracing::warn!("Shutdown timed out; exiting now. The last checkpoint is saved");
                console::take_off();
                ending::finished(Exit::Signalled);
                #[expect(clippy::disallowed_methods, reason = "main may never come to its end")]
                std::process::exit(i32::from(Exit::Signalled.code()));
            });
        }
    });
    Ok(stop)
}
