//! Puts commit and date into `rekey --version`.
//!
//! REKEY_COMMIT and REKEY_BUILD_DATE say them where there is no git: an image, a tarball. Otherwise git is asked, for builds that
//! are optimised: a test build is not made again for every commit. The date is the commit's, so that the same tree gives the
//! same bytes.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=REKEY_COMMIT");
    println!("cargo:rerun-if-env-changed=REKEY_BUILD_DATE");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let told = env::var("REKEY_COMMIT").ok().zip(env::var("REKEY_BUILD_DATE").ok());
    let known = told.filter(|(commit, date)| !commit.is_empty() && !date.is_empty()).or_else(|| {
        // "release" for every profile that inherits from it.
        (env::var("PROFILE").as_deref() == Ok("release")).then(asked_of_git)?
    });
    match known {
        Some((commit, date)) => {
            println!("cargo:rustc-env=REKEY_VERSION={version} ({commit} {date})");
            println!("cargo:rustc-env=REKEY_BUILT_FROM={commit} {date}");
        }
        None => println!("cargo:rustc-env=REKEY_VERSION={version}"),
    }
}

/// The commit, marked where the work tree differs from it, and its date.
fn asked_of_git() -> Option<(String, String)> {
    for path in ["src", "migrations", "build.rs", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let date = git(&["show", "--no-patch", "--format=%cd", "--date=format-local:%Y-%m-%d", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some((if changed.is_empty() { commit } else { format!("{commit}-dirty") }, date))
}

fn git(arguments: &[&str]) -> Option<String> {
    let done = Command::new("git").env("TZ", "UTC").args(arguments).output().ok()?;
    let said = String::from_utf8(done.stdout).ok()?;
    done.status.success().then(|| said.trim().to_owned())
}
