//! Where the passphrase of a backup comes from: a file descriptor, REKEY_BACKUP_PASSPHRASE, or a prompt. Never an
//! argument, which every user of the machine could read.

use std::fs::File;
use std::os::unix::ffi::OsStringExt;

use clap::Args;
use zeroize::Zeroizing;

use super::prompt::{ask, is_possible};
use crate::engine::Stop;
use crate::error::{Error, Exit, Result};
use crate::secrets::backup::{Passphrase, Short};

/// Where the passphrase comes from: this, else REKEY_BACKUP_PASSPHRASE, else a prompt.
#[derive(Args)]
pub struct PassphraseArgs {
    /// File descriptor to read the passphrase from, up to the first newline [default: REKEY_BACKUP_PASSPHRASE, or a prompt]
    #[arg(long, env = "REKEY_PASSPHRASE_FD", hide_env_values = true, value_name = "FD")]
    pub passphrase_fd: Option<u32>,
}

/// For a new backup. Asked for twice.
pub async fn to_make(args: &PassphraseArgs, short: Short, stop: &mut Stop) -> Result<Passphrase> {
    let raw = match given(args)? {
        Some(raw) => raw,
        None => {
            let first = ask("Backup passphrase: ", stop).await?;
            if *ask("Repeat the passphrase: ", stop).await? != *first {
                return Err(Error::new(Exit::Usage, "the passphrases differ; nothing was written"));
            }
            first
        }
    };
    Ok(Passphrase::to_make(raw, short)?)
}

/// For one that there is.
pub async fn to_open(args: &PassphraseArgs, stop: &mut Stop) -> Result<Passphrase> {
    let raw = match given(args)? {
        Some(raw) => raw,
        None => ask("Backup passphrase: ", stop).await?,
    };
    Ok(Passphrase::to_open(raw)?)
}

/// As it was handed in; `None` where it has to be asked for, and can be.
fn given(args: &PassphraseArgs) -> Result<Option<Zeroizing<Vec<u8>>>> {
    if let Some(fd) = args.passphrase_fd {
        let read = File::open(format!("/dev/fd/{fd}")).and_then(Passphrase::read_line);
        let failed = |e| usage(&format!("can't read the passphrase from file descriptor {fd}: {e}"));
        return read.map(Some).map_err(failed);
    }
    match std::env::var_os("REKEY_BACKUP_PASSPHRASE") {
        Some(value) => Ok(Some(Zeroizing::new(value.into_vec()))),
        None if is_possible() => Ok(None),
        None => Err(usage("a passphrase is required, but there is no terminal to ask on")),
    }
}

fn usage(what: &str) -> Error {
    Error::new(Exit::Usage, what).hint(
        "Pass `--passphrase-fd FD`, set REKEY_BACKUP_PASSPHRASE, or run the \
        command on a terminal",
    )
}
