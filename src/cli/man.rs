//! `rekey man`: the manual page on stdout, or one page a command in a folder, made from the same definitions as --help.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Command};

use crate::error::{Error, Exit, Result};

#[derive(Args)]
pub struct ManArgs {
    /// Write rekey.1, rekey-run.1, … to this directory
    #[arg(long, env = "REKEY_DIR", hide_env_values = true, value_name = "PATH")]
    dir: Option<PathBuf>,
}

/// Prints rekey(1), or writes the page of every command.
pub fn run(args: ManArgs, rekey: Command) -> Result<Exit> {
    // What -h leaves out belongs into the manual.
    let mut rekey = rekey.mut_args(|arg| arg.hide_short_help(false));
    rekey.build();
    let done = match &args.dir {
        None => page(&rekey).and_then(|text| to_stdout(&text)),
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| write_all(dir, &rekey, "rekey")),
    };
    done.map_err(|e| Error::new(Exit::Usage, format!("can't write the manual: {e}")))?;
    Ok(Exit::Ok)
}

fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    Ok(text)
}

fn write_all(dir: &Path, command: &Command, name: &str) -> std::io::Result<()> {
    let named = command.clone().name(name.to_owned()).display_name(name.to_owned());
    std::fs::write(dir.join(format!("{name}.1")), page(&named)?)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        write_all(dir, sub, &format!("{name}-{}", sub.get_name()))?;
    }
    Ok(())
}

/// Writes to stdout; a reader that has seen enough (`| head`) is no error.
pub fn to_stdout(text: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
