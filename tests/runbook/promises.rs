//! What the pages promise exists: exit codes are those of the table in the code, every command line in RUNBOOK.md,
//! README.md and `--help` is one that rekey takes, deliberate faults apply, and the bill of materials is one.

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use rekey::cli::Cli;
use rekey::error::{Exit, PodAction};

use crate::support::rekey_without_database;

const PAGES: [&str; 12] = [
    "RUNBOOK.md",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/design.md",
    "docs/disaster.md",
    "docs/findings.md",
    "docs/json.md",
    "docs/key-management.md",
    "docs/lifecycle.md",
    "docs/states.md",
    "tests/README.md",
];

/// A file of the repository, as it stands now.
fn text(page: &str) -> String {
    std::fs::read_to_string(format!("{}/{page}", env!("CARGO_MANIFEST_DIR")))
        .unwrap_or_else(|e| panic!("{page}: {e}"))
}

#[test]
fn exit_codes_are_those_of_the_code() {
    let table: Vec<(u8, &str)> = Exit::ALL.iter().map(|exit| (exit.code(), exit.meaning())).collect();
    for page in &PAGES[..2] {
        let text = text(page);
        let section = text.split_once("## Exit codes").expect("a section on exit codes").1;
        let rows = section.lines().skip_while(|line| !line.starts_with("|---"));
        let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
        let told: Vec<(u8, &str)> = rows
            .map(|row| {
                let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
                (cells[0].parse().expect("a code"), cells[1])
            })
            .collect();
        assert_eq!(told, table, "{page}");
    }
}

/// What RUNBOOK.md says a Job does after each code is what `podFailurePolicy` is held to.
#[test]
fn what_kubernetes_does_is_what_the_code_says() {
    let page = text("RUNBOOK.md");
    for exit in Exit::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| {} |", exit.code()))).expect("a row");
        let told = match exit.pod_action() {
            PodAction::None => "the pod succeeds",
            PodAction::Count => "retried, counted",
            PodAction::FailJob => "fails at once",
            PodAction::Ignore => "replaced, not counted",
        };
        assert!(row.ends_with(&format!("| {told} |")), "{row}");
    }
}

/// RUNBOOK.md is for the night: what is longer stands in docs/.
#[test]
fn the_runbook_is_short() {
    assert!(text("RUNBOOK.md").lines().count() <= 600);
}

/// The code spans and code blocks of a page that hold a command line of ours.
fn command_lines(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut block, mut continued) = (None, String::new());
    for line in text.lines() {
        let bare = line.trim_start();
        if let Some(language) = bare.strip_prefix("```") {
            block = if block.is_none() {
                Some(language.split(' ').next().unwrap_or_default().to_owned())
            } else {
                None
            };
            continue;
        }
        match block.as_deref() {
            Some("console" | "sh") => {
                let typed = if block.as_deref() == Some("sh") { Some(bare) } else { bare.strip_prefix("$ ") };
                let Some(typed) = typed else { continue };
                if let Some(more) = typed.strip_suffix('\\') {
                    continued.push_str(more);
                    continue;
                }
                found.push(std::mem::take(&mut continued) + typed);
            }
            Some(_) => {}
            None => found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned)),
        }
    }
    found.iter().filter_map(|line| ours(line)).collect()
}

/// The part of a shell line that is a rekey command: after assignments, before a pipe, a redirection or a comment.
fn ours(line: &str) -> Option<String> {
    let line = line.split(" #").next().unwrap_or_default();
    let line = line.split_once("-- rekey ").map_or(line, |(_, inside)| inside);
    let words: Vec<&str> = line.split_whitespace().skip_while(|word| word.contains('=')).collect();
    let words: Vec<&str> = match words.split_first() {
        Some((&"rekey", rest)) => rest.to_vec(),
        _ => return None,
    };
    let end = words
        .iter()
        .position(|word| {
            word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['|', '>', '<', '&', ';'])
        })
        .unwrap_or(words.len());
    Some(words[..end].join(" "))
}

#[test]
fn every_command_line_is_one_that_rekey_takes() {
    let mut tried = 0;
    for page in PAGES {
        for line in command_lines(&text(page)) {
            // Placeholders in capitals stand for what only the reader knows.
            if line.is_empty() || line.contains("COMMAND") || line.contains('…') {
                continue;
            }
            let line = line.replace(" ID", " 01900000-0000-7000-8000-0000000000aa");
            let line = line.replace("SEQ:HASH", &format!("1:{}", "0f".repeat(32)));
            takes(page, &line);
            tried += 1;
        }
    }
    assert!(tried > 60, "only {tried} command lines were found");
}

/// Panics unless rekey's own parser takes this line; a mention without its arguments is no mistake.
fn takes(whose: &str, line: &str) {
    let words = std::iter::once("rekey".to_owned()).chain(shell_words(line));
    let Err(error) = Cli::try_parse_from(words).map(drop) else { return };
    let mention = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    assert!(mention || !error.use_stderr(), "{whose}: `rekey {line}` is no command: {error}");
}

fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' | '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("never empty").push(c),
        }
    }
    words
}

/// The files under these folders of the repository, and the pages at its root.
fn sources() -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<_> = ["src", "tests", "benches", "docs", "scripts", "fixtures", "fuzz/properties"]
        .map(|f| root.join(f))
        .into();
    let mut files: Vec<_> =
        PAGES.iter().filter(|page| !page.contains('/')).map(|page| root.join(page)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

/// Every page that code or another page names is in the repository: from its root, or beside the one that names it.
#[test]
fn every_page_that_is_cited_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let part_of_a_name = |c: char| c.is_ascii_alphanumeric() || "_-./:".contains(c);
    let mut cited = 0;
    for file in sources() {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let words = text.split(|c| !part_of_a_name(c)).map(|word| word.trim_start_matches('/'));
        for word in words.filter(|word| word.ends_with(".md") && word.len() > 3 && !word.contains("://")) {
            let beside = file.parent().expect("a folder").join(word);
            assert!(root.join(word).is_file() || beside.is_file(), "{}: {word} is not there", file.display());
            cited += 1;
        }
    }
    assert!(cited > 50, "only {cited} pages are cited");
}

