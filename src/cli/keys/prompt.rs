//! A question whose answer is not echoed. A signal ends it, and the terminal echoes again.

use std::io::{IsTerminal, Write, stderr, stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::engine::Stop;
use crate::error::{Error, Exit, Result};
use crate::jobs::interrupt::unless_stopped;
use crate::secrets::backup::Passphrase;

/// Whether there is a terminal to ask on.
pub fn is_possible() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks. The line end comes along.
pub async fn ask(question: &str, stop: &mut Stop) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |e: std::io::Error| Error::new(Exit::Usage, format!("can't ask for the passphrase: {e}"));
    let quiet = NoEcho::on().map_err(failed)?;
    eprint!("{question}");
    let _ = stderr().flush();
    // In a thread that is never joined: a read from a terminal can't be cancelled.
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || tell.send(Passphrase::read_line(stdin().lock())));
    let answer = async {
        let read = told.await.unwrap_or_else(|_| Err(std::io::ErrorKind::UnexpectedEof.into()));
        read.map_err(failed)
    };
    let answer = unless_stopped(stop, answer).await;
    drop(quiet);
    eprintln!();
    answer
}

/// Echo is on again when this is dropped.
struct NoEcho(Termios);

impl NoEcho {
    fn on() -> std::io::Result<NoEcho> {
        let before = tcgetattr(stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &quiet)?;
        Ok(NoEcho(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}
