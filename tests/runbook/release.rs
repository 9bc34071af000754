//! `scripts/release`: what is published of a version is complete, the same bytes each time, and never without an entry in the
//! changelog. It packs the binary of the tests: the build itself is cargo's.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn output(program: &str, arguments: &[&str], folder: &Path) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn said(program: &str, arguments: &[&str], folder: &Path) -> String {
    let done = output(program, arguments, folder);
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("UTF-8")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Every file that a release makes, with its bytes.
fn release(binary: &Path, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    said(
        "scripts/release",
        &[VERSION, "--allow-dirty", "--binary", text(binary), "--out", text(folder)],
        root,
    );
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    files
        .map(|f| (f.file_name().into_string().expect("a name"), std::fs::read(f.path()).expect("a file")))
        .collect()
}

#[test]
fn a_release_is_complete_and_the_same_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let (binary, first, second) =
        (folder.path().join("stripped"), folder.path().join("first"), folder.path().join("second"));
    said("strip", &["-o", text(&binary), env!("CARGO_BIN_EXE_rekey")], folder.path());
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(|| release(&binary, &second));
        (release(&binary, &first), other.join().expect("a release"))
    });
    assert!(one == two, "{:?} and {:?} differ in a byte", one.keys(), two.keys());

    let named = |end: &str| one.keys().find(|name| name.ends_with(end)).unwrap_or_else(|| panic!("no {end}"));
    let (tarball, package) = (named(".tar.gz"), named(".deb"));
    said("sha256sum", &["--check", "--strict", "SHA256SUMS"], &first);
    let sums = String::from_utf8_lossy(&one["SHA256SUMS"]);
    assert_eq!(sums.lines().count(), one.len() - 1, "each file but the sums themselves: {sums}");

    let root = tarball.strip_suffix(".tar.gz").expect("a name");
    let inside = said("tar", &["--list", "--file", tarball], &first);
    for file in [
        "rekey",
        "LICENSE",
        "THIRD-PARTY-LICENCES.txt",
        "rekey.cdx.json",
        "CHANGELOG.md",
        "docs/design.md",
        "man/rekey-run.1",
        "completions/rekey.bash",
        "completions/_rekey",
        "completions/rekey.fish",
    ] {
        assert!(inside.lines().any(|line| line == format!("{root}/{file}")), "{file} is not in {inside}");
    }
    // What `cargo binstall` looks for, by the manifest's own words.
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).expect("it");
    let target = root.strip_prefix(&format!("rekey-{VERSION}-")).expect("name, version, target");
    let fill = |line: &str| {
        let template = line.split('"').nth(1).expect("a value").to_owned();
        [("version", VERSION), ("target", target), ("bin", "rekey"), ("binary-ext", "")]
            .iter()
            .fold(template, |text, (name, value)| text.replace(&format!("{{ {name} }}"), value))
    };
    let line =
        |name: &str| manifest.lines().find(|line| line.starts_with(name)).expect("binstall's metadata");
    assert!(fill(line("pkg-url")).ends_with(&format!("/{tarball}")));
    assert_eq!(fill(line("bin-dir")), format!("{root}/rekey"));

    assert_eq!(said("dpkg-deb", &["--field", package, "Version"], &first).trim(), VERSION);
    let contents = said("dpkg-deb", &["--contents", package], &first);
    for file in [
        "./usr/bin/rekey",
        "./usr/share/man/man1/rekey-run.1.gz",
        "./usr/share/doc/rekey/copyright",
        "./usr/share/bash-completion/completions/rekey",
    ] {
        assert!(contents.lines().any(|line| line.ends_with(file)), "{file} is not in {contents}");
    }
    said("dpkg-deb", &["--extract", package, "unpacked"], &first);
    let unpacked = std::fs::read(first.join("unpacked/usr/bin/rekey")).expect("the binary");
    assert!(unpacked == std::fs::read(&binary).expect("the binary"), "another binary was packed");
}

#[test]
fn a_version_without_an_entry_is_not_released() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("scripts")).expect("a folder");
    for file in ["scripts/release", "scripts/lib.sh", "Cargo.toml"] {
        std::fs::copy(root.join(file), folder.path().join(file)).expect(file);
    }
    let changelog = std::fs::read_to_string(root.join("CHANGELOG.md")).expect("a changelog");
    let heading = format!("## [{VERSION}] - ");
    for (changelog, version, why) in [
        (changelog.replace(&heading, "## [0.0.0] - "), VERSION, "CHANGELOG.md has no entry"),
        (format!("# Changelog\n\n{heading}2026-01-01\n"), VERSION, "CHANGELOG.md has no entry"),
        (changelog.clone(), "99.0.0", "Cargo.toml has another version"),
    ] {
        std::fs::write(folder.path().join("CHANGELOG.md"), changelog).expect("written");
        let refused = output("scripts/release", &[version], folder.path());
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && error.contains(why), "{error}");
    }
}
