//! The one door to programs that an operator names to rekey: a key source's `command:`, `--promote-command`,
//! `--database-password-command`. Two more are started elsewhere: git, which is asked about a file
//! (`secrets/dotenv/git.rs`) and gets PATH and HOME alone; and `credential_process` of an AWS profile, which the AWS SDK gives
//! to `sh` with the whole environment of rekey.
//!
//! A text is split into words as a shell splits it, and no shell runs. A program gets no terminal, no open file and none
//! of the secrets in rekey's own environment; it is given up, with all that it started, after [`LIMIT`]. What it says on
//! stderr is repeated when it fails, with whatever may be a key masked. Which texts may be run is not decided here:
//! only those of this invocation's own flags and environment are ever handed to it.

mod child;
mod environment;
mod mask;

use std::fmt;
use std::io::{self, Read, Write};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::task::{JoinHandle, spawn_blocking};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Exit;

pub use environment::withhold;

/// How long a program may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What a program may print: as much as Secrets Manager takes for a value.
const MAX_OUTPUT: usize = 65_536;

/// How much of its stderr is kept, its end.
const MAX_SAID: usize = 16 * 1024;

/// How long the end of stderr is waited for once the program has ended: what it left running may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Exit codes of `sysexits.h` that say: not now (EX_UNAVAILABLE, EX_TEMPFAIL).
const NOT_NOW: [i32; 2] = [69, 75];

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    text: String,
    words: Vec<String>,
}

impl Program {
    /// Splits a text into words as a shell does; `None` where its quotes do not match, or there is no word.
    pub fn parse(text: &str) -> Option<Program> {
        let text = text.trim();
        let words = shlex::split(text)?;
        let fits =
            !text.contains(|c: char| c.is_control()) && words.first().is_some_and(|name| !name.is_empty());
        fits.then(|| Program { text: text.to_owned(), words })
    }

    /// Its words, the program's name first.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Its name. Of `VARIABLE=VALUE`, which only a shell understands, the variable: its value may be a secret.
    pub fn name(&self) -> &str {
        self.words[0].split('=').next().unwrap_or_default()
    }

    /// Whether one of its arguments may be a secret, which would be recorded with the others.
    pub fn shows_secret(&self) -> bool {
        mask::is_among(&self.words)
    }

    /// Runs it, with `input` on its stdin (without: nothing), and returns what it printed less one line end.
    pub async fn run(&self, input: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.run_within(LIMIT, input).await
    }

    async fn run_within(&self, limit: Duration, input: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let input = input.map(|input| Zeroizing::new(input.to_vec()));
        let mut said = String::new();
        let printed = self.output(limit, input.clone(), &mut said).await;
        let known = [
            printed.as_ref().map_or(&[][..], |(_, printed)| less_line_end(printed)),
            input.as_ref().map_or(&[], |i| i),
        ];
        // Of a program that was killed it is not known what it printed, so that nothing could be masked by it.
        let told = match &printed {
            Ok(_) => mask::mask(&said, &known),
            Err(_) => String::new(),
        };
        said.zeroize();
        let why = match printed {
            Ok((status, mut printed)) if status.success() => {
                let length = less_line_end(&printed).len();
                printed.truncate(length);
                return Ok(printed);
            }
            Ok((status, _)) => Why::Ended(status),
            Err(why) => why,
        };
        Err(Failure { program: self.name().to_owned(), shell: self.expects_a_shell(), why, told })
    }

