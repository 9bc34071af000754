//! The manifests under scripts/k8s, rendered by kubectl and judged: strictly valid, one Job each, no secret literals,
//! and a podFailurePolicy that is the exit-code table of the binary. No cluster is involved.
//!
//! Skipped, loudly, where kubectl or kubernetes-validate is not to be had.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rekey::error::{Exit, PodAction};
use serde_json::json;

const OVERLAYS: [&str; 7] = ["staging", "production", "plan", "verify", "promote", "rollback", "finalize"];

fn has(program: &str, argument: &str) -> bool {
    let tried = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

#[test]
fn every_overlay_is_valid_and_follows_the_exit_codes() {
    if !has("kubectl", "kustomize") && !has("kubectl", "--help") || !has("kubernetes-validate", "--help") {
        eprintln!(
            "SKIPPED 1 test: kubectl or kubernetes-validate is missing (./scripts/test installs the latter)"
        );
        return;
    }
    let codes = |wanted| {
        let all = Exit::ALL.iter().filter(move |exit| exit.pod_action() == wanted);
        all.map(|exit| exit.code()).collect::<Vec<_>>()
    };
    let table = json!({
        "FailJob": codes(PodAction::FailJob),
        "Ignore": codes(PodAction::Ignore),
        "Count": codes(PodAction::Count),
    });
    for overlay in OVERLAYS {
        let folder = format!("scripts/k8s/overlays/{overlay}");
        let rendered = Command::new("kubectl").args(["kustomize", &folder]).output().expect("kubectl starts");
        assert!(rendered.status.success(), "{overlay}: {}", String::from_utf8_lossy(&rendered.stderr));
        let mut judge = Command::new("python3")
            .args(["tests/k8s/judge.py", overlay, &table.to_string(), env!("CARGO_BIN_EXE_rekey")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        judge.stdin.take().expect("a pipe").write_all(&rendered.stdout).expect("it reads");
        let judged = judge.wait_with_output().expect("it ends");
        assert!(judged.status.success(), "{overlay}: {}", String::from_utf8_lossy(&judged.stderr));
    }
}
