//! PostgreSQL's programs by major version: Debian's, or the servers that wheels carry
//! (tests/requirements-postgres.txt, installed by scripts/test under target/).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// initdb, postgres and their friends, of one version.
pub struct Programs {
    /// Their folder.
    pub bin: PathBuf,
    _copy: Option<tempfile::TempDir>,
}

impl Programs {
    /// Of this major version, where they are to be had.
    pub fn of(major: u32) -> Option<Programs> {
        let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        if debian.join("postgres").exists() {
            return Some(Programs { bin: debian, _copy: None });
        }
        wheels().into_iter().find(|installed| version(installed) == Some(major)).map(|path| copy(&path))
    }
}

/// Every `PACKAGE/pginstall` below the environment that scripts/test made.
fn wheels() -> Vec<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target");
    let libraries = list(&target.join("python-postgres/lib"));
    let packages = libraries.iter().flat_map(|library| list(&library.join("site-packages")));
    packages
        .map(|package| package.join("pginstall"))
        .filter(|path| path.join("bin/postgres").exists())
        .collect()
}

fn list(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn version(installed: &Path) -> Option<u32> {
    let output = Command::new(installed.join("bin/postgres")).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.split_whitespace().last()?.split('.').next()?.parse().ok()
}

/// A copy that the user `postgres` can reach wherever the work tree is, with the libraries that wheels keep beside it.
fn copy(installed: &Path) -> Programs {
    let package = installed.parent().expect("a package");
    let folder = tempfile::Builder::new().prefix("rekey-programs-").tempdir().expect("a folder");
    open(folder.path());
    let to = folder.path().join("package");
    fs::create_dir(&to).expect("a folder");
    let mut copies = vec![(installed.to_owned(), to.join("pginstall"))];
    let libraries = package.with_extension("libs");
    if libraries.exists() {
        let name = libraries.file_name().expect("a name").to_owned();
        copies.push((libraries, folder.path().join(name)));
    }
    for (from, to) in copies {
        let done = Command::new("cp").arg("-r").arg(&from).arg(&to).status().expect("cp starts");
        assert!(done.success(), "cp {}", from.display());
    }
    Programs { bin: to.join("pginstall/bin"), _copy: Some(folder) }
}

fn open(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("modes change");
}
