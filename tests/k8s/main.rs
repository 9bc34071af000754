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
    rendered_in(Path::new("scripts/k8s"), overlay)
}

fn rendered_in(folder: &Path, overlay: &str) -> Vec<u8> {
    let folder = folder.join("overlays").join(overlay);
    let rendered = Command::new("kubectl").arg("kustomize").arg(folder).output().expect("kubectl starts");
    assert!(rendered.status.success(), "{overlay}: {}", String::from_utf8_lossy(&rendered.stderr));
    rendered.stdout
}

/// A copy of the manifests, to be changed as a user would.
fn copied() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let parts = ["base", "components", "overlays"].map(|part| format!("scripts/k8s/{part}"));
    let done = Command::new("cp").arg("-r").args(parts).arg(folder.path()).status().expect("cp starts");
    assert!(done.success());
    folder
}

fn table() -> serde_json::Value {
    let codes = |wanted| {
        let all = Exit::ALL.iter().filter(move |exit| exit.pod_action() == wanted);
        all.map(|exit| exit.code()).collect::<Vec<_>>()
    };
    json!({
        "FailJob": codes(PodAction::FailJob),
        "Ignore": codes(PodAction::Ignore),
        "Count": codes(PodAction::Count),
    })
}

fn judge(overlay: &str, manifest: &[u8]) {
    let mut judge = Command::new("python3")
        .args(["tests/k8s/judge.py", overlay, &table().to_string(), env!("CARGO_BIN_EXE_rekey")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    judge.stdin.take().expect("a pipe").write_all(manifest).expect("it reads");
    let judged = judge.wait_with_output().expect("it ends");
    assert!(judged.status.success(), "{overlay}: {}", String::from_utf8_lossy(&judged.stderr));
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
    for overlay in OVERLAYS {
        judge(overlay, &rendered(overlay));
    }
}

/// Each option alone, and all of them together.
#[test]
fn every_component_fits_every_job_it_is_for() {
    if !or_skip(kubectl_is_there() && has("kubernetes-validate", "--help"), "kubectl or kubernetes-validate")
    {
        return;
    }
    let folder = copied();
    let options = ["keys-from-files", "password-from-file", "pull-secret", "pod-monitor", "reach-redis"];
    let with = |components: &[&str]| {
        let own = folder.path().join("overlays/own");
        std::fs::create_dir_all(&own).expect("a folder");
        let components: Vec<_> = components.iter().map(|name| format!("../../components/{name}")).collect();
        let text = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": ["../promote"], "components": components,
        });
        std::fs::write(own.join("kustomization.yaml"), text.to_string()).expect("it writes");
        String::from_utf8(rendered_in(folder.path(), "own")).expect("text")
    };
    for option in options {
        judge("promote", with(&[option]).as_bytes());
    }
    let all = with(&options);
    judge("promote", all.as_bytes());
    for part in [
        "kind: PodMonitor",
        "name: rekey-pull",
        "file:/keys/application/",
        "file:/database/password",
        "port: 6379",
    ] {
        assert!(all.contains(part), "{part} is not in\n{all}");
    }
    assert!(!all.contains("subPath"), "such a file is never updated");
}

/// Whoever edits the values of a site has edited everything.
#[test]
fn a_sites_values_are_all_that_differs() {
    if !or_skip(kubectl_is_there(), "kubectl") {
        return;
    }
    let folder = copied();
    let values = [
        ("namespace: dashtam", "namespace: bank"),
        ("registry.example.com/rekey:0.1.0", "registry.bank.test/rekey@sha256:0123"),
        ("111122223333", "999988887777"),
        ("region: eu-central-1", "region: sa-east-1"),
        ("dashtam/production", "bank/live"),
        ("dashtam/staging", "bank/staging"),
        ("10.0.32.0/20", "10.7.1.0/24"),
        ("10.0.64.0/24", "10.7.2.0/24"),
        ("monitoringNamespace: monitoring", "monitoringNamespace: watch"),
        ("window: 3h", "window: 2h"),
        ("operator: \"\"", "operator: alice"),
        ("reason: \"\"", "reason: quarterly rotation"),
    ];
    for site in ["site", "site-staging"] {
        let path = folder.path().join("components").join(site).join("values.yaml");
        let text = std::fs::read_to_string(&path).expect("it reads");
        let text = values.iter().fold(text, |text, (from, to)| text.replace(from, to));
        std::fs::write(path, text).expect("it writes");
    }
    for overlay in OVERLAYS {
        let text = String::from_utf8(rendered_in(folder.path(), overlay)).expect("text");
        for (from, _) in values {
            let own_window = from == "window: 3h" || from == "namespace: dashtam";
            assert!(own_window || !text.contains(from), "{overlay}: {from} is left in\n{text}");
        }
        for part in [
            "image: registry.bank.test/rekey@sha256:0123",
            "role/rekey-",
            "999988887777",
            "AWS_REGION: sa-east-1",
            "AWS_SECRET_NAME: bank/",
            "cidr: 10.7.1.0/24",
            "cidr: 10.7.2.0/24",
            "kubernetes.io/metadata.name: watch",
            "REKEY_OPERATOR: alice",
            "REKEY_REASON: quarterly rotation",
            "namespace: bank",
        ] {
            assert!(text.contains(part), "{overlay}: {part} is not in\n{text}");
        }
        assert!(!text.lines().any(|line| line == "  namespace: dashtam"), "{text}");
        assert!(overlay == "rollback" || text.contains("value: 2h"), "{overlay}: the window");
        assert!(!text.contains("rekey-site"), "the values themselves are not applied");
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