/// Every command's `--help` ends with examples, and each is one that rekey takes.
#[test]
fn every_command_has_examples_that_parse() {
    let mut rekey = Cli::command();
    rekey.build();
    let mut commands = vec![("rekey".to_owned(), &rekey)];
    let mut checked = 0;
    while let Some((name, command)) = commands.pop() {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
            commands.push((format!("{name} {}", sub.get_name()), sub));
        }
        if name == "rekey" {
            continue;
        }
        let examples = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let lines: Vec<&str> = examples.lines().collect();
        assert!(lines.len() > 1 && lines[0] == "Examples:", "{name} --help has no examples");
        for line in &lines[1..] {
            assert!(line.chars().count() <= 80, "{name} --help is too wide: {line}");
            // What follows a wide gap says what the example is for.
            let typed = line.trim().split("  ").next().unwrap_or_default();
            let inside = typed.strip_prefix("source <(").and_then(|rest| rest.strip_suffix(')'));
            let typed = ours(inside.unwrap_or(typed)).unwrap_or_else(|| panic!("{name} --help: {line}"));
            takes(&format!("{name} --help"), &typed);
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} examples were found");
}

/// The list of deliberate faults fits the code of today.
#[test]
fn deliberate_faults_still_apply() {
    let list = text("tests/breakages.toml");
    let value =
        |line: &str| serde_json::from_str::<String>(line.split_once(" = ").expect("a value").1).expect(line);
    let mut faults = 0;
    for fault in list.split("[[breakage]]").skip(1) {
        let field = |name: &str| {
            value(
                fault
                    .lines()
                    .find(|line| line.starts_with(&format!("{name} = ")))
                    .unwrap_or_else(|| panic!("{fault}")),
            )
        };
        let (name, file, from) = (field("name"), field("file"), field("from"));
        let code = text(&file);
        assert_eq!(code.matches(&from).count(), 1, "{name}: {file}");
        faults += 1;
    }
    assert!(faults >= 10);
}

/// The lint can be let pass anywhere; it is in one place.
#[test]
fn two_modules_alone_have_unsafe_code() {
    let sources = format!("{}/src", env!("CARGO_MANIFEST_DIR"));
    let grep = std::process::Command::new("grep").args(["-rlw", "unsafe\\|unsafe_code", &sources]).output();
    let found = String::from_utf8(grep.expect("grep starts").stdout).expect("UTF-8");
    let mut found: Vec<_> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["crypto/locked.rs", "program/child.rs"].map(|file| format!("{sources}/{file}")));
}

/// A bill of materials of what is in Cargo.lock, the same every time.
#[test]
fn the_sbom_lists_what_is_shipped() {
    let make = || {
        let folder = tempfile::tempdir().expect("a folder");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/sbom");
        let done = std::process::Command::new(script).arg(folder.path()).output().expect("python3");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let licences = std::fs::read_to_string(folder.path().join("licences.txt")).expect("a list");
        (std::fs::read(folder.path().join("rekey.cdx.json")).expect("a bill"), licences)
    };
    let (bill, licences) = make();
    assert_eq!(make().0, bill, "two runs differ");
    let bill: serde_json::Value = serde_json::from_slice(&bill).expect("JSON");
    assert_eq!((bill["bomFormat"].as_str(), bill["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    let parts = bill["components"].as_array().expect("components");
    let named = |name: &str| parts.iter().find(|part| part["name"] == name);
    let sqlx = named("sqlx").expect("sqlx is shipped");
    assert!(sqlx["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/sqlx@")), "{sqlx}");
    assert_eq!(sqlx["hashes"][0]["content"].as_str().map(str::len), Some(64), "{sqlx}");
    assert_eq!(sqlx["licenses"][0]["expression"], "MIT OR Apache-2.0");
    assert!(named("proptest").is_none() && named("testcontainers").is_none(), "tests are not shipped");
    assert!(
        ["syn", "quote", "proc-macro2"].iter().all(|name| named(name).is_none()),
        "macros are not linked"
    );
    assert_eq!(licences.lines().count(), parts.len());
}

/// One manual page a command, and each option in it says what it is for.
#[test]
fn the_manual_explains_every_option() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    rekey_without_database(["man", "--dir", path]).exits(0);
    let page = std::fs::read_to_string(folder.path().join("rekey-run.1")).expect("rekey-run(1)");
    let mut rekey = Cli::command();
    rekey.build();
    let run = rekey.find_subcommand("run").expect("a command");
    for arg in run.get_arguments().filter(|arg| arg.get_id() != "help") {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('-', "\\-");
        assert!(!help.is_empty() && page.replace("\\*(Aq", "'").contains(&help), "{}: {help}", arg.get_id());
    }
    assert!(page.contains("Examples:"), "{page}");
    for section in ["EXIT STATUS", "ENVIRONMENT", "FILES"] {
        assert!(page.contains(&format!(".SH \"{section}\"")), "{section} is not in {page}");
    }
    assert!(
        page.contains("REKEY_MAX_RATE") && page.contains("DATABASE_URL") && page.contains("\\fB75\\fR"),
        "{page}"
    );
}
