//! `rekey man`: the manual page on stdout, or one page a command in a folder, made from the same definitions as --help.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Command};

use super::help::codes_of;
use crate::error::{Error, Exit, Result};

/// Variables that are no flag's.
const ENVIRONMENT: [(&str, &str); 13] = [
    (
        "DATABASE_URL",
        "The database, as a URL or a libpq key=value string. Required by every command that reads it.",
    ),
    (
        "ENCRYPTION_KEY, NEW_ENCRYPTION_KEY",
        "The old and the new key, where no source is named and SECRETS_BACKEND is not aws.",
    ),
    ("SECRET_KEY", "The application's signing key; keys status and keys validate read it."),
    (
        "SECRETS_BACKEND, AWS_SECRET_NAME",
        "The application's settings: with aws, keys are in AWS Secrets Manager under this name.",
    ),
    ("AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL, …", "What the AWS SDK reads."),
    ("REDIS_URL", "The application's cache, for cache purge, promote and rollback."),
    ("REKEY_BACKUP_PASSPHRASE", "The passphrase of keys backup and keys restore."),
    ("REKEY_TERMINATION_LOG", "The file for a pod's last word, in place of /dev/termination-log."),
    ("RUST_LOG", "What is logged: off, warn, rekey=debug, … The flags --quiet and --verbose go before it."),
    ("NO_COLOR", "If set, no colours, unless --color always is given."),
    ("TERM", "If dumb or not set, no colours and no progress bar."),
    ("KUBERNETES_SERVICE_HOST", "Set in a pod: the log is JSON there unless --log-format says otherwise."),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "Root certificates, in place of the system's."),
];

/// Files that no option names.
const FILES: [(&str, &str); 4] = [
    (
        "PATH.bak, PATH.bak.1, …",
        "A dotenv file as it was before rekey replaced a key in it. Each has the former key.",
    ),
    (
        "/dev/termination-log",
        "Where it exists, the last word of a command that is a Job: one JSON line with outcome, code and next.",
    ),
    ("schema rekey", "rekey's tables, in the database: rotations, chunks, proofs, quarantine, events."),
    ("~/.aws/config, ~/.aws/credentials", "What the AWS SDK reads."),
];

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
    section(&mut text, "EXIT STATUS")?;
    for exit in codes_of(command) {
        entry(&mut text, &exit.code().to_string(), exit.meaning())?;
    }
    section(&mut text, "ENVIRONMENT")?;
    for arg in command.get_arguments() {
        let (Some(name), Some(flag)) = (arg.get_env(), arg.get_long()) else { continue };
        entry(&mut text, &name.to_string_lossy(), &format!("the value of --{flag}, where it is not given"))?;
    }
    for (name, what) in ENVIRONMENT {
        entry(&mut text, name, what)?;
    }
    section(&mut text, "FILES")?;
    for (name, what) in FILES {
        entry(&mut text, name, what)?;
    }
    Ok(text)
}

fn section(text: &mut Vec<u8>, name: &str) -> std::io::Result<()> {
    writeln!(text, ".SH \"{name}\"")
}

fn entry(text: &mut Vec<u8>, name: &str, what: &str) -> std::io::Result<()> {
    let plain = |text: &str| text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    writeln!(text, ".TP\n\\fB{}\\fR\n{}", plain(name), plain(what))
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
