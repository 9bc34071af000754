//! Stderr: bars and text on a terminal, text in a file or a pipe, JSON lines in a pod; coloured or plain.
//!
//! There is one bar at most, and each line is printed around it: it is taken off the screen, the line is written, and it
//! is drawn again below. Nothing here decides what is said.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use tracing_subscriber::fmt::MakeWriter;

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Bars and text on a terminal, JSON lines in a Kubernetes pod, text otherwise
    #[default]
    Auto,
    /// Text for people, with bars on a terminal
    Pretty,
    /// One JSON object per line
    Json,
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb
    #[default]
    Auto,
    /// Always, in files and pipes too
    Always,
    /// Never
    Never,
}

/// What stderr is connected to, and what the environment says about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Surroundings {
    terminal: bool,
    dumb: bool,
    no_color: bool,
    pod: bool,
}

impl Surroundings {
    fn look() -> Surroundings {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Surroundings {
            terminal: io::stderr().is_terminal(),
            dumb: !set("TERM") || std::env::var_os("TERM").is_some_and(|term| term == "dumb"),
            no_color: set("NO_COLOR"),
            pod: set("KUBERNETES_SERVICE_HOST"),
        }
    }
}

/// How stderr is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console {
    /// One JSON object per line.
    pub json: bool,
    /// A bar is drawn, because a terminal can take it off again.
    pub bars: bool,
    /// Colours are used.
    pub colored: bool,
}

impl Console {
    /// What the flags and the surroundings come to.
    pub fn new(format: LogFormat, color: Color) -> Console {
        Console::within(format, color, Surroundings::look())
    }

    fn within(format: LogFormat, color: Color, around: Surroundings) -> Console {
        let json = match format {
            LogFormat::Auto => !around.terminal && around.pod,
            LogFormat::Pretty => false,
            LogFormat::Json => true,
        };
        let capable = around.terminal && !around.dumb;
        let colored = match color {
            Color::Auto => capable && !around.no_color,
            Color::Always => true,
            Color::Never => false,
        };
        Console { json, bars: capable && !json, colored: colored && !json }
    }
}

/// What stands at the bottom of the screen.
static SCREEN: Mutex<Screen> = Mutex::new(Screen { owner: 0, bar: None });

struct Screen {
    /// Whose bar is shown; what an earlier one would still draw is left out.
    owner: u64,
    /// Its lines.
    bar: Option<String>,
}

/// To the margin, and everything below goes: whatever was echoed into the bar, and however it was wrapped since.
const WIPE: &str = "\r\x1b[J";

/// The right to draw a bar, until it is [taken off](take_off).
#[derive(Debug)]
pub struct Bar(u64);

impl Bar {
    /// From now on this is the bar.
    pub fn put_up() -> Bar {
        let mut screen = SCREEN.lock().unwrap_or_else(PoisonError::into_inner);
        screen.owner += 1;
        Bar(screen.owner)
    }

    /// Puts these lines at the bottom of the screen, in place of those that stood there. The cursor is left where they
    /// begin.
    pub fn draw(&self, bar: String) {
        let mut screen = SCREEN.lock().unwrap_or_else(PoisonError::into_inner);
        if screen.owner == self.0 {
            write(&painted(&bar));
            screen.bar = Some(bar);
        }
    }
}

/// Takes the bar off the screen for good.
pub fn take_off() {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner).wipe();
}

impl Screen {
    fn wipe(&mut self) {
        self.owner += 1;
        if self.bar.take().is_some() {
            write(WIPE);
        }
    }
}

/// Prints while no bar is on the screen.
pub fn around_the_bar<R>(print: impl FnOnce() -> R) -> R {
    let screen = SCREEN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(bar) = &screen.bar else { return print() };
    write(WIPE);
    let printed = print();
    write(&painted(bar));
    printed
}

/// A page on stdout that is painted again and again in the same place.
#[derive(Debug, Default)]
pub struct Page {
    /// Lines that stand there.
    lines: usize,
}

impl Page {
    /// Paints this text over what stood there. What does not fit is cut: a page that scrolls stays in no place.
    pub fn paint(&mut self, text: &str) {
        let (columns, rows) = size(&io::stdout()).unwrap_or((80, 24));
        let cut = |line: &str| line.chars().take(columns.saturating_sub(1)).collect::<String>();
        let lines: Vec<String> = text.trim_end().lines().take(rows.saturating_sub(1)).map(cut).collect();
        let up = match self.lines {
            0 => String::new(),
            lines => format!("\x1b[{lines}A"),
        };
        self.lines = lines.len();
        let page = format!("\r{up}{}\x1b[K\n\x1b[J", lines.join("\x1b[K\n"));
        let mut out = io::stdout().lock();
        let _ = out.write_all(page.as_bytes()).and_then(|()| out.flush());
    }
}

/// A panic's message is printed in place of the bar: nothing else may come from this process.
pub fn take_off_when_panicking() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Whoever panics while they draw have the screen to themselves.
        if let Ok(mut screen) = SCREEN.try_lock() {
            screen.wipe();
        }
        print(panic);
    }));
}

/// In one piece, and over what stood there, so that nothing flickers.
fn painted(bar: &str) -> String {
    let lines: Vec<&str> = bar.lines().collect();
    let up = match lines.len() {
        0 | 1 => String::new(),
        lines => format!("\x1b[{}A", lines - 1),
    };
    format!("\r{}\x1b[J\r{up}", lines.join("\x1b[K\r\n"))
}

fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// The width of the terminal that stderr is, in columns; 80 where it is none.
pub fn columns() -> usize {
    size(&io::stderr()).map_or(80, |(columns, _)| columns)
}

/// Columns and rows of a terminal.
fn size(of: &impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(of).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

/// Where log lines go: stderr, around the bar. A line comes in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        around_the_bar(|| io::stderr().lock().write_all(line)).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        Lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_who_pipe_get_text_and_pods_get_json() {
        let terminal = Surroundings { terminal: true, ..Surroundings::default() };
        let dumb = Surroundings { dumb: true, ..terminal };
        let file = Surroundings { dumb: true, ..Surroundings::default() };
        let pod = Surroundings { pod: true, ..file };
        let shell_in_pod = Surroundings { pod: true, ..terminal };
        for (format, around, json, bars) in [
            (LogFormat::Auto, terminal, false, true),
            (LogFormat::Auto, dumb, false, false),
            (LogFormat::Auto, file, false, false),
            (LogFormat::Auto, pod, true, false),
            (LogFormat::Auto, shell_in_pod, false, true),
            (LogFormat::Pretty, pod, false, false),
            (LogFormat::Json, terminal, true, false),
        ] {
            let console = Console::within(format, Color::Auto, around);
            assert_eq!((console.json, console.bars), (json, bars), "{format:?} {around:?}");
        }
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let terminal = Surroundings { terminal: true, ..Surroundings::default() };
        let plain = Surroundings { no_color: true, ..terminal };
        let dumb = Surroundings { dumb: true, ..terminal };
        let file = Surroundings::default();
        for (color, around, colored) in [
            (Color::Auto, terminal, true),
            (Color::Auto, plain, false),
            (Color::Auto, dumb, false),
            (Color::Auto, file, false),
            (Color::Always, file, true),
            (Color::Always, plain, true),
            (Color::Never, terminal, false),
        ] {
            let console = Console::within(LogFormat::Pretty, color, around);
            assert_eq!(console.colored, colored, "{color:?} {around:?}");
        }
        assert!(!Console::within(LogFormat::Json, Color::Always, terminal).colored);
    }
}
