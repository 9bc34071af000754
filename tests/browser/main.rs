//! The report and the page to watch as people see them, in a real Chromium at the widths of a phone, a tablet and a desk, light and dark, and on paper:
//! nothing sticks out, nothing is asked for elsewhere, axe has no complaint, and every figure is the one in the JSON.

#[path = "../support/mod.rs"]
mod support;

mod page;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every window that `look.py` opens.
const WINDOWS: usize = 7;

/// Opens each address in a browser and returns what it saw, one entry for each window, with nothing wrong in any.
#[track_caller]
fn look(options: &[&str], addresses: &[String]) -> Vec<Value> {
    let ours = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").join("python/bin/python3");
    let python = if ours.exists() { ours } else { PathBuf::from("python3") };
    let done = Command::new(python)
        .arg("tests/browser/look.py")
        .args(options)
        .args(addresses)
        .output()
        .expect("python3 starts");
    assert!(done.status.success(), "look.py: {}", String::from_utf8_lossy(&done.stderr));
    let seen: Vec<Value> = serde_json::from_slice(&done.stdout).expect("JSON");
    for page in &seen {
        let wrong = page["wrong"].as_array().expect("a list");
        let (width, scheme) = (&page["width"], &page["scheme"]);
        assert!(wrong.is_empty(), "{} at {width}, {scheme}: {wrong:#?}", page["address"]);
        assert_eq!(page["lang"], "en");
    }
    seen
}

/// A page in a file, as its address.
fn file(folder: &Path, name: &str, html: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, html).expect("a file is written");
    format!("file://{}", path.display())
}
