//! The passphrase of a backup: from a file descriptor, REKEY_BACKUP_PASSPHRASE, or a prompt that does not echo.
//! Never an argument, which every user of the machine could read.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStringExt;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::error::{Error, Exit, Result};

/// Where the passphrase comes from: this, else REKEY_BACKUP_PASSPHRASE, else a prompt.
#[derive(Args)]
pub struct PassphraseArgs {
    /// Read the passphrase from this file descriptor, up to its first line end [default: REKEY_BACKUP_PASSPHRASE, or a prompt]
    #[arg(long, env = "REKEY_PASSPHRASE_FD", hide_env_values = true, value_name = "FD")]
    pub passphrase_fd: Option<u32>,
}

/// What one is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassphraseFor {
    /// Asked for twice.
    Encrypting,
    /// Asked for once.
    Decrypting,
}

const MAX_BYTES: usize = 4096;

/// Gets the passphrase.
pub fn get(args: &PassphraseArgs, purpose: PassphraseFor) -> Result<Zeroizing<Vec<u8>>> {
    let passphrase = match (args.passphrase_fd, std::env::var_os("REKEY_BACKUP_PASSPHRASE")) {
        (Some(fd), _) => from_fd(fd)?,
        (None, Some(value)) => Zeroizing::new(value.into_vec()),
        (None, None) => prompt(purpose)?,
    };
    if passphrase.is_empty() {
        return Err(usage("the passphrase is empty"));
    }
    Ok(passphrase)
}

fn usage(what: &str) -> Error {
    Error::new(Exit::Usage, what).hint("--passphrase-fd FD, REKEY_BACKUP_PASSPHRASE, or a terminal to ask on")
}

fn from_fd(fd: u32) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |e| usage(&format!("cannot read the passphrase from file descriptor {fd}: {e}"));
    let file = std::fs::File::open(format!("/dev/fd/{fd}")).map_err(failed)?;
    first_line(file).map_err(failed)
}

fn first_line(mut from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    let mut byte = Zeroizing::new([0]);
    while line.len() < MAX_BYTES {
        match from.read(&mut byte[..]) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

fn prompt(purpose: PassphraseFor) -> Result<Zeroizing<Vec<u8>>> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(usage("there is no passphrase, and nobody can be asked here"));
    }
    let passphrase = ask("Passphrase of the backup: ")?;
    if purpose == PassphraseFor::Encrypting && *ask("The same again: ")? != *passphrase {
        return Err(Error::new(Exit::Usage, "the two passphrases differ; nothing was written"));
    }
    Ok(passphrase)
}

/// Echo is on again when this is dropped.
struct NoEcho(Termios);

impl NoEcho {
    fn on() -> std::io::Result<NoEcho> {
        let before = tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(NoEcho(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

fn ask(question: &str) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |e: std::io::Error| usage(&format!("cannot ask for the passphrase: {e}"));
    let quiet = NoEcho::on().map_err(failed)?;
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    // Canonical mode gives one line; read_until would grow a buffer that is not wiped.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    let mut stdin = std::io::stdin().lock();
    stdin.by_ref().take(MAX_BYTES as u64).read_until(b'\n', &mut line).map_err(failed)?;
    drop(quiet);
    eprintln!();
    while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}
