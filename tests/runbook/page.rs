//! The pages as text: RUNBOOK.md, README.md and docs/*.md, their `console` blocks, the commands in them, and what is
//! expected after each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// One command and what it prints; a last line `[exit N]` where the exit code is not 0.
pub struct Step {
    scenario: String,
    /// As it is typed, continuation lines joined.
    pub command: String,
    /// As it is shown.
    pub output: String,
    /// Whether the block leaves out counters and times: ```` ```console NAME brief ````.
    pub brief: bool,
}

/// All steps of all pages, in order.
pub struct Page(Vec<Step>);

enum Line<'a> {
    /// Opens a block of this scenario, brief or not.
    Open(&'a str, bool),
    Close,
    Command(&'a str),
    Output(&'a str),
    Prose,
}

/// The pages whose blocks are followed, in the order in which a scenario may go on from one to the next.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("docs").flatten().map(|entry| entry.path());
    let mut docs: Vec<PathBuf> =
        docs.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    docs.sort();
    [root.join("RUNBOOK.md"), root.join("README.md")].into_iter().chain(docs).collect()
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
                    let full = name.trim();
                    full.strip_suffix(" brief").map_or(Line::Open(full, false), |name| Line::Open(name, true))
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
    /// As they stand.
    pub fn read() -> Page {
        let mut steps: Vec<Step> = Vec::new();
        for page in pages() {
            let text = fs::read_to_string(page).expect("a page");
            let mut block = ("", false);
            for (_, line) in lines(&text) {
                match line {
                    Line::Open(name, brief) => block = (name, brief),
                    Line::Command(command) => {
                        let (scenario, command) = (block.0.to_owned(), command.to_owned());
                        steps.push(Step { scenario, command, output: String::new(), brief: block.1 });
                    }
                    Line::Output(output) => {
                        let step = steps.last_mut().expect("output follows a command");
                        step.output.push_str(output);
                        step.output.push('\n');
                    }
                    Line::Close | Line::Prose => {}
                }
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

    /// Puts what was seen into the pages in place of what they showed.
    pub fn rewrite(name: &str, seen: &[String]) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let mut seen = seen.iter();
        for path in pages() {
            let text = fs::read_to_string(&path).expect("a page");
            let (mut page, mut ours, mut indent) = (String::new(), false, "");
            for (line, kind) in lines(&text) {
                match kind {
                    Line::Open(scenario, _) => {
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
            if page == text {
                continue;
            }
            let beside = path.with_extension("md.new");
            fs::write(&beside, page).expect("the page is written");
            File::open(&beside).and_then(|file| file.sync_all()).expect("the page is on disk");
            fs::rename(beside, path).expect("the page is replaced");
        }
    }
}
