//! Being asked to stop, by a signal. One watch, handed to whoever waits for something.

use tokio::sync::watch;

/// Asks everyone who holds a [`Stop`] to stop.
pub struct StopSource(watch::Sender<bool>);

/// Tells whether the process was asked to stop.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl StopSource {
    /// A source and the first receiver.
    pub fn new() -> (StopSource, Stop) {
        let (sender, receiver) = watch::channel(false);
        (StopSource(sender), Stop(receiver))
    }

    /// Asks; returns whether it had been asked before.
    pub fn stop(&self) -> bool {
        self.0.send_replace(true)
    }
}

impl Stop {
    /// Asked to stop?
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once asked.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            // The sender is gone: wait forever.
            std::future::pending::<()>().await;
        }
    }
}
