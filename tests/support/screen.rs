//! The real binary on a pseudo-terminal, seen through the emulator of one: what a person would read after each moment.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::Rekey;

const SCREEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/screen.py");

/// A command on a terminal. Dropped, it is killed.
pub struct Screen {
    emulator: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    lines: Vec<String>,
}

impl Rekey {
    /// Starts it on a terminal of this size that can do what terminals do, with the log format that people get; nothing
    /// where there is no emulator.
    pub fn on_a_terminal(self, columns: u16, lines: u16) -> Option<Screen> {
        self.on_a_terminal_called("xterm-256color", columns, lines)
    }

    /// The same, on a terminal of this name.
    pub fn on_a_terminal_called(self, term: &str, columns: u16, lines: u16) -> Option<Screen> {
        let python = python()?;
        let rekey = self.without("REKEY_LOG_FORMAT").env("TERM", term).into_command();
        let mut command = Command::new(python);
        command.env_clear().envs(rekey.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args([SCREEN, &columns.to_string(), &lines.to_string()]);
        command.arg(rekey.get_program()).args(rekey.get_args());
        let mut emulator =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let orders = emulator.stdin.take().expect("a pipe");
        let answers = BufReader::new(emulator.stdout.take().expect("a pipe"));
        Some(Screen { emulator, orders, answers, lines: Vec::new() })
    }
}

impl Screen {
    fn order(&mut self, order: &str) -> Value {
        writeln!(self.orders, "{order}").expect("the emulator reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the emulator answers");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let lines = answer["lines"].as_array().expect("lines");
        self.lines = lines.iter().map(|line| line.as_str().expect("a line").to_owned()).collect();
        answer
    }

    /// Waits for a text, on the screen or scrolled off it.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> &Screen {
        self.order(&format!("until {text}"));
        assert!(self.shows(text), "no {text:?} on\n{self}");
        self
    }

    /// Sends a signal: `TERM`, `INT`.
    pub fn signal(&mut self, name: &str) {
        self.order(&format!("signal {name}"));
    }

    /// Types; `^C` is the key.
    pub fn type_in(&mut self, text: &str) {
        self.order(&format!("type {text}"));
    }

    /// Waits for its end, which must be this exit code.
    #[track_caller]
    pub fn ends(&mut self, code: i64) -> &Screen {
        let answer = self.order("end");
        assert_eq!(answer["code"], code, "the exit code of what said\n{self}");
        self
    }

    /// Whether a text stands in one of the lines.
    pub fn shows(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }

    /// How many lines contain it.
    pub fn count(&self, text: &str) -> usize {
        self.lines.iter().filter(|line| line.contains(text)).count()
    }

    /// What stands there, from the first line that scrolled off to the last on the screen.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl std::fmt::Display for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "|{line}"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The emulator kills the command once nobody gives it orders.
        let _ = self.orders.flush();
        self.emulator.kill().ok();
        self.emulator.wait().ok();
    }
}

/// A Python with `pyte`: the one that scripts/test prepared, or any.
fn python() -> Option<&'static str> {
    const PREPARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python3");
    let works = |python: &&str| {
        let probe = Command::new(python).args(["-c", "import pyte"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let found = ["python3", PREPARED].into_iter().find(works);
    if found.is_none() {
        super::skipped(format_args!(
            "no python3 with `pyte` (tests/requirements.txt); scripts/test installs it"
        ));
    }
    found
}
