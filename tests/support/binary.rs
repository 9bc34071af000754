//! The real `rekey` binary, in a clean environment, with its output collected and its end waited for.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Db, NEW, OLD};

/// Longer than any run of the tests takes: whoever is not done by then hangs.
const HANG: Duration = Duration::from_secs(150);

/// A `rekey` command line about to be started.
pub struct Rekey {
    arguments: Vec<String>,
    command: Command,
}

/// `rekey …` with the database, the old and the new key in their default places, and nothing else in the environment.
pub fn rekey<const N: usize>(db: &Db, arguments: [&str; N]) -> Rekey {
    rekey_without_database(arguments)
        .env("DATABASE_URL", &db.url)
        .env("ENCRYPTION_KEY", OLD)
        .env("NEW_ENCRYPTION_KEY", NEW)
}

/// `rekey …` with an environment that holds only PATH, and logs as a pod writes them.
pub fn rekey_without_database<const N: usize>(arguments: [&str; N]) -> Rekey {
    // Another build may be put to the test, an installed one or one that was broken on purpose (tests/README.md).
    let binary = std::env::var_os("REKEY_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_rekey").into());
    let mut command = Command::new(binary);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("REKEY_LOG_FORMAT", "json");
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Rekey { arguments, command }
}

impl Rekey {
    /// Appends arguments.
    pub fn args<const N: usize>(self, more: [&str; N]) -> Rekey {
        self.more(&more)
    }

