//! The manifests under scripts/k8s, rendered by kubectl and judged: strictly valid, one Job each, no secret literals,
//! and a podFailurePolicy that is the exit-code table of the binary. No cluster is involved. checkov and hadolint judge
//! them, and the Dockerfiles, by what is customary.
//!
//! Skipped, loudly, where a judge is not to be had.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rekey::error::{Exit, PodAction};
use serde_json::json;

const OVERLAYS: [&str; 7] = ["staging", "production", "plan", "verify", "promote", "rollback", "finalize"];

/// Whether `found`; if not, says aloud what the test lacks.
fn or_skip(found: bool, lacks: &str) -> bool {
    if !found {
        // Written, not printed: the test harness would swallow it.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: 1 test, {lacks} is missing (./scripts/test installs most)");
    }
    found
}

fn kubectl_is_there() -> bool {
    has("kubectl", "kustomize") || has("kubectl", "--help")
}

fn rendered(overlay: &str) -> Vec<u8> {
    let folder = format!("scripts/k8s/overlays/{overlay}");
    let rendered = Command::new("kubectl").args(["kustomize", &folder]).output().expect("kubectl starts");
    assert!(rendered.status.success(), "{overlay}: {}", String::from_utf8_lossy(&rendered.stderr));
    rendered.stdout
}

fn has(program: &str, argument: &str) -> bool {
    let tried = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

#[test]
fn every_overlay_is_valid_and_follows_the_exit_codes() {
    if !or_skip(kubectl_is_there() && has("kubernetes-validate", "--help"), "kubectl or kubernetes-validate")
    {
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
        let mut judge = Command::new("python3")
            .args(["tests/k8s/judge.py", overlay, &table.to_string(), env!("CARGO_BIN_EXE_rekey")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        judge.stdin.take().expect("a pipe").write_all(&rendered(overlay)).expect("it reads");
        let judged = judge.wait_with_output().expect("it ends");
        assert!(judged.status.success(), "{overlay}: {}", String::from_utf8_lossy(&judged.stderr));
    }
}

/// Nothing fails, and whatever is skipped has its reason beside it.
#[test]
fn checkov_is_content_and_every_skip_is_explained() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target");
    let checkov = target.join("python-checkov/bin/checkov");
    if !or_skip(kubectl_is_there() && checkov.exists(), "kubectl or checkov") {
        return;
    }
    // One that does not begin with a dot: checkov passes over those.
    let folder = tempfile::Builder::new().prefix("rekey-overlays-").tempdir().expect("a folder");
    for overlay in OVERLAYS {
        std::fs::write(folder.path().join(format!("{overlay}.yaml")), rendered(overlay)).expect("it writes");
    }
    let mut judge = Command::new(checkov);
    judge.args(["--skip-download", "--framework", "kubernetes", "--output", "json", "--directory"]);
    let judged = judge.arg(folder.path()).output().expect("checkov starts");
    let found: serde_json::Value = serde_json::from_slice(&judged.stdout).expect("JSON");
    let failed = found["results"]["failed_checks"].as_array().expect("a list");
    let failed: Vec<_> = failed.iter().map(|each| (&each["check_id"], &each["file_path"])).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(found["summary"]["passed"].as_u64().is_some_and(|passed| passed > 500), "{}", found["summary"]);
    for skipped in found["results"]["skipped_checks"].as_array().expect("a list") {
        let reason = skipped["check_result"]["suppress_comment"].as_str().unwrap_or_default();
        assert!(reason.len() > 20, "{} is skipped without a reason", skipped["check_id"]);
    }
}

#[test]
fn hadolint_is_content_with_every_dockerfile() {
    if !or_skip(has("hadolint", "--version"), "hadolint") {
        return;
    }
    let files = ["Dockerfile", "scripts/stand-ins/postgres/Dockerfile", "scripts/stand-ins/redis/Dockerfile"];
    let judged = Command::new("hadolint").args(files).output().expect("hadolint starts");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}
