//! The page as text: its `console` blocks, the commands in them, and what is expected after each.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Mutex;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/RUNBOOK.md");

/// One command and what it prints; a last line `[exit N]` where it does not end with 0.
pub struct Step {
    scenario: String,
    /// As it is typed, continuation lines joined.
    pub command: String,
    /// As it is shown.
    pub output: String,
}

/// All steps of the page, in order.
pub struct Page(Vec<Step>);

enum Line<'a> {
    /// Opens a block of this scenario.
    Open(&'a str),
    Close,
    Command(&'a str),
    Output(&'a str),
    Prose,
}

/// Tells what each line is; the fence may be indented, as in a list.
fn lines(text: &str) -> impl Iterator<Item = (&str, Line<'_>)> {
    let mut inside: Option<usize> = None;
    text.lines().map(move |line| {
        let bare = line.trim_start();
        let kind = match inside {
            None => match bare.strip_prefix("```console ") {
                Some(name) => {
                    inside = Some(line.len() - bare.len());
                    Line::Open(name.trim())
                }
                None => Line::Prose,
            },
            Some(_) if bare == "```" => {
                inside = None;
                Line::Close
            }
            Some(indent) => {
                let line = line.get(indent..).unwrap_or_default();
                line.strip_prefix("$ ").map_or(Line::Output(line), Line::Command)
            }
        };
        (line, kind)
    })
}

impl Page {
    /// As it stands.
    pub fn read() -> Page {
        let text = fs::read_to_string(PAGE).expect("RUNBOOK.md");
        let mut steps: Vec<Step> = Vec::new();
        let mut scenario = "";
        for (_, line) in lines(&text) {
            match line {
                Line::Open(name) => scenario = name,
                Line::Command(command) => {
                    let (scenario, command) = (scenario.to_owned(), command.to_owned());
                    steps.push(Step { scenario, command, output: String::new() });
                }
                Line::Output(output) => {
                    let step = steps.last_mut().expect("output follows a command");
                    step.output.push_str(output);
                    step.output.push('\n');
                }
                Line::Close | Line::Prose => {}
            }
        }
        Page(steps)
    }

    /// The steps of one scenario.
    pub fn steps(&self, name: &str) -> impl Iterator<Item = &Step> {
        self.0.iter().filter(move |step| step.scenario == name)
    }

    /// The names of all scenarios.
    pub fn scenarios(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|step| step.scenario.as_str())
    }

    /// Puts what was seen into the page in place of what it showed.
    pub fn rewrite(name: &str, seen: &[String]) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let text = fs::read_to_string(PAGE).expect("RUNBOOK.md");
        let (mut page, mut seen, mut ours, mut indent) = (String::new(), seen.iter(), false, "");
        for (line, kind) in lines(&text) {
            match kind {
                Line::Open(scenario) => {
                    ours = scenario == name;
                    indent = &line[..line.len() - line.trim_start().len()];
                }
                Line::Output(_) if ours => continue,
                Line::Command(_) | Line::Output(_) | Line::Close | Line::Prose => {}
            }
            page.push_str(line);
            page.push('\n');
            if ours && matches!(kind, Line::Command(_)) {
                for output in seen.next().expect("as many outputs as commands").lines() {
                    page.push_str(format!("{indent}{output}").trim_end());
                    page.push('\n');
                }
            }
        }
        let beside = Path::new(PAGE).with_extension("md.new");
        fs::write(&beside, page).expect("the page is written");
        File::open(&beside).and_then(|file| file.sync_all()).expect("the page is on disk");
        fs::rename(beside, PAGE).expect("the page is replaced");
    }
}