    /// Appends arguments, as many as there are.
    pub fn more(mut self, more: &[&str]) -> Rekey {
        self.arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Rekey {
        self.command.env(name, value.into());
        self
    }

    /// Takes an environment variable away.
    pub fn without(mut self, name: &str) -> Rekey {
        self.command.env_remove(name);
        self
    }

    /// Started by another program, strace say, with these arguments before ours; nothing where there is none.
    pub fn through(mut self, program: &str, arguments: &[&str]) -> Option<Rekey> {
        Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        let mut command = Command::new(program);
        command.env_clear().envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(arguments).arg(self.command.get_program());
        self.command = command;
        Some(self)
    }

    /// Run by this user and group, from a copy in `folder`: the work tree may not be theirs to enter.
    pub fn run_by(mut self, (user, group): (u32, u32), folder: &Path) -> Rekey {
        let copy = folder.join("rekey");
        // By a program of its own: a file that is open for writing, here or in a child just forked, cannot be run.
        let done = Command::new("cp").arg(self.command.get_program()).arg(&copy).status().expect("cp starts");
        assert!(done.success(), "cp to {}", copy.display());
        let mut command = Command::new(copy);
        command.env_clear().envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.uid(user).gid(group);
        self.command = command;
        self
    }

    /// As a command to be started by other means.
    pub fn into_command(mut self) -> Command {
        self.command.args(&self.arguments);
        self.command
    }

    /// Starts it.
    pub fn start(self) -> Running {
        self.start_into(Stdio::piped())
    }

    /// Starts it with its results going elsewhere: what it says in the end is then not collected.
    pub fn start_into(mut self, stdout: impl Into<Stdio>) -> Running {
        let command = self.command.args(&self.arguments);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = match child.stdout.take() {
            Some(pipe) => collect(pipe),
            None => collect(std::io::empty()),
        };
        let stderr = collect(child.stderr.take().expect("a pipe"));
        let output = Some((stdout, stderr));
        Running { title: self.arguments.join(" "), child, output, started: Instant::now() }
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.start().wait()
    }

    /// Runs it to its end, which must be the exit code `code`.
    pub fn exits(self, code: i32) -> Outcome {
        self.run().expect(code)
    }

    /// Runs it with `--output json` to the exit code `code`, and returns what it printed.
    pub fn json(self, code: i32) -> Value {
        self.args(["--output", "json"]).exits(code).json()
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A `rekey` process under way. Dropped, it is killed.
pub struct Running {
    title: String,
    child: Child,
    output: Option<(JoinHandle<String>, JoinHandle<String>)>,
    /// When it was started.
    pub started: Instant,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal; a process that has ended does not mind. One that asks it to stop waits until it listens: just
    /// started, it would be ended by it like any other program.
    pub fn signal(&self, signal: Signal) {
        if [Signal::TERM, Signal::INT].contains(&signal) {
            self.until_it_listens(signal);
        }
        kill_process(self.pid(), signal).ok();
    }

    /// Returns once it catches `signal`, has ended or is stopped. Ten seconds at most: not every command listens.
    fn until_it_listens(&self, signal: Signal) {
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(10) {
            let (Some(state), Some(caught)) = (self.status("State:"), self.status("SigCgt:")) else { return };
            let caught = u64::from_str_radix(&caught, 16).expect("a mask in hex");
            if caught & (1 << (signal.as_raw() - 1)) != 0 || state.starts_with(['T', 'Z']) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether it is still there.
    pub fn running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// How it ended and what it said, for the message of a test that did not expect it to end.
    pub fn last_words(&mut self) -> String {
        let status = self.child.wait();
        let said = self.output.take().map(|(out, err)| (out.join(), err.join()));
        format!("{status:?}\n{said:?}")
    }

    /// SIGKILL, now; the output it had written until then.
    pub fn kill(self) -> Outcome {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Its peak memory so far, in kB (VmHWM); 0 once it has ended.
    pub fn peak_memory(&self) -> u64 {
        let peak = self.status("VmHWM:");
        peak.and_then(|kb| kb.trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    /// What follows `name` in /proc/PID/status; nothing once it is gone.
    fn status(&self, name: &str) -> Option<String> {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).ok()?;
        status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    }

    /// Waits for its end, which must be the exit code `code`, and watches that its memory stays below `limit` kB.
    #[track_caller]
    pub fn ends_within_memory(mut self, code: i32, limit: u64) -> Outcome {
        let mut peak = 0;
        while self.running() {
            peak = peak.max(self.peak_memory());
            assert!(self.started.elapsed() < HANG, "`rekey {}` hangs", self.title);
            std::thread::sleep(Duration::from_millis(2));
        }
        let outcome = self.wait().expect(code);
        assert!(peak > 0 && peak < limit, "its peak memory is {peak} kB:\n{outcome}");
        outcome
    }

    /// Waits for its end.
    pub fn wait(self) -> Outcome {
        self.wait_for(HANG)
    }

    /// Waits for its end, which must come within `limit`.
    pub fn wait_for(mut self, limit: Duration) -> Outcome {
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                break status;
            }
            if asked.elapsed() > limit {
                self.signal(Signal::KILL);
                let status = self.child.wait().expect("it ends");
                let outcome = self.outcome(status);
                panic!("`rekey {}` did not end within {limit:?}\n{outcome}", outcome.title);
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        self.outcome(status)
    }

    fn outcome(&mut self, status: ExitStatus) -> Outcome {
        let (stdout, stderr) = self.output.take().expect("waited for once");
        let (stdout, stderr) = (stdout.join().expect("reads"), stderr.join().expect("reads"));
        Outcome { title: self.title.clone(), status, stdout, stderr, took: self.started.elapsed() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.output.is_some() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// How a `rekey` process ended, and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// Its arguments.
    pub title: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Results.
    pub stdout: String,
    /// Progress and logs.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Outcome {
    /// The exit code, unless a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Outcome {
        assert_eq!(self.code(), Some(code), "the exit code of\n{self}");
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}) from\n{self}"))
    }

    /// Asserts that none of `secrets` is in its output.
    #[track_caller]
    pub fn says_none_of(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(
                !self.stdout.contains(secret) && !self.stderr.contains(secret),
                "a secret is shown by\n{self}"
            );
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "`rekey {}` ({}, after {:?})", self.title, self.status, self.took)?;
        writeln!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout.trim_end(), tail(&self.stderr))
    }
}

/// The last lines: a panic message is read by people.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
