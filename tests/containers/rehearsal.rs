//! The production overlay's pods, started as their template says, from run to promote: scripts/k8s/rehearse in a
//! small form. With a million rows it is run by hand (scripts/k8s/README.md).

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::engine::{self, IMAGE};

fn plays(options: &[&str]) {
    if !engine::there_is_one() {
        return;
    }
    let kubectl = Command::new("kubectl").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !kubectl.is_ok_and(|status| status.success()) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: 1 test, kubectl is missing");
        return;
    }
    let (name, tag) = IMAGE;
    let output = Command::new("scripts/k8s/rehearse")
        .args(["--rows", "80000", "--pace", "100", "--image", &format!("{name}:{tag}")])
        .args(options)
        .output()
        .expect("it starts");
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "scripts/k8s/rehearse: {}\n{said}", output.status);
    assert!(said.ends_with("finished, verified, promoted\n"), "{said}");
}

#[test]
fn the_pods_of_the_production_overlay_do_the_job() {
    plays(&[]);
}

/// The mounted file of the application is edited while promote waits for it, and no password lasts for long.
#[test]
fn keys_are_mounted_and_the_databases_password_changes_all_the_time() {
    plays(&["--keys-from-files", "--rotate-password", "3"]);
}