    /// Exit status and stdout; stderr goes to `said`, however it ended.
    async fn output(
        &self,
        limit: Duration,
        input: Option<Zeroizing<Vec<u8>>>,
        said: &mut String,
    ) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), Why> {
        let mut child = child::start(&self.words, input.is_some()).map_err(Why::NotStarted)?;
        let mut group = Group(Some(child.id()));
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // A program may end without having read it; then that is no error.
        spawn_blocking(move || stdin.zip(input).map(|(mut stdin, input)| stdin.write_all(&input)));
        let printed = spawn_blocking(move || stdout.map_or(Ok(Zeroizing::default()), read_output));
        let heard = spawn_blocking(move || stderr.map(last_of).unwrap_or_default());
        let ended = spawn_blocking(move || child.wait());
        let work = async {
            let printed = joined(printed).await?;
            if printed.len() > MAX_OUTPUT {
                return Err(Why::TooMuch);
            }
            Ok((joined(ended).await?, printed))
        };
        let done = tokio::time::timeout(limit, work).await.unwrap_or(Err(Why::Slow(limit)));
        match &done {
            Ok(_) => group.leave(),
            // Whatever still runs ends here, and closes its stderr.
            Err(_) => group.end(),
        }
        if let Ok(Ok(text)) = tokio::time::timeout(LAST_WORDS, heard).await {
            *said = text;
        }
        done
    }

    /// Whether a word is one that only a shell understands.
    fn expects_a_shell(&self) -> bool {
        let shell = |word: &String| {
            matches!(word.as_str(), "|" | "||" | "&&" | ";" | "&" | ">" | ">>" | "<" | "2>&1" | "2>/dev/null")
                || word.contains("$(")
                || word.starts_with('$')
        };
        self.words.iter().any(shell) || self.words[0].contains('=')
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a program started, itself first: killed when this is dropped, unless it was left.
struct Group(Option<u32>);

impl Group {
    fn leave(&mut self) {
        self.0 = None;
    }

    fn end(&mut self) {
        let leader = self.0.take().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // Gone already is as good.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

async fn joined<T>(task: JoinHandle<io::Result<T>>) -> Result<T, Why> {
    task.await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(Why::NotStarted)
}

/// What it prints, up to one byte more than it may: in one buffer that is wiped and never moved.
fn read_output(pipe: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut printed = Zeroizing::new(Vec::with_capacity(MAX_OUTPUT + 1));
    pipe.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut printed)?;
    Ok(printed)
}

/// The end of what it says, from the beginning of a word on.
fn last_of(mut pipe: impl Read) -> String {
    let (mut said, mut part) = (Zeroizing::new(Vec::with_capacity(3 * MAX_SAID)), Zeroizing::new([0; 4096]));
    let mut cut = false;
    while let Ok(length @ 1..) = pipe.read(&mut *part) {
        said.extend_from_slice(&part[..length]);
        if said.len() > 2 * MAX_SAID {
            cut = true;
            let surplus = said.len() - MAX_SAID;
            said.drain(..surplus);
        }
    }
    let said = String::from_utf8_lossy(&said);
    // Half a key would not be recognised as one.
    let from = if cut { said.find(char::is_whitespace).unwrap_or(said.len()) } else { 0 };
    said[from..].to_owned()
}

/// Less one line end, as a shell's `$(…)` and files that hold a key are read.
fn less_line_end(printed: &[u8]) -> &[u8] {
    let line = printed.strip_suffix(b"\n").unwrap_or(printed);
    if line.len() < printed.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line }
}

/// Why a program gave nothing.
#[derive(Debug)]
enum Why {
    NotStarted(io::Error),
    Ended(ExitStatus),
    Slow(Duration),
    TooMuch,
}

/// A program that failed. What it said is masked; what it printed is not kept.
#[derive(Debug)]
pub struct Failure {
    program: String,
    shell: bool,
    why: Why,
    told: String,
}

impl Failure {
    /// How the process ends for it.
    pub fn exit(&self) -> Exit {
        match &self.why {
            Why::NotStarted(_) => Exit::Usage,
            Why::Slow(_) => Exit::Unavailable,
            Why::Ended(status) if status.code().is_some_and(|code| NOT_NOW.contains(&code)) => {
                Exit::Unavailable
            }
            Why::Ended(_) | Why::TooMuch => Exit::Key,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        let program = &self.program;
        if self.shell {
            return "rekey starts the program itself, without a shell: give pipes, variables and redirections to one, as in `sh -c '…'`"
                .to_owned();
        }
        match &self.why {
            Why::NotStarted(e) if e.kind() == io::ErrorKind::NotFound => {
                format!(
                    "install {program} where rekey runs, or name it with its path; the image of rekey has no other programs"
                )
            }
            Why::NotStarted(_) => format!("let this user execute {program}"),
            Why::Slow(_) => {
                "run the command by hand: it must end by itself, and it gets no terminal to ask on".to_owned()
            }
            Why::TooMuch => "name a command that prints the key and nothing else".to_owned(),
            Why::Ended(_) => format!("run the command by hand, as this user, until {program} exits 0"),
        }
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        match &self.why {
            Why::NotStarted(cause) if cause.kind() == io::ErrorKind::NotFound => {
                write!(f, "the program {program} was not found")?;
            }
            Why::NotStarted(cause) => write!(f, "the program {program} could not be run: {cause}")?,
            Why::Slow(limit) => {
                write!(f, "the program {program} did not end within {limit:?} and was killed")?;
            }
            Why::TooMuch => write!(f, "the program {program} printed more than {} KiB", MAX_OUTPUT / 1024)?,
            Why::Ended(status) => match status.code() {
                Some(code) => write!(f, "the program {program} ended with exit {code}")?,
                None => write!(f, "the program {program} was ended by a signal")?,
            },
        }
        if self.told.is_empty() { Ok(()) } else { write!(f, "; it said: {}", self.told) }
    }
}

#[cfg(test)]
mod tests;
