//! Statements are declared here, and nowhere sent without.

use std::fs;
use std::path::Path;

fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.extend(path.to_str().map(str::to_owned)),
        }
    }
}

#[test]
fn no_other_file_sends_statements() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&source, &mut found);
    assert!(found.len() > 50, "the sources are here");
    found.retain(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        ["sqlx::query", "sqlx::raw_sql"].iter().any(|call| text.contains(call))
    });
    let name = |file: &String| file.rsplit_once("/src/").map(|(_, name)| name.to_owned());
    let mut names: Vec<String> = found.iter().filter_map(name).collect();
    names.sort();
    names.retain(|name| !name.starts_with("store/statement"));
    assert_eq!(names, [""; 0], "declare statements with statements! (src/store/statement.rs says how)");
}
